"""One recovery step as this library takes it, against the plain formulation of the same mathematics, in one run.

Plain is what the published loop does: a forward hook on every BatchNorm layer (mean over batch and pixels; variance of
a permuted copy), torchvision's RandomResizedCrop and flip, roll, Adam, clamp. Steps of both are interleaved, so that a
machine that slows down slows both; the ratio of medians is the figure to quote.

    .venv/bin/python benchmarks/recovery_step.py --architecture resnet18_small_stem --size 32 --batch 100
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

import fadrm_hf.networks  # noqa: F401 - registers the small-image architectures
from fadrm_hf.config import RecoverConfig, SourceConfig
from fadrm_hf.files import write_json
from fadrm_hf.machine import describe_machine, library_versions
from fadrm_hf.presets import resolve_source
from fadrm_hf.randomness import generator
from fadrm_hf.recover import Recovery, matching
from fadrm_hf.sources import load_source
from fadrm_hf.teachers import Teacher


def plain_steps(module: nn.Module, images: Tensor, labels: Tensor, config: RecoverConfig) -> Iterator[None]:
    """The published loop's operations, one step at a time."""
    size = images.shape[-1]
    augment = v2.Compose(
        [v2.RandomResizedCrop(size, scale=config.crop_area, antialias=False), v2.RandomHorizontalFlip()]
    )
    terms: list[Tensor] = []

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        x = inputs[0]
        mean = x.mean([0, 2, 3])
        var = x.permute(1, 0, 2, 3).contiguous().reshape(x.shape[1], -1).var(1, unbiased=False)
        terms.append(torch.norm(layer.running_var - var, 2) + torch.norm(layer.running_mean - mean, 2))

    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    pixels = images.clone().requires_grad_()
    adam = torch.optim.Adam([pixels], lr=config.lr, betas=config.betas)
    try:
        while True:
            adam.zero_grad()
            views = torch.roll(augment(pixels), tuple(torch.randint(0, 5, (2,)).tolist()), (2, 3))
            loss = F.cross_entropy(module(views), labels)
            loss = loss + config.bn_weight * sum((10.0 if i == 0 else 1.0) * term for i, term in enumerate(terms))
            terms.clear()
            loss.backward()
            adam.step()
            with torch.no_grad():
                for channel in range(3):
                    pixels[:, channel].clamp_(-2.0, 2.0)
            yield
    finally:
        for handle in handles:
            handle.remove()


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds that one step takes."""
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet18_small_stem")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10, help="counted steps of each, after two that are not")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = load_source(resolve_source(SourceConfig(name="digits", size=arguments.size)))
    module = timm.create_model(arguments.architecture, num_classes=10).to(device).eval().requires_grad_(False)
    mean, std = source.config.mean, source.config.std
    assert mean is not None and std is not None
    teacher = Teacher(arguments.architecture, module, None, mean, std, sha256="")
    config = RecoverConfig(flip_probability=0.5, max_roll=4)
    images = torch.randn((arguments.batch, 3, arguments.size, arguments.size), device=device)
    labels = torch.arange(arguments.batch, device=device) % 10
    with matching([teacher], config, device) as matchers:
        rng = generator(0, "benchmark")
        recovery = Recovery(matchers, labels, source, config, 10**6, rng, lambda done, losses: None)
        state = {"images": images}

        def ours() -> None:
            state["images"] = recovery.optimise(state["images"], 1)

        plain = plain_steps(module, images, labels, config)
        pairs = [(timed(lambda: next(plain), device), timed(ours, device)) for _ in range(arguments.steps + 2)][2:]
    plain_ms, ours_ms = (1e3 * statistics.median(times) / arguments.batch for times in zip(*pairs, strict=True))
    print(f"{arguments.architecture}, {arguments.size} px, batch {arguments.batch}, {device.type}, fp32")
    print(
        f"plain {plain_ms:.3f}, ours {ours_ms:.3f} ms per image and iteration: {plain_ms / ours_ms:.2f} times as fast"
    )
    record = vars(arguments) | {"plain_ms": plain_ms, "ours_ms": ours_ms, "ratio": plain_ms / ours_ms}
    name = f"bench-recovery-step-{arguments.architecture}-{arguments.size}px-{device.type}.json"
    write_json(Path("results") / name, record | {"machine": describe_machine(), "versions": library_versions()})


if __name__ == "__main__":
    main()
