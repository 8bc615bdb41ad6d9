"""Networks on disk: one folder, `config.json` and `model.safetensors`, that timm and transformers both read.

timm reads it as `local-dir:FOLDER`, transformers as a `TimmWrapper`, also through `pipeline("image-classification")`;
so does either as a repository on the Hub.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fadrm_hf.config import LARGEST_SMALL_SIZE, SourceConfig
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.runtime import files, tensor_files

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def model_config(network: Any, architecture: str, classes: ClassMap, images: SourceConfig) -> dict[str, Any]:
    """Return the `config.json` of a network of timm, of its classes and of images of that size and normalisation."""
    default = network.pretrained_cfg
    config = {
        "architecture": architecture,
        "num_classes": len(classes),
        "num_features": network.num_features,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, images.size, images.size],
            "fixed_input_size": default.get("fixed_input_size", False),
            "interpolation": "bilinear",
            "crop_pct": 1.0 if images.size <= LARGEST_SMALL_SIZE else 0.875,
            "crop_mode": "center",
            "mean": images.mean,
            "std": images.std,
            "num_classes": len(classes),
            "first_conv": default["first_conv"],
            "classifier": default["classifier"],
        },
        "model_args": {},  # transformers passes num_classes itself, and fails if it is here, too
        "label_names": list(classes.ids),
    }
    if classes.names != classes.ids:
        config["label_descriptions"] = dict(zip(classes.ids, classes.names, strict=True))
    return config


def write_model_directory(
    network: nn.Module, config: dict[str, Any], folder: Path, others: Mapping[str, bytes] | None = None
) -> None:
    """Write a folder that appears complete or not at all; one that is there is replaced.

    Args:
        network: The weights, under the names that timm gives them.
        config: The content of `config.json` (`model_config`, and what the writer adds).
        folder: The folder.
        others: More files by name.
    """
    temporary, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{name}") for name in ("tmp", "old"))
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    tensor_files.save_tensors(temporary / WEIGHTS, network.state_dict(), {"format": "pt"})
    files.write_json(temporary / CONFIG, config)
    for name, content in (others or {}).items():
        files.write_bytes(temporary / name, content)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)
