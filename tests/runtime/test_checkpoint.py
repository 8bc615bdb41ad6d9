from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fadrm_hf.errors import RunFolderError
from fadrm_hf.runtime.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.numerical


def _network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    return layers.to(memory_format=torch.channels_last)


def _optimizer(kind: str, network: nn.Module) -> torch.optim.Optimizer:
    if kind == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=0.01)
    return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9 if kind == "momentum" else 0.0)


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    F.cross_entropy(network(images), torch.arange(6) % 2).backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["momentum", "plain", "adamw"])
def test_training_goes_on_with_the_same_bits(tmp_path: Path, kind: str) -> None:
    whole = _network()
    optimizer = _optimizer(kind, whole)
    for step in range(3):
        _step(whole, optimizer, step)
    save_checkpoint(tmp_path / "state.safetensors", whole, optimizer, 3, "a")
    resumed = _network()
    resumed_optimizer = _optimizer(kind, resumed)
    assert load_checkpoint(tmp_path / "state.safetensors", resumed, resumed_optimizer, "a") == 3
    for step in range(3, 6):
        _step(whole, optimizer, step)
        _step(resumed, resumed_optimizer, step)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_no_checkpoint_means_no_finished_epoch(tmp_path: Path) -> None:
    network = _network()
    assert load_checkpoint(tmp_path / "none.safetensors", network, _optimizer("plain", network), "a") == 0


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    network, path = _network(), tmp_path / "state.safetensors"
    save_checkpoint(path, network, _optimizer("plain", network), 1, "a")
    with pytest.raises(RunFolderError, match=r"other settings \(fingerprint a, expected b\).*delete it"):
        load_checkpoint(path, network, _optimizer("plain", network), "b")


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    network, path = _network(), tmp_path / "state.safetensors"
    save_checkpoint(path, network, _optimizer("plain", network), 1, "a")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RunFolderError, match=r"state\.safetensors is damaged"):
        load_checkpoint(path, network, _optimizer("plain", network), "a")
