"""G-VBSM: Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching (CVPR 2024).

Paper: https://arxiv.org/abs/2311.17950 (Shao, Yin, Zhou, Zhang, Shen).
Reference code: https://github.com/shaoshitong/G_VBSM_Dataset_Condensation at 1ed80b0 (read for facts, not copied).

SRe2L with more to match and more to match it with: what convolutions see, by channel and by block of positions, beside
what BatchNorm layers see; several networks in turn, with or without BatchNorm; residuals of statistics averaged over
the iterations; and the images of a class, which are optimised together, are kept from becoming alike. At step t with
network f_t of the pool:

    min_x  CE(f_t(view(x)), y) + r_bn sum_l c_l (||m_l,t - mu_l|| + ||v_l,t - sigma_l^2||) + lambda_n L_DD(view(x))

over BatchNorm layers and convolutions l, by channel and by block, where m_t = m m_(t-1) + (1 - m) mean_l(view(x)), v_t
likewise, and L_DD is `fadrm_hf.recovery.regularisers.Densification`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fadrm_hf.config import LARGEST_SMALL_SIZE, Init, Matching, require, require_probability
from fadrm_hf.config.citation import Paper
from fadrm_hf.methods.method import Method, Settings, Table, merged, pool

if TYPE_CHECKING:
    from torch import Tensor

    from fadrm_hf.recovery.recover import Recovery

PAPER = Paper(
    title="Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching",
    arxiv="2311.17950",
    bibtex="""\
@inproceedings{shao2024generalized,
  title = {Generalized Large-Scale Data Condensation via Various Backbone and Statistical Matching},
  author = {Shao, Shitong and Yin, Zeyuan and Zhou, Muxin and Zhang, Xindong and Shen, Zhiqiang},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2024},
}
""",
)

# Of images up to 64 px; the MobileNetV2 has half its width.
SMALL_POOL = ("resnet18", "convnet3", "mobilenetv2_050", "wrn16_2", "shufflenet_v2_x0_5_1x1_stem")
_LARGE_POOL = ("resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x0_5")
# The released scripts: that for ImageNet-1k, what differs for images up to 64 px, and for single datasets.
_PUBLISHED: Settings = {
    "method": {"momentum": 0.4, "drop": 0.0},
    "recover": {
        "lr": 0.1,
        "statistics_weight": 0.01,
        "batch_size": 80,
        "crop": "resized",
        "crop_area": (0.08, 1.0),
        "layout": "class_major",
        "teacher_order": "run",
    },
    "relabel": {
        "epochs": 300,
        "batch_size": 1024,
        "accumulation": 1,
        "batch_statistics": False,
        "ensemble": "mean",
    },
    "student": {"name": "g_vbsm"},
}
_SMALL: Settings = {
    "method": {"momentum": 0.8, "drop": 0.4},
    "recover": {"lr": 0.05, "batch_size": 100, "crop": "pad"},  # windows of the padded image, size / 8 pixels
}
_CIFAR_TEACHER = {"batch_size": 64, "lr": 0.05, "weight_decay": 0.0, "schedule": "constant"}
SQUEEZE: Table = {
    "cifar10": {"squeeze": {"epochs": 5, **_CIFAR_TEACHER}},
    "cifar100": {"squeeze": {"epochs": 50, **_CIFAR_TEACHER}},
    "tiny_imagenet": {
        "squeeze": {"epochs": 50, "batch_size": 128, "lr": 0.1, "weight_decay": 0.0, "padding": 8},
    },
}
_BY_DATASET: Table = {
    "digits": {"relabel": {"batch_size": 100}},
    "cifar10": {"relabel": {"epochs": 1000, "batch_size": 100}},
    "cifar100": {"relabel": {"epochs": 1000, "batch_size": 64}},
    "tiny_imagenet": {"relabel": {"epochs": 100, "batch_size": 100, "accumulation": 2}},
    "imagenet1k": {"relabel": {"ensemble": "frobenius"}},
}


@dataclass(frozen=True)
class GVBSM(Method):
    """Recovery from noise against several networks and many of their statistics.

    Args:
        iterations: Steps per image.
        init: What is optimised; EDC's ablation begins with G-VBSM from real images.
        momentum: m: weight of the past in the averages of statistics whose residual is matched.
        from_zero: Whether these averages start at zero, as released, which draws the first iterations there.
        drop: Probability that a convolution is left out of an iteration.
        densification: lambda_n: weight of the evenness of a class's images.
        temperature: tau of that evenness.
    """

    name = "g_vbsm"
    title = "G-VBSM"
    paper = PAPER
    min_teachers = 2

    iterations: int = 4000
    init: Init = "noise"
    momentum: float = 0.8
    from_zero: bool = False
    drop: float = 0.4
    densification: float = 1.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        require(self.iterations >= 1, "method.iterations", self.iterations, "at least 1")
        require(0.0 <= self.momentum < 1.0, "method.momentum", self.momentum, "in [0, 1)")
        require(self.densification >= 0, "method.densification", self.densification, "0 or more")
        require(self.temperature > 0, "method.temperature", self.temperature, "positive")
        require_probability("method.drop", self.drop)

    @property
    def matching(self) -> Matching:
        """Match BatchNorm layers and convolutions, averaged over the iterations."""
        return Matching(convolutions=True, momentum=self.momentum, from_zero=self.from_zero, drop=self.drop)

    def recover(self, start: "Tensor", recovery: "Recovery") -> "Tensor":
        """Optimise the images once, keeping those of a class from becoming alike."""
        from fadrm_hf.recovery.regularisers import Densification  # takes torch along

        terms = [Densification(self.densification, self.temperature)] if self.densification > 0 else []
        return recovery.optimise(start, self.iterations, terms=terms)

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return the released scripts' settings: two families, for small images and for ImageNet-1k.

        Views of small images are windows of the padded image. Their roll is the preset's; it was 32 px, which at 32 px
        is any shift at all.
        """
        is_small = size <= LARGEST_SMALL_SIZE
        return merged(
            {"teachers": pool(dataset, *(SMALL_POOL if is_small else _LARGE_POOL))},
            _PUBLISHED,
            merged(_SMALL, {"recover": {"padding": size // 8}}) if is_small else {},
            SQUEEZE.get(dataset, {}),
            _BY_DATASET.get(dataset, {}),
        )
