"""The options that commands have in common."""

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class SourcePlace:
    """The source of an artifact.

    Args:
        name: Path or Hub id of the source, if it has moved.
    """

    name: str | None = None


@dataclass(frozen=True)
class Options:
    """The options of a command.

    Attributes:
        takes: Other settings that it takes: those of a "run", of "several" runs, of the cells of a "sweep", or
            of a student's "protocol".
        renamed: Options' earlier names, which are still understood -> their names.
        needs_source: Whether it begins from a source that must be named.
    """

    takes: ClassVar[Literal["run", "several", "sweep", "protocol"] | None] = None
    renamed: ClassVar[dict[str, str]] = {}
    needs_source: ClassVar[bool] = False


@dataclass(frozen=True)
class ArtifactOptions(Options):
    """An artifact.

    Args:
        artifact: Run folder, or ORG/NAME on the Hub.
        revision: Tag, branch or commit on the Hub.
    """

    artifact: str
    revision: str | None = None
