"""The source that an artifact names, loaded again for its test images."""

from dataclasses import replace

from fadrm_hf.artifact.location import LocalFolder, Location
from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import Source, load_source
from fadrm_hf.errors import ConfigError
from fadrm_hf.runtime.run_folder import WorkFolder


def place_of_source(location: Location, name: str | None = None) -> str:
    """Return the path or name of the artifact's source: as given, else where it was when it was distilled here.

    Args:
        location: The artifact; its manifest has the name of the source and no path.
        name: Path to the source, if it has moved.
    """
    if name:
        return name
    recorded = location.manifest.settings("source", SourceConfig).name
    remembered = WorkFolder(location.folder).source(recorded) if isinstance(location, LocalFolder) else None
    return remembered or recorded


def load_recorded_source(location: Location, name: str | None = None) -> Source:
    """Load the artifact's source as it is now.

    Args:
        location: The artifact.
        name: Path to the source, if it has moved.

    Raises:
        SourceError: If it cannot be read.
    """
    config = location.manifest.settings("source", SourceConfig)
    return load_source(replace(config, name=place_of_source(location, name)))


def source_of(location: Location, name: str | None = None) -> Source:
    """Load the artifact's source to test students on; refuse one with other classes.

    Args:
        location: The artifact.
        name: Path to the source, if it has moved.

    Raises:
        ConfigError: If it has other classes, or in another order.
        SourceError: If it cannot be read.
    """
    source = load_recorded_source(location, name)
    if source.class_map.hash != location.manifest.classes.hash:
        raise ConfigError(
            f"source {source.config.name} has other classes than {location.name}, or in another order; give the "
            "source it was distilled from to --source.name (in Python: source=)"
        )
    if source.test_rows != location.manifest.source.test_rows:
        raise ConfigError(
            f"source {source.config.name} has changed since {location.name} was distilled: other images are held "
            "out to test on than its manifest records; give the source it was distilled from to --source.name "
            "(in Python: source=)"
        )
    return source
