"""Training a student from an artifact as this library does it, against the published flow, in one run.

Plain is what the published code does: images are JPEG files, opened, cropped to the stored box, resized and flipped
by Pillow one by one in every epoch, in this process or in `--workers` others, whichever is faster here; one label file
is opened per batch; CutMix on the batch; a contiguous student, one pass per micro-batch, AdamW as torch builds it; on
a GPU under bf16 autocast. Ours is the batches of a real artifact and the step that `train-student` takes, in fp32 and
in bf16, on a GPU in tf32 as well. All take turns of a few steps, so that a machine that slows down slows all; the
ratio of medians is the figure to quote.

    .venv/bin/python benchmarks/student_epoch.py --architecture resnet18_small_stem --size 32 --batch 16
"""

import argparse
import collections
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
import torch.nn.functional as F
from manifests import finish_artifact, numbered_classes
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as transforms

import fadrm_hf.networks.small_images  # noqa: F401 - registers the small-image architectures
from fadrm_hf.artifact.tables import write_tables
from fadrm_hf.config import RelabelConfig, StudentConfig
from fadrm_hf.labels.drawing import micro_batches
from fadrm_hf.labels.relabel import label_epoch
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.tensor_files import save_tensors
from fadrm_hf.training.batch import to_device
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.protocol import create_optimiser
from fadrm_hf.training.student_step import CapturedStep, StudentStep

CLASSES, STORED_EPOCHS, WARM_UP = 10, 2, 6
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CONFIG = StudentConfig(lr=1e-3, eta=1.0)
OURS: dict[str, tuple[Literal["fp32", "tf32", "bf16"], ...]] = {
    "cpu": ("fp32", "bf16"),
    "cuda": ("fp32", "tf32", "bf16"),
}


