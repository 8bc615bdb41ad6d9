"""Lists by name: `methods`, `students`, `sources`, `teachers`.

Each thing is a line on a terminal and in a pipe, and an entry of the document of `--json`. No list needs torch, whose
import takes seconds.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.output import list_rows
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config.architectures import ARCHITECTURES
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.methods import METHODS
from fadrm_hf.runtime.files import read_json

Entry = dict[str, Any]

_TRAINED_HERE = Path("runs/teachers")
_FAMILIES = {
    "timm/NAME": "timm's own weights, from the Hub",
    "timm/hf-hub:ORG/NAME": "a timm model directory on the Hub, perhaps with @REVISION",
    "timm/local-dir:PATH": "a timm model directory on disk, such as train-teacher writes",
    "torchvision/NAME": "torchvision's weights for ImageNet-1k (IMAGENET1K_V1)",
    "transformers/ORG/NAME": "any image classifier of transformers, on the Hub or in a folder",
    "squeeze/ARCHITECTURE": "trained on the source first, in runs/teachers",
}
# What the methods name by themselves: for ImageNet-1k, and for small images with a preset.
PUBLISHED_TEACHERS = {
    "timm/resnet18.tv_in1k": "the usual one, and in every pool, for ImageNet-1k",
    "timm/resnet50.tv_in1k": "CV-DD",
    "timm/densenet121.tv_in1k": "FADRM+, CV-DD",
    "torchvision/mobilenet_v2": "FADRM+, G-VBSM, CV-DD, EDC",
    "torchvision/shufflenet_v2_x1_0": "FADRM+, CV-DD",
    "torchvision/shufflenet_v2_x0_5": "G-VBSM, EDC",
    "torchvision/efficientnet_b0": "G-VBSM, EDC",
    "torchvision/alexnet": "EDC",
    "squeeze/resnet18": "the usual one, and in every pool, for other sources",
    "squeeze/resnet50": "CV-DD",
    "squeeze/densenet121": "FADRM+, CV-DD",
    "squeeze/mobilenet_v2": "FADRM+, CV-DD",
    "squeeze/mobilenetv2_050": "G-VBSM, EDC",
    "squeeze/shufflenet_v2_x0_5": "FADRM+, CV-DD",
    "squeeze/shufflenet_v2_x0_5_1x1_stem": "G-VBSM, EDC",
    "squeeze/wrn16_2": "G-VBSM, EDC",
    "squeeze/convnet1": "EDC",
    "squeeze/convnet2": "EDC",
    "squeeze/convnet3": "G-VBSM, EDC",
    "squeeze/convnet3_narrow": "EDC",
}


def methods_command(call: Call) -> Summary:
    """Run `fadrm-hf methods`."""
    entries = [
        {
            "name": name,
            "title": method.title,
            "paper": f"arXiv {method.paper.arxiv}" if method.paper else "",
            "about": (method.__doc__ or "").splitlines()[0],
        }
        for name, method in METHODS.items()
    ]
    return _list("methods", entries)


def students_command(call: Call) -> Summary:
    """Run `fadrm-hf students`."""
    entries = [
        {
            "name": each.student,
            "short": each.name,
            "title": each.title,
            "parameters": each.parameters,
            "measured": "{:,} classes, {} px".format(*each.measured_at),
            "stem": "3x3 up to 64 px" if each.has_small_stem else "",
            "occurs": list(each.occurs),
        }
        for each in ARCHITECTURES.values()
    ]
    return _list("students", entries)


def sources_command(call: Call) -> Summary:
    """Run `fadrm-hf sources`."""
    entries = [
        {
            "name": name,
            "classes": preset.num_classes,
            "px": preset.size,
            "licence": preset.licence,
            "gated": preset.gated,
            "hub": list(preset.hub_ids),
            "terms": preset.licence_link or "",
        }
        for name, preset in PRESETS.items()
    ]
    return _list("sources", entries)


def teachers_command(call: Call) -> Summary:
    """Run `fadrm-hf teachers`."""
    families = [{"name": name, "kind": "family", "about": about} for name, about in _FAMILIES.items()]
    published = [{"name": name, "kind": "published", "about": about} for name, about in PUBLISHED_TEACHERS.items()]
    return _list("teachers", [*families, *published, *_trained_here()])


def _list(title: str, entries: Sequence[Entry]) -> Summary:
    list_rows(entries)
    return Summary(result={title: list(entries)})


def _trained_here() -> Iterator[Entry]:
    """Yield the teachers that earlier runs have trained, with their accuracy."""
    for config in sorted(_TRAINED_HERE.glob("*/config.json")):
        try:
            record = read_json(config)["fadrm"]
            about = f"{record['accuracy']:.1%} on {record['source']}, {record['epochs']} epochs"
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
        ):  # damaged, or not trained here
            continue
        entry = {"name": f"timm/local-dir:{config.parent}", "kind": "trained here", "about": about}
        yield entry | {"accuracy": record["accuracy"]}
