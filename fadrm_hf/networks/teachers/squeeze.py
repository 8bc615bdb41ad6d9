"""Squeeze: train a teacher on the source, and save it as a directory that timm and transformers read.

Cross-entropy by SGD with momentum, a cosine per step from `lr` to 0 (Tables 10, 12, 14, 16), random crops and flips;
other papers' teachers have Adam, a warm-up or a constant rate.
The state after every epoch is kept, and everything random is derived from (seed, epoch, step), so a training that was
interrupted ends as one that was not, with any number of workers, and on CPUs with the same bits. Trained with CutMix,
it is the paper's upper bound, the network that has seen the whole dataset (Table 7).
"""

import hashlib
import json
import math
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fadrm_hf.config import SqueezeConfig, values_before
from fadrm_hf.config.architectures import Implementation
from fadrm_hf.data.sources import Source, Split
from fadrm_hf.errors import RunFolderError, TeacherError, unknown
from fadrm_hf.networks.model_directory import CONFIG, WEIGHTS, model_config, write_model_directory
from fadrm_hf.networks.schedules import learning_rate
from fadrm_hf.networks.small_images import architecture_for, create_network
from fadrm_hf.networks.teachers.finite import require_finite
from fadrm_hf.networks.teachers.training_views import TrainingViews, pixels_in_memory
from fadrm_hf.runtime import files, tensor_files
from fadrm_hf.runtime.checkpoint import load_checkpoint, save_checkpoint
from fadrm_hf.runtime.locks import locked
from fadrm_hf.runtime.number_format import rounding_products
from fadrm_hf.runtime.out_of_memory import in_halves
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.randomness import derive_seed, generator
from fadrm_hf.runtime.run_folder import hidden_work

_MEASURED_TOGETHER = 100  # images, as far as memory allows


def squeeze(
    source: Source,
    architecture: str,
    config: SqueezeConfig,
    folder: Path,
    seed: int,
    reporter: Reporter,
    device: torch.device,
) -> Path:
    """Train `architecture` on the source's training images, or resume where an earlier call stopped.

    Args:
        source: The real images.
        architecture: Name in timm; 64 px or less use its small-stem twin.
        config: The training recipe, resolved.
        folder: The timm model directory to write; it appears complete or not at all.
        seed: Seed of the run.
        reporter: Shows and logs one unit per epoch.
        device: Where to train.

    Returns:
        `folder`; at once if it already holds this teacher.

    Raises:
        TeacherError: unknown architecture, or the loss is not finite.
        RunFolderError: `folder` or its checkpoint is damaged, or belongs to another training.
    """
    fingerprint = squeeze_fingerprint(source, architecture, config, seed)
    if is_squeezed(folder, fingerprint):
        _require_intact(folder)
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise RunFolderError(f"{folder} holds something other than this teacher; choose another folder or delete it")
    network = new_network(source, architecture, config, seed).to(device).to(memory_format=torch.channels_last)
    work = hidden_work(folder)
    with locked(work / "training.lock", reporter.say):
        if not is_squeezed(folder, fingerprint):
            _train(folder.name, network, source, config, seed, fingerprint, work / "checkpoint.safetensors", reporter)
            _save(network, source, architecture, config, folder, seed)
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _save(
    network: nn.Module, source: Source, architecture: str, config: SqueezeConfig, folder: Path, seed: int
) -> None:
    """Write the trained network with what it was trained by, and how good it is."""
    name = architecture_for(architecture, source.size, config.implementation)
    record = {
        "accuracy": round(measure_accuracy(network.eval(), source), 6),
        "epochs": config.epochs,
        "recipe": asdict(config),
        "seed": seed,
        "source": source.config.public_name,
        "source_fingerprint": source.fingerprint,
        "fingerprint": squeeze_fingerprint(source, architecture, config, seed),
        "weights_sha256": tensor_files.digest_of(network.state_dict()),
    }
    config_json = model_config(network, name, source.class_map, source.config) | {"fadrm": record}
    write_model_directory(network, config_json, folder)


def new_network(source: Source, architecture: str, config: SqueezeConfig, seed: int) -> nn.Module:
    """Create an untrained network for the source's classes; its weights derive from the seed."""
    name = require_architecture(architecture, source.size, config.implementation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "squeeze", name, "weights"))
        return create_network("timm", architecture, len(source.class_map), source.size, config.implementation)


def require_architecture(architecture: str, size: int, implementation: Implementation = "released") -> str:
    """Return the name of the network that is trained for `architecture` at `size` pixels; refuse unknown ones."""
    name = architecture_for(architecture, size, implementation)
    if not timm.is_model(name):
        raise TeacherError(
            unknown("architecture", architecture, timm.list_models()) + "; set --teachers.names (or --architecture)"
        )
    return name


