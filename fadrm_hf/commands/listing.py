"""What there is, by name: `methods`, `students`, `sources`, `teachers`.

Each thing is a line on a terminal and in a pipe, and an entry of the document of `--json`. No list needs torch, whose
import takes seconds.
"""

import ast
import json
import shlex
from collections.abc import Iterator, Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from fadrm_hf.commands.output import list_rows, say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.config.students import ARCHITECTURES
from fadrm_hf.errors import ConfigError

Entry = dict[str, Any]

_METHODS = "fadrm_hf.methods."
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
    "squeeze/mobilenet_v2": "FADRM+, G-VBSM, CV-DD, EDC",
    "squeeze/shufflenet_v2_x0_5": "FADRM+, G-VBSM, CV-DD, EDC",
    "squeeze/wrn16_2": "G-VBSM, EDC",
    "squeeze/convnet1": "EDC",
    "squeeze/convnet2": "EDC",
    "squeeze/convnet3": "G-VBSM, EDC",
    "squeeze/convnet3_narrow": "EDC",
}


def methods_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf methods`."""
    return _list("methods", list(_methods()), arguments)


def students_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf students`."""
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
    return _list("students", entries, arguments)


def sources_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf sources`."""
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
    return _list("sources", entries, arguments)


def teachers_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf teachers`."""
    families = [{"name": name, "kind": "family", "about": about} for name, about in _FAMILIES.items()]
    published = [{"name": name, "kind": "published", "about": about} for name, about in PUBLISHED_TEACHERS.items()]
    return _list("teachers", [*families, *published, *_trained_here()], arguments)


def _list(title: str, entries: Sequence[Entry], arguments: Sequence[str]) -> Summary:
    if {"-h", "--help"} & set(arguments):
        say(f"usage: fadrm-hf {title} [--json]; it takes no other option")
        return Summary()
    if arguments:
        raise ConfigError(f"unrecognized arguments: {shlex.join(arguments)}; expected none: this prints a list")
    list_rows(entries)
    return Summary(result={title: list(entries)})


def _methods() -> Iterator[Entry]:
    """Every method as its file describes it, in the order of the catalogue; read as text, for its code needs torch."""
    files = [file for file in (resources("fadrm_hf") / "methods").iterdir() if file.name.endswith(".py")]
    modules = {file.name.removesuffix(".py"): ast.parse(file.read_text("utf-8")) for file in files}
    places = dict(_imported(modules["__init__"]))
    for item in ast.walk(_value(modules["__init__"].body, "_CATALOGUE")):
        if not isinstance(item, ast.Name) or item.id not in places:
            continue
        module = modules[places[item.id]]
        (kind,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == item.id)
        yield {
            "name": _text(kind, "name"),
            "title": _text(kind, "title"),
            "paper": next(filter(None, map(_paper, [module, *(modules[base] for _, base in _imported(module))])), ""),
            "about": (ast.get_docstring(kind) or "").splitlines()[0],
        }


def _imported(module: ast.Module) -> Iterator[tuple[str, str]]:
    """What a file takes from methods, and from which."""
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(_METHODS):
            yield from ((name.name, str(node.module).removeprefix(_METHODS)) for name in node.names)


def _value(body: Sequence[ast.stmt], name: str) -> ast.expr:
    """What a name is set to, in a file or a class."""
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if value is not None and any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return value
    raise AssertionError(f"{name} is set nowhere")


def _text(kind: ast.ClassDef, name: str) -> str:
    """The text that a class sets an attribute to."""
    return str(ast.literal_eval(_value(kind.body, name)))


def _paper(module: ast.Module) -> str:
    """The paper that a file names, by its number."""
    given = (node for node in ast.walk(module) if isinstance(node, ast.keyword) and node.arg == "arxiv")
    return next((f"arXiv {ast.literal_eval(node.value)}" for node in given), "")


def _trained_here() -> Iterator[Entry]:
    """The teachers that earlier runs have trained, with their accuracy."""
    for config in sorted(_TRAINED_HERE.glob("*/config.json")):
        try:
            record = json.loads(config.read_text("utf-8"))["fadrm"]
        except (ValueError, KeyError):  # damaged, or not trained here: who names it in a run is told
            continue
        about = f"{record['accuracy']:.1%} on {record['source']}, {record['epochs']} epochs"
        entry = {"name": f"timm/local-dir:{config.parent}", "kind": "trained here", "about": about}
        yield entry | {"accuracy": record["accuracy"]}
