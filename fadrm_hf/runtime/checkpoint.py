"""Checkpoints, from which a training resumes as if it had not been interrupted: weights, optimiser state, epoch.

One safetensors file, replaced atomically. Random states are not in it: every epoch draws from generators derived from
(seed, stage, epoch). Nor are the optimiser's settings: the caller builds the same optimiser and sets its learning rate
from the step, and the fingerprint proves that the settings are the same.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fadrm_hf.errors import RunFolderError
from fadrm_hf.runtime import tensor_files


def save_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, fingerprint: str
) -> None:
    """Write the state after `epoch` finished epochs of the training that `fingerprint` identifies."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        present = {name: value for name, value in state.items() if value is not None}
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in present.items()}
    tensor_files.save_with_digest(path, tensors, metadata={"epoch": str(epoch), "fingerprint": fingerprint})


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str) -> int:
    """Restore `module` and `optimizer` in place.

    Returns:
        The number of finished epochs; 0 where there is no checkpoint.

    Raises:
        RunFolderError: the checkpoint is damaged or belongs to another training.
    """
    if not path.exists():
        return 0
    tensors, metadata = _read(path)
    if metadata.get("fingerprint") != fingerprint:
        raise RunFolderError(
            f"{path} belongs to a training with other settings (fingerprint {metadata.get('fingerprint')}, expected "
            f"{fingerprint}); give the settings it was begun with, or delete it to begin anew"
        )
    module.load_state_dict({_after(name): value for name, value in tensors.items() if name.startswith("module.")})
    _restore(optimizer, {_after(name): value for name, value in tensors.items() if name.startswith("optimizer.")})
    return int(metadata["epoch"])


def _after(name: str) -> str:
    return name.split(".", 1)[1]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return tensor_files.read_intact(path)
    except (SafetensorError, IsADirectoryError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); delete it to begin this training anew") from error


def _restore(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        like = parameters[int(index)]
        # A buffer takes its parameter's memory format: an update in another order of memory may round differently.
        in_order = torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[key] = in_order
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
