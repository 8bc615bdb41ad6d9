"""Evaluations from elsewhere: read, checked and stripped of everything that is not part of one.

What is sent to a public place holds known keys only, and neither folders nor names of the machine it comes from.
"""

import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any

from fadrm_hf.config import RelabelConfig, SqueezeConfig, StudentConfig
from fadrm_hf.errors import ConfigError
from fadrm_hf.report.card.results import Result
from fadrm_hf.runtime.files import parse_json, read_regular
from fadrm_hf.runtime.machine import LIBRARIES

_MAX_BYTES = 1 << 20
_LONGEST_TEXT = 1000  # characters
_ROUNDING = 1e-5  # values are kept to six decimals
_SETTINGS = [field.name for kind in (StudentConfig, SqueezeConfig) for field in fields(kind)]
_LABELS = [field.name for field in fields(RelabelConfig)]
_MACHINE = ("cpu", "capability", "cores", "memory_bytes", "gpu")
# A path from the root, from a home or of a drive; "hf://" is none.
_ABSOLUTE = re.compile(r"""(?:(?<=^)|(?<=[\s='"\[,(:]))(?:~|/(?!/)|[A-Za-z]:[\\/])[^\s'"\],)]+""")

Check = Callable[[Any], bool]


def read_evaluation(path: Path) -> Result:
    """Return one evaluation, as `train-student` writes it, with nothing but its known keys.

    Args:
        path: A JSON file.

    Raises:
        ConfigError: If it cannot be read, lacks a field, or has a value that no evaluation can have.
    """
    document = _read(path)
    lacking = [name for name in _FIELDS if name not in document and name not in _OPTIONAL]
    if lacking:
        raise _unfit(path, f"lacks {', '.join(lacking)}")
    result: Result = {name: document[name] for name in _FIELDS if name in document}
    for name, value in result.items():
        what, check = _FIELDS[name]
        if not check(value):
            raise _unfit(path, f"has {name} = {_shortened(value)}, expected {what}")
    result["settings"] = _known_settings(result["settings"])
    result["machine"] = _known(result["machine"], _MACHINE)
    result["versions"] = _known(result["versions"], ("python", *LIBRARIES, "fadrm_hf_commit"))
    result["command"] = without_folders(result["command"])
    _require_consistent(path, result)
    return result


def without_folders(command: str) -> str:
    """Return a command line with the last part of every absolute path: no reader has those folders."""
    return _ABSOLUTE.sub(lambda found: PurePath(found[0]).name, command)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = parse_json(read_regular(path, _MAX_BYTES))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give the JSON file of an evaluation") from error
    except ValueError as error:
        raise _unfit(path, f"is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise _unfit(path, f"holds {type(document).__name__}, expected an object")
    return document


def _unfit(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path} {reason}; it is no evaluation as fadrm-hf train-student writes it: measure it again")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _known(given: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _known_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known settings, and those of a protocol's own views."""
    known = _known(given, _SETTINGS)
    return known | ({"relabel": _known(known["relabel"], _LABELS)} if known.get("relabel") else {})


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable()


def _is_public(value: Any) -> bool:
    return _is_text(value) and not _ABSOLUTE.search(value)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w[\w.+-]{0,99}", value) is not None and ".." not in value


def _is_student(value: Any) -> bool:
    return isinstance(value, str) and value.count("/") == 1 and all(map(_is_word, value.split("/")))


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_plain(value: Any) -> bool:
    """Return whether a value is text without folders, a finite number, a truth value, nothing, or a list of these."""
    if isinstance(value, list):
        return all(_is_plain(entry) and not isinstance(entry, list) for entry in value)
    return value is None or isinstance(value, bool) or _is_number(value) or _is_public(value)


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_plain, value.values()))


def _is_protocol(value: Any) -> bool:
    """Return whether settings are plain but for those of a protocol's own views."""
    if not isinstance(value, dict):
        return False
    views = value.get("relabel")
    plain = all(_is_plain(entry) for name, entry in value.items() if name != "relabel")
    return plain and (views is None or _is_record(views))


def _is_summary(value: Any) -> bool:
    """Return whether mean, standard deviation and values of an accuracy agree."""
    if not isinstance(value, dict) or set(value) != {"mean", "std", "values"} or not isinstance(value["values"], list):
        return False
    values = value["values"]
    if not values or not all(map(_is_fraction, [*values, value["mean"], value["std"]])):
        return False
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return abs(statistics.fmean(values) - value["mean"]) <= _ROUNDING and abs(std - value["std"]) <= _ROUNDING


def _is_artifact(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"repository", "revision"}:
        return False
    return _is_student(value["repository"]) and re.fullmatch("[0-9a-f]{40}", str(value["revision"])) is not None


_SUMMARY = "mean, std and values, fractions that agree with one another"
_FIELDS: dict[str, tuple[str, Check]] = {
    "protocol": ("a name", _is_word),
    "student": ("LIBRARY/ARCHITECTURE", _is_student),
    "images": ("a name", _is_word),
    "labels": ("a name", _is_word),
    "label_codec": ("a name", _is_word),
    "epochs": ("a count", _is_count),
    "num_images": ("a count", _is_count),
    "settings": ("settings without folders", _is_protocol),
    "num_seeds": ("a count", _is_count),
    "num_test_images": ("a count", _is_count),
    "top1": (_SUMMARY, _is_summary),
    "top5": (_SUMMARY, _is_summary),
    "best_epoch_top1": (f"{_SUMMARY}, or null", lambda value: value is None or _is_summary(value)),
    "seconds": ("a number, 0 or more", lambda value: _is_number(value) and value >= 0),
    "machine": ("cpu, capability, cores, memory and gpu", _is_record),
    "versions": ("versions by library", _is_record),
    "command": ("the command line", _is_text),
    "artifact": ("repository and revision (40 hexadecimal digits)", _is_artifact),
}
_OPTIONAL = ("label_codec", "artifact")


def _require_consistent(path: Path, result: Result) -> None:
    """Refuse an evaluation whose parts contradict one another."""
    settings, seeds = result["settings"], result["num_seeds"]
    pairs = {"name": "protocol", "student": "student", "epochs": "epochs", "num_seeds": "num_seeds"}
    for setting, name in pairs.items():
        if setting in settings and settings[setting] != result[name]:
            raise _unfit(path, f"has settings.{setting} = {settings[setting]!r} but {name} = {result[name]!r}")
    for name in ("top1", "top5"):
        if len(result[name]["values"]) != seeds:
            raise _unfit(path, f"has {len(result[name]['values'])} values of {name} for {seeds} seeds")
    if any(first > fifth for first, fifth in zip(result["top1"]["values"], result["top5"]["values"], strict=True)):
        raise _unfit(path, "has a top-1 accuracy above the top-5 accuracy")
