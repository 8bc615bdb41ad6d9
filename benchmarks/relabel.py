"""Labelling one epoch of views as this library does it, against the published flow, in one run.

Plain is what the released code does: an image file is opened, decoded, cropped, resized and mirrored with PIL, one by
one; a batch is mixed, labelled in micro-batches by a contiguous teacher in fp32 (under autocast in half precision on a
GPU), and saved as a file of its own. The loader has no workers or two, and the faster counts. Epochs of both are
interleaved, so that a machine that slows down slows both; ratios of medians are the figures to quote.

    .venv/bin/python benchmarks/relabel.py --architecture resnet18_small_stem --size 32 --images 128
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import encode_jpeg

import fadrm_hf.networks.small_images  # noqa: F401 - registers the small-image architectures
from fadrm_hf.config import RelabelConfig
from fadrm_hf.data.pixels import normalise
from fadrm_hf.data.views import LabelViews, render_views
from fadrm_hf.labels.codecs import Float16
from fadrm_hf.labels.relabel import Labeller, label_epoch
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.tensor_files import save_tensors

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WORKERS = (0, 2)

Job = Callable[[], object]


class Plain:
    """The published flow on the image files of a folder."""

    def __init__(self, folder: Path, module: nn.Module, config: RelabelConfig, device: torch.device) -> None:
        self._folder, self._config, self._device = folder, config, device
        self._module = copy.deepcopy(module).to(device).eval()
        for layer in self._module.modules():
            if config.batch_statistics and isinstance(layer, nn.BatchNorm2d):
                layer.train()
                layer.momentum = 0.0

    def loader(self, size: int, num_workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return normalised views (B, 3, S, S) of one batch after another, made by PIL."""
        steps = [transforms.RandomResizedCrop(size, self._config.crop_area), transforms.RandomHorizontalFlip()]
        steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        views = ImageFolder(str(self._folder), transforms.Compose(steps))
        keeps = num_workers > 0
        return DataLoader(views, self._config.batch_size, True, num_workers=num_workers, persistent_workers=keeps)

    def mix(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mix a batch by CutMix; return it with the values that are stored."""
        size, partner = batch.shape[-1], torch.randperm(len(batch))
        side = int(size * float(1.0 - torch.rand(())) ** 0.5)
        centre = torch.randint(0, size, (2,))
        low, high = (centre - side // 2).clamp(0, size).tolist(), (centre + side // 2).clamp(0, size).tolist()
        rows, columns = slice(low[0], high[0]), slice(low[1], high[1])
        mixed = batch.clone()
        mixed[:, :, rows, columns] = batch[partner][:, :, rows, columns]
        return mixed, {"partner": partner, "box": torch.tensor(low + high)}

    @torch.no_grad()
    def forward(self, batch: Tensor) -> Tensor:
        """Return the logits of one batch, computed micro-batch by micro-batch."""
        size = self._config.batch_size // self._config.accumulation
        half = torch.autocast("cuda", torch.float16) if self._device.type == "cuda" else nullcontext()
        with half:
            return torch.cat([self._module(group) for group in batch.to(self._device).split(size)]).half().cpu()

    def epoch(self, loader: Iterable[tuple[Tensor, Tensor]], folder: Path) -> None:
        """Label every image once, and save a file for each batch."""
        for step, (batch, _) in enumerate(loader):
            mixed, record = self.mix(batch)
            torch.save(record | {"logits": self.forward(mixed)}, folder / f"batch_{step}.tar")


def write_folder(folder: Path, images: Tensor) -> None:
    """Write one JPEG file per image, as distilled images are published."""
    (folder / "class").mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / "class" / f"{number:05d}.jpg").write_bytes(encode_jpeg(image, quality=95).numpy().tobytes())


def views_alone(images: Tensor, config: RelabelConfig) -> Tensor:
    """Draw and render the views of an epoch block by block, as the library does, without the teacher."""
    table = label_epoch(images.cpu(), None, config, 0, 0)
    views = LabelViews.from_columns(table).to(images.device)
    blocks = range(0, len(images), max(1, 2**16 // images.shape[-1] ** 2))
    return torch.cat(
        [normalise(render_views(images, views[at : at + blocks.step]), MEAN, STD)[:, :1, :1, :1] for at in blocks]
    )


def jobs_of(arguments: argparse.Namespace, folder: Path, device: torch.device) -> dict[str, Job]:
    """Return the timed jobs by name; all of them process the same number of images."""
    images = torch.randint(0, 256, (arguments.images, 3, 8, 8), generator=generator(0, "benchmark")).float()
    images = nn.functional.interpolate(images, arguments.size, mode="bilinear").to(torch.uint8)
    write_folder(folder / "images", images)
    torch.manual_seed(0)
    module = timm.create_model(arguments.architecture, num_classes=10).eval().requires_grad_(False)
    config = RelabelConfig(flip_probability=0.5, batch_statistics=not arguments.running_statistics)
    plain = Plain(folder / "images", module, config, device)
    loaders = {num: plain.loader(arguments.size, num) for num in WORKERS}
    shown = torch.cat([batch for batch, _ in loaders[0]])
    teacher = Teacher(arguments.architecture, module, None, MEAN, STD, sha256="")
    resident, steps = images.to(device), [config.batch_size] * (arguments.images // config.batch_size)
    jobs: dict[str, Job] = {
        f"plain, {num} workers": (lambda it=it: plain.epoch(it, folder)) for num, it in loaders.items()
    }
    jobs["plain, views"] = lambda: [plain.mix(batch) for batch, _ in loaders[0]]
    jobs["plain, forward"] = lambda: [plain.forward(batch) for batch in shown.split(config.batch_size)]
    jobs["ours, views"] = lambda: views_alone(resident, config)
    views = LabelViews.from_columns(label_epoch(images, None, config, 0, 0))
    for precision in ("fp32", "bf16") if device.type == "cpu" else ("fp32", "tf32", "fp16"):
        labeller = Labeller([teacher], replace(config, precision=precision), MEAN, STD, device)

        def epoch(labeller: Labeller = labeller, file: Path = folder / f"{precision}.safetensors") -> None:
            save_tensors(file, label_epoch(images, labeller, config, 0, 0, Float16().encode))

        jobs[f"ours, {precision}"] = epoch
        jobs[f"ours, {precision}, views and forward"] = lambda labeller=labeller: list(
            labeller.label_steps(resident, views, steps)
        )
    return jobs


def measure(jobs: dict[str, Job], rounds: int) -> dict[str, float]:
    """Measure the median seconds of each job, in turn, after two rounds that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds + 2):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times[2:]) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet18_small_stem")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=128, help="images per epoch, a multiple of 16")
    parser.add_argument("--rounds", type=int, default=9, help="counted epochs of each, after two that are not")
    parser.add_argument("--running_statistics", action="store_true", help="evaluation mode instead of BSSL")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(jobs_of(arguments, Path(folder), device), arguments.rounds)
    rates = {name: arguments.images / value for name, value in seconds.items()}
    best = max(rates[f"plain, {num} workers"] for num in WORKERS)
    statistic = "running" if arguments.running_statistics else "batch"
    print(f"{arguments.architecture}, {arguments.size} px, {statistic} statistics, {device.type}")
    print(f"{'':<32}{'ms/image':>10}{'images/s':>12}{'of plain':>10}")
    for name, rate in rates.items():
        print(f"{name:<32}{1e3 / rate:>10.3f}{rate:>12,.0f}{rate / best:>10.2f}")
    print(f"views alone: {rates['ours, views'] / rates['plain, views']:.2f} times as fast")
    ratios = {name.removeprefix("ours, "): rate / best for name, rate in rates.items() if name.startswith("ours")}
    record = vars(arguments) | {"images_per_second": rates, "ratios": ratios}
    record["views_ratio"] = rates["ours, views"] / rates["plain, views"]
    name = f"bench-relabel-{arguments.architecture}-{arguments.size}px-{statistic}-{device.type}.json"
    write_json(Path("results") / name, record | {"machine": describe_machine(), "versions": library_versions()})


if __name__ == "__main__":
    main()
