"""Files of settings: YAML that is plain data, of a size that settings have; by path, or by name of a recipe.

What YAML can do beyond that is refused before it is done: tags name Python objects, aliases let a thousand bytes take
any amount of memory, and of a key that is written twice one value would be lost.
"""

import difflib
import re
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import yaml

from fadrm_hf.errors import ConfigError

MAX_SETTINGS_BYTES = 1 << 16  # a complete run has 5,000
MAX_SETTINGS_DEPTH = 32  # a complete run has 3

_RECIPES = "recipes/configs/"  # their folder in the repository
_EXAMPLE = "digits/fadrm_ipc10"
_HEAD = re.compile(r"\s*---[\r\n]+(.*?)[\r\n]+---(?:[\r\n]|$)", re.DOTALL)  # the Hub's rule
_MISREAD = re.compile(r"^[-+]?0[0-9_]|:")  # octal, and to the base of 60
_OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def recipes() -> dict[str, Path]:
    """Find the recipes that come with the library: complete runs, comparisons, sweeps and protocols.

    Returns:
        Name, such as "digits/fadrm_ipc10" -> its file.
    """
    folder = Path(str(resources("fadrm_hf.recipes")))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.glob("*/*.yaml"))}


def find_settings(file: str | Path) -> Path:
    """Find a file of settings: one on this disk, or else the recipe of that name.

    Args:
        file: A path, or the name of a recipe: `digits/fadrm_ipc10`, with or without `.yaml`, also as its path in the
            repository. What is neither is given back as it is.
    """
    if Path(file).exists():
        return Path(file)
    return recipes().get(_recipe_name(file), Path(file))


def _recipe_name(file: str | Path) -> str:
    return Path(file).as_posix().removeprefix(_RECIPES).removesuffix(".yaml")


def read_settings(file: Path, option: str = "--config") -> dict[str, Any]:
    """Read a file of settings.

    Args:
        file: YAML or JSON, or the name of a recipe.
        option: By what option it was named, for messages.

    Raises:
        ConfigError: If it is not there, too large, or no mapping of names to plain data.
    """
    try:
        document = yaml.load(_text_of(find_settings(file), option), _PlainLoader)
    except ConfigError:
        raise
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{option} {file} is not readable YAML: {reason}; {_RECIPES} holds examples") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{option} {file} holds {type(document).__name__}, expected sections of settings")
    return document


def read_texts(text: str) -> Any:
    """Return YAML as mappings and lists of texts.

    Raises:
        yaml.YAMLError: If it is no YAML, or more than plain data.
    """
    return yaml.load(text, _TextLoader)


def read_head(card: str) -> dict[str, Any]:
    """Return the head of a README.md, the YAML between its two lines of `---`, as mappings and lists of texts.

    Returns:
        An empty one where there is no head, or it is no mapping.

    Raises:
        yaml.YAMLError: If it is no YAML, or more than plain data.
    """
    found = _HEAD.match(card)
    head = read_texts(found[1]) if found else None
    return head if isinstance(head, dict) else {}


def _text_of(file: Path, option: str) -> str:
    """Return the file's text; refuse one that is missing, no file or too large before it is opened."""
    if not file.exists():
        near = difflib.get_close_matches(_recipe_name(file), recipes(), n=1) or [_EXAMPLE]
        raise ConfigError(f"{option} {file} does not exist; {_RECIPES} holds complete ones, such as {near[0]}")
    if not file.is_file():
        raise ConfigError(f"{option} {file} is not readable: it is no file; {_RECIPES} holds complete ones")
    if file.stat().st_size > MAX_SETTINGS_BYTES:
        raise ConfigError(
            f"{option} {file} has {file.stat().st_size:,} bytes, expected at most {MAX_SETTINGS_BYTES:,}; it is not "
            "read, name a file of settings"
        )
    return file.read_text(encoding="utf-8")


class _PlainLoader(yaml.SafeLoader):
    """Loader of mappings whose keys are names, each once, lists and scalars; nothing else."""

    _depth = 0

    def get_event(self) -> yaml.Event:
        """Return the next event; refuse those that plain data does not have."""
        event = super().get_event()
        self._depth += isinstance(event, _OPENING) - isinstance(event, _CLOSING)
        if isinstance(event, yaml.AliasEvent):
            self._refuse(f"the alias *{event.anchor}; write the value out", event)
        if getattr(event, "tag", None) is not None:
            self._refuse(f"the tag {event.tag}; leave it out", event)
        if self._depth > MAX_SETTINGS_DEPTH:
            self._refuse(f"values nested more than {MAX_SETTINGS_DEPTH} deep", event)
        return event

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        """Build a mapping, once its keys are known to be names that differ."""
        seen: set[str] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                self._refuse(f"the key {name!r}, expected a name", key)
            if name in seen:
                self._refuse(f"the key {name!r} twice; leave one out", key)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """Build a whole number that is read as it looks: to YAML 1.1, 010 is 8 and 1:30 is 90."""
        if _MISREAD.search(node.value):
            read = self.construct_yaml_int(node)
            self._refuse(f"{node.value}, which YAML reads as {read}; write that, or '{node.value}' for a text", node)
        return self.construct_yaml_int(node)

    def _refuse(self, what: str, where: yaml.Event | yaml.Node) -> None:
        raise yaml.MarkedYAMLError(problem=f"it holds {what}", problem_mark=where.start_mark)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_whole_number)


class _TextLoader(_PlainLoader):
    """Builds mappings and lists of texts: `no`, `007` and `1.50` stay what is written."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        """Return the tag of text for every scalar."""
        return "tag:yaml.org,2002:str" if kind is yaml.ScalarNode else super().resolve(kind, value, implicit)