def squeeze_fingerprint(source: Source, architecture: str, config: SqueezeConfig, seed: int) -> str:
    """Return the SHA-256 of everything that decides the trained weights."""
    recipe = {name: value for name, value in asdict(config).items() if name != "num_workers"}
    for name, before in values_before(config).items():
        if recipe[name] == before:
            del recipe[name]  # teachers that are older than this setting keep their fingerprint
    view = {"size": source.config.size, "mean": source.config.mean, "std": source.config.std}
    name = architecture_for(architecture, source.size, config.implementation)
    key = [source.fingerprint, source.class_map.hash, view, name, recipe, seed]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def is_squeezed(folder: Path, fingerprint: str) -> bool:
    """Return whether `folder` holds the finished teacher with this fingerprint."""
    config = files.read_json(folder / CONFIG)
    return isinstance(config, dict) and config.get("fadrm", {}).get("fingerprint") == fingerprint


def _require_intact(folder: Path) -> None:
    """Refuse weights other than those that were trained; a teacher that records no digest is trusted."""
    trained = files.read_json(folder / CONFIG)["fadrm"].get("weights_sha256")
    with suppress(SafetensorError, OSError):
        if trained in (None, tensor_files.digest_of(tensor_files.load_tensors(folder / WEIGHTS))):
            return
    raise RunFolderError(
        f"{folder / WEIGHTS} is damaged: it does not hold the weights that were trained; remove {folder} and the "
        "teacher is trained again"
    )


@torch.no_grad()
def measure_accuracy(
    module: nn.Module,  # (B, 3, S, S) normalised as the source -> (B, C) logits in the source's class order
    source: Source,
    max_images: int | None = None,
    seed: int = 0,
    name: str = "in training",
) -> float:
    """Measure top-1 accuracy on the source's test images (its training images where it has no test split).

    Args:
        module: A classifier in evaluation mode.
        source: The real images.
        max_images: Measure on the first so many images of a seeded shuffle; all of them when `None`.
        seed: Seed of the shuffle.
        name: The network's name in messages.

    Raises:
        TeacherError: Its logits are not finite.
    """
    split: Split = "train" if source.test is None else "test"
    labels = torch.from_numpy(source.labels(split))
    order = torch.randperm(len(labels), generator=generator(seed, "gate"))[:max_images]
    device = next(module.parameters()).device
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for indices in order.sort().values.split(_MEASURED_TOGETHER):
        images = source.normalise(source.pixels(split, indices.tolist())).to(device)
        logits = in_halves(module, images)
        require_finite(name, logits, f"logits of {split} images")
        correct += (logits.argmax(1) == labels[indices].to(device)).sum()
    return correct.item() / len(order)


def _train(
    name: str,
    network: nn.Module,
    source: Source,
    config: SqueezeConfig,
    seed: int,
    fingerprint: str,
    checkpoint: Path,
    reporter: Reporter,
) -> None:
    """Train the epochs that `checkpoint` does not hold yet, under one cosine; the loss is logged as `name`."""
    epochs, peak = config.epochs, config.lr
    optimizer = new_optimizer(network, config)
    done = load_checkpoint(checkpoint, network, optimizer, fingerprint)
    pixels = pixels_in_memory(source, config)
    device = next(network.train().parameters()).device
    with reporter.stage("squeeze", epochs, epochs * len(source.train)) as task:
        task.begin(name)
        task.skip(done)
        for epoch in range(done, epochs):
            views = TrainingViews(source, pixels, config, seed, epoch)
            loss = torch.zeros((), device=device)
            forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
            with forked, rounding_products("tf32"):
                torch.manual_seed(derive_seed(seed, "squeeze", epoch))  # for networks with dropout
                loader = DataLoader(views, batch_size=None, num_workers=config.num_workers)
                for step, (images, labels) in enumerate(loader, start=epoch * len(views)):
                    num_steps, warmup = epochs * len(views), config.warmup_epochs * len(views)
                    lr = learning_rate(config.schedule, peak, step, num_steps, warmup=warmup)
                    loss += _step(network, optimizer, lr, images.to(device), labels.to(device))
            mean_loss = (loss / len(views)).item()
            _require_finite(mean_loss, epoch, peak)
            save_checkpoint(checkpoint, network, optimizer, epoch + 1, fingerprint)
            task.advance(loss=mean_loss, lr=lr)


def new_optimizer(network: nn.Module, config: SqueezeConfig) -> torch.optim.Optimizer:
    """Create the optimiser of a training at its peak rate."""
    parameters, lr, decay = network.parameters(), config.lr, config.weight_decay
    if config.optimiser == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=config.momentum, weight_decay=decay)


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    lr: float,
    images: Tensor,  # (B, 3, S, S) normalised
    labels: Tensor,  # (B,) int64, or (B, C) float32 shares
) -> Tensor:  # () loss before the step
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = F.cross_entropy(network(images.contiguous(memory_format=torch.channels_last)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def _require_finite(loss: float, epoch: int, lr: float) -> None:
    if not math.isfinite(loss):
        raise TeacherError(
            f"the loss of the teacher became {loss} in epoch {epoch + 1}, expected a finite number; "
            f"lower --squeeze.lr (now {lr})"
        )
