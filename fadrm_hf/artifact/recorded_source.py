"""The source that an artifact names, loaded again for its test images."""

from dataclasses import replace

from fadrm_hf.artifact.location import LocalFolder, Location
from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import Source, load_source
from fadrm_hf.errors import ConfigError
from fadrm_hf.runtime.shards import WorkFolder


def place_of_source(location: Location, name: str | None = None) -> str:
    """Where the artifact's source is: where one is told, else where it was when it was distilled on this machine.

    Args:
        location: The artifact, whose manifest tells a name and no folder.
        name: Where the source is, if not where it was.
    """
    if name:
        return name
    recorded = location.manifest.settings("source", SourceConfig).name
    remembered = WorkFolder(location.folder).source(recorded) if isinstance(location, LocalFolder) else None
    return remembered or recorded


def load_recorded_source(location: Location, name: str | None = None) -> Source:
    """The artifact's source, as it is now.

    Args:
        location: The artifact.
        name: Where the source is, if not where it was.

    Raises:
        SourceError: If it cannot be read.
    """
    config = location.manifest.settings("source", SourceConfig)
    return load_source(replace(config, name=place_of_source(location, name)))


def source_of(location: Location, name: str | None = None) -> Source:
    """The artifact's source, for students to be tested on; refused if its classes are not the artifact's.

    Args:
        location: The artifact.
        name: Where the source is, if not where it was.

    Raises:
        ConfigError: If it has other classes, or in another order.
        SourceError: If it cannot be read.
    """
    source = load_recorded_source(location, name)
    if source.class_map.hash != location.manifest.classes.hash:
        raise ConfigError(
            f"source {source.config.name} has other classes than {location.name}, or in another order; give the "
            "source it was distilled from to --source.name"
        )
    return source
