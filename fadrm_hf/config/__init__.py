"""A run as data: its sections, dataset presets, student protocols, architectures; no network and no image.

Each stage has one frozen dataclass, validated on construction. Defaults are the FADRM paper's values (arXiv
2506.24125) with the table they come from. `None` means "what the source's preset says";
`fadrm_hf.config.datasets.resolve` fills these in, and the resolved run is what is written to the artifact's
`recipe.yaml`. Areas, probabilities and accuracies are fractions; sizes are pixels.
"""

from fadrm_hf.config.checks import (
    Colour,
    Interval,
    Precision,
    build,
    filled,
    require,
    require_probability,
    with_defaults,
)
from fadrm_hf.config.evaluation import RelabelConfig, StudentConfig
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
from fadrm_hf.config.run import RunConfig
from fadrm_hf.config.votes import VoteConfig

__all__ = [
    "LARGEST_SIDE",
    "LARGEST_SMALL_SIZE",
    "Colour",
    "Init",
    "Interval",
    "Matching",
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
    "with_defaults",
]
