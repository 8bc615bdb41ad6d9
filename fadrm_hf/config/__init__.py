"""A run as data: its sections, dataset presets, student protocols, architectures.

Nothing here builds a network or reads an image.

Each stage has one frozen dataclass, validated on construction. Defaults are the FADRM paper's values (arXiv
2506.24125) with the table they come from. An `Open` value may be `None` until `fadrm_hf.config.datasets.resolve` fills
it in from the source's preset and the protocol; the resolved run is what is written to the artifact's `recipe.yaml`.
Areas, probabilities and accuracies are fractions; sizes are pixels.
"""

from fadrm_hf.config.checks import (
    OPEN,
    Colour,
    Interval,
    Open,
    Precision,
    build,
    filled,
    require,
    require_probability,
    values_before,
    with_defaults,
)
from fadrm_hf.config.file import find_settings, read_settings, recipes
from fadrm_hf.config.matching import Matching
from fadrm_hf.config.real_images import (
    LARGEST_SIDE,
    LARGEST_SMALL_SIZE,
    Init,
    PatchConfig,
    SourceConfig,
    SqueezeConfig,
    TeacherConfig,
)
from fadrm_hf.config.recovery import RecoverConfig, StatisticsConfig
from fadrm_hf.config.relabel import RelabelConfig
from fadrm_hf.config.run import RunConfig
from fadrm_hf.config.student import StudentConfig
from fadrm_hf.config.votes import VoteConfig

__all__ = [
    "LARGEST_SIDE",
    "LARGEST_SMALL_SIZE",
    "OPEN",
    "Colour",
    "Init",
    "Interval",
    "Matching",
    "Open",
    "PatchConfig",
    "Precision",
    "RecoverConfig",
    "RelabelConfig",
    "RunConfig",
    "SourceConfig",
    "SqueezeConfig",
    "StatisticsConfig",
    "StudentConfig",
    "TeacherConfig",
    "VoteConfig",
    "build",
    "filled",
    "find_settings",
    "read_settings",
    "recipes",
    "require",
    "require_probability",
    "values_before",
    "with_defaults",
]
