"""Errors that the library raises for mistakes that its user can mend.

Every message names the value that was given, what was expected and the field or command that mends it. The command
line prints these messages without a traceback and exits with 2.
"""

import difflib
from collections.abc import Iterable

# What a newer artifact or a newer Hub asks for; the library is in no package index.
UPGRADE = "upgrade fadrm_hf with `git pull` and `pip install -U .` in a copy of its repository"


class FadrmError(ValueError):
    """Base of all documented errors."""


class ConfigError(FadrmError):
    """A value of the configuration is not allowed."""


class SourceError(FadrmError):
    """The source dataset cannot be read as an image-classification dataset."""


class ClassMapError(FadrmError):
    """Two parts of a run disagree on their classes."""


class TeacherError(FadrmError):
    """A teacher cannot be loaded, or must not be used."""


class StudentError(FadrmError):
    """A student cannot be built or trained as requested."""


class RunFolderError(FadrmError):
    """The run folder cannot take this run: it holds another one, is in use, or lacks space."""


class ArtifactError(FadrmError):
    """An artifact is damaged, incomplete or written by a newer version."""


class ScoreError(FadrmError):
    """A score is not defined on its input."""


class HubError(FadrmError):
    """The Hub refuses a request, cannot be reached, or holds something unexpected."""


def unknown(kind: str, value: str, choices: Iterable[str]) -> str:
    """Return the message for an unknown name, with the nearest known ones."""
    known = sorted(choices)
    near = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(name) for name in near)}?" if near else f"known: {', '.join(known[:20])}"
    return f"unknown {kind} {value!r}; {hint}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python, torch on a CPU or torch on a GPU could not get the memory it asked for."""
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    from accelerate.utils.memory import should_reduce_batch_size  # takes a second, which only long work may cost

    named = type(error).__name__ == "OutOfMemoryError"
    return named or should_reduce_batch_size(error) or "std::bad_alloc" in str(error)
