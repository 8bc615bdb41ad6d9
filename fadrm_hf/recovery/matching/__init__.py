"""Statistics that distilled images are matched to: which layers, what they have seen, how far a batch is from it."""

from fadrm_hf.networks.layers import Watched, as_maps, watched_layers
from fadrm_hf.recovery.matching.matching import MatchedStatistics, channel_distance, needs_measuring
from fadrm_hf.recovery.matching.targets import Targets, running_targets

__all__ = [
    "MatchedStatistics",
    "Targets",
    "Watched",
    "as_maps",
    "channel_distance",
    "needs_measuring",
    "running_targets",
    "watched_layers",
]
