"""The run as data: all sections, and the values that are in none of them."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from fadrm_hf.config.checks import require, require_finite
from fadrm_hf.config.real_images import PatchConfig, SourceConfig, SqueezeConfig, TeacherConfig
from fadrm_hf.config.recovery import RecoverConfig, StatisticsConfig
from fadrm_hf.config.relabel import RelabelConfig
from fadrm_hf.config.student import StudentConfig


@dataclass(frozen=True)
class RunConfig:
    """One complete run, from the source to the artifact.

    Args:
        output: The run folder, which is the artifact; unfinished work is kept in `<output>.work`.
        ipc: Images per class.
        seed: Every random choice derives from (seed, stage, shard).
        method: The method's own settings, e.g. `fadrm_hf.methods.fadrm.FADRM`.
        source: The real images.
        teachers: The frozen networks.
        squeeze: How `squeeze/...` teachers are trained.
        patches: The real crops to start from.
        statistics: What is measured of the real images, for layers that keep no statistics of their own.
        recover: The optimisation of pixels.
        relabel: The soft labels.
        student: The protocol the artifact is meant to be evaluated with.
    """

    output: str
    ipc: int
    method: Any
    seed: int = 0
    source: SourceConfig = field(default_factory=SourceConfig)
    teachers: TeacherConfig = field(default_factory=TeacherConfig)
    squeeze: SqueezeConfig = field(default_factory=SqueezeConfig)
    patches: PatchConfig = field(default_factory=PatchConfig)
    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)
    recover: RecoverConfig = field(default_factory=RecoverConfig)
    relabel: RelabelConfig = field(default_factory=RelabelConfig)
    student: StudentConfig = field(default_factory=StudentConfig)

    def __post_init__(self) -> None:
        require(self.ipc >= 1, "ipc", self.ipc, "at least 1 image per class")
        require(bool(self.output), "output", self.output, "a folder")
        for item in fields(self):
            if is_dataclass(section := getattr(self, item.name)):
                require_finite(item.name, section)