class PlainViews(Dataset[Tensor]):
    """One view after another: decoded, cropped, resized, flipped, normalised."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size

    def __getitem__(self, view: tuple[int, list[int], bool]) -> Tensor:
        row, crop, is_flipped = view
        with Image.open(self._folder / f"{row}.jpg") as file:
            image: Any = file.convert("RGB")
        top, left, height, width = crop
        image = transforms.resized_crop(image, top, left, height, width, [self._size, self._size])
        image = transforms.horizontal_flip(image) if is_flipped else image
        pixels = transforms.to_dtype(transforms.to_image(image), torch.float32, scale=True)
        return transforms.normalize(pixels, list(MEAN), list(STD))


def views_of(
    files: list[Path], opened: collections.deque[dict[str, Tensor]]
) -> Iterator[list[tuple[int, list[int], bool]]]:
    """Read the views of each batch from its label file, which waits in `opened` until they are rendered."""
    for file in itertools.cycle(files):
        label = torch.load(file, weights_only=True)
        opened.append(label)
        yield list(zip(label["image"].tolist(), label["crop"].tolist(), label["flip"].tolist(), strict=True))


def plain_steps(
    student: nn.Module, folder: Path, size: int, accumulation: int, workers: int, device: torch.device
) -> Iterator[None]:
    """Train as published, one step at a time."""
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.01)
    opened: collections.deque[dict[str, Tensor]] = collections.deque()
    views = views_of(sorted(folder.glob("epoch*.pt")), opened)
    pins = device.type == "cuda"
    for images in DataLoader(PlainViews(folder, size), batch_sampler=views, num_workers=workers, pin_memory=pins):
        label = opened.popleft()
        top, left, height, width = label["box"].tolist()
        box = (slice(None), slice(None), slice(top, top + height), slice(left, left + width))
        images[box] = images[label["partner"]][box]
        images, logits = images.to(device, non_blocking=True), label["logits"].float().to(device)
        optimiser.zero_grad()
        part = -(-len(images) // accumulation)
        for x, teacher in zip(images.split(part), logits.split(part), strict=True):
            target = F.softmax(teacher / 20.0, dim=1)
            with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
                predicted = student(x)
            loss = F.kl_div(F.log_softmax(predicted.float() / 20.0, dim=1), target, reduction="batchmean")
            (loss * (len(x) / len(images))).backward()
        optimiser.step()
        yield


def fast_steps(
    student: nn.Module, folder: Path, num_steps: int, config: StudentConfig, device: torch.device
) -> Iterator[None]:
    """Train as `train-student` does, one step at a time."""
    distilled = load_distilled(folder)
    student = student.to(memory_format=torch.channels_last)
    written = StudentStep(student, create_optimiser(config, student), config)
    step = CapturedStep(written, device) if device.type == "cuda" else written
    for batch in distilled.batches(range(num_steps // distilled.steps_per_epoch + 1), device=device):
        step(to_device(batch, device), micro_batches(len(batch.labels), distilled.relabel), False)
        yield


def make_artifact(folder: Path, plain: Path, num_images: int, size: int, relabel: RelabelConfig) -> None:
    """Make the same images and labels twice: as an artifact, and as files of the published kind."""
    work, rows, rng = folder.with_name("work"), torch.arange(num_images), generator(0, "benchmark")
    coarse = torch.rand((num_images, 3, 8, 8), generator=rng)  # smooth as photographs are, so that JPEG is no burden
    images = (255 * F.interpolate(coarse, size=(size, size), mode="bilinear")).to(torch.uint8)
    place = {"label": rows % CLASSES, "ipc_index": rows // CLASSES, "source_index": rows[:, None]}
    save_tensors(work / "recovered/images.safetensors", {"images": images} | place)
    plain.mkdir()
    for row, image in enumerate(images):
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(plain / f"{row}.jpg", quality=95)
    for epoch in range(STORED_EPOCHS):
        logits = torch.randn((num_images, CLASSES), generator=rng).half()
        columns = label_epoch(images, None, relabel, 0, epoch) | {"logits": logits}
        save_tensors(work / f"soft_labels/epoch{epoch:05d}.safetensors", columns)
        save_label_files(plain, epoch, columns)
    classes, ipc = numbered_classes(CLASSES), num_images // CLASSES
    write_tables(folder, work, classes, size, ipc, STORED_EPOCHS)
    shown = replace(relabel, epochs=10**6, stored_epochs=STORED_EPOCHS)
    finish_artifact(folder, classes, ipc, size, shown, STORED_EPOCHS, MEAN, STD)


def save_label_files(folder: Path, epoch: int, columns: dict[str, Tensor]) -> None:
    """Write one file per batch, with the views in it."""
    for step in columns["step"].unique().tolist():
        label = {name: column[columns["step"] == step] for name, column in columns.items()}
        places = {image: place for place, image in enumerate(label["image"].tolist())}
        partner = torch.tensor([places[image] for image in label["mix_image"].tolist()])
        kept = {name: label[name].clone() for name in ("image", "crop", "flip", "logits")}
        torch.save(kept | {"partner": partner, "box": label["mix_box"][0]}, folder / f"epoch{epoch}-{step:05d}.pt")


def timed(steps: Iterator[None], num: int, device: torch.device) -> float:
    """Return the seconds that some steps take."""
    started = time.perf_counter()
    for _ in range(num):
        next(steps)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(arguments: argparse.Namespace, folder: Path, device: torch.device) -> dict[str, list[float]]:
    """Measure the seconds of each turn of each form."""
    relabel = RelabelConfig(batch_size=arguments.batch, accumulation=arguments.accumulation, flip_probability=0.5)
    make_artifact(folder / "run", folder / "plain", arguments.images, arguments.size, relabel)

    def student() -> nn.Module:
        torch.manual_seed(0)
        module: nn.Module = timm.create_model(arguments.architecture, num_classes=CLASSES)
        return module.to(device).train()

    total = WARM_UP + arguments.pairs * arguments.steps
    settings = (folder / "plain", arguments.size, arguments.accumulation)
    forms: dict[str, Iterator[None]] = {
        "plain, 0 workers": plain_steps(student(), *settings, 0, device),
        f"plain, {arguments.workers} workers": plain_steps(student(), *settings, arguments.workers, device),
    }
    for precision in OURS[device.type]:
        config = replace(CONFIG, precision=precision)
        forms[f"ours, {precision}"] = fast_steps(student(), folder / "run", total, config, device)
    for steps in forms.values():
        timed(steps, WARM_UP, device)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(arguments.pairs):
        for name, steps in forms.items():
            seconds[name].append(timed(steps, arguments.steps, device))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet18_small_stem")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of the second plain form")
    parser.add_argument("--steps", type=int, default=7, help="per turn")
    parser.add_argument("--pairs", type=int, default=9, help="turns of each; with 7 steps, 9 are an epoch")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(arguments, Path(folder), device)
    views = arguments.steps * arguments.batch
    medians = {name: 1e3 * statistics.median(turns) / views for name, turns in seconds.items()}
    plain = min(median for name, median in medians.items() if name.startswith("plain"))
    ratios = {precision: plain / medians[f"ours, {precision}"] for precision in OURS[device.type]}
    print(f"{arguments.architecture}, {arguments.size} px, batch {arguments.batch}, {device.type}")
    for name, median in medians.items():
        print(f"{name:<18} {median:8.3f} ms per view, {median / 1e3 * arguments.images:7.2f} s per epoch")
    for precision, ratio in ratios.items():
        print(f"ours in {precision} is {ratio:.2f} times as fast as the faster plain form")
    record = vars(arguments) | {"ms_per_view": medians, "ratios": ratios, "seconds": seconds}
    name = f"bench-student-epoch-{arguments.architecture}-{arguments.size}px-{device.type}.json"
    write_json(Path("results") / name, record | {"machine": describe_machine(), "versions": library_versions()})


if __name__ == "__main__":
    main()
