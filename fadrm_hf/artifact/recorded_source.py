"""The source that an artifact names, loaded again for its test images."""

from dataclasses import replace

from fadrm_hf.artifact.location import Location
from fadrm_hf.config import SourceConfig
from fadrm_hf.errors import ConfigError
from fadrm_hf.sources import Source, load_source


def load_recorded_source(location: Location, name: str | None = None) -> Source:
    """The artifact's source, as it is now.

    Args:
        location: The artifact.
        name: Where the source is, if not where it was.

    Raises:
        SourceError: If it cannot be read.
    """
    config = location.manifest.settings("source", SourceConfig)
    return load_source(replace(config, name=name or config.name))


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
