"""Machines with several GPUs: which one a process takes, and how the processes of a launch share a student."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock
from fixtures.artifacts import make_artifact
from fixtures.small import digits, small_teacher
from fixtures.tables import train_longer

from fadrm_hf.config import RelabelConfig, StudentConfig, filled
from fadrm_hf.config.protocols import student_defaults
from fadrm_hf.data.views import LabelViews
from fadrm_hf.labels.relabel import Labeller
from fadrm_hf.runtime import gpu
from fadrm_hf.runtime.progress import Task
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.one_student import StudentTraining
from fadrm_hf.training.student_group import student_group
from fadrm_hf.training.student_step import CapturedStep
from fadrm_hf.training.testing import TestImages as HeldOutImages
from no_op_device.running import NoOpDevice
from no_op_device.watching import watch

# By what is special: megabytes in use of the first and the second GPU, and which of them others like us have taken.
CASES: dict[str, tuple[tuple[int, int], tuple[int, ...]]] = {
    "both free": ((3, 3), ()),
    "first used": ((70_000, 512), ()),
    "first taken": ((3, 3), (0,)),
    "both used": ((70_000, 9_000), (0, 1)),
}


def take_gpus(folder: str) -> dict[str, list[Any]]:
    """Take a GPU in each case; the driver's library, which the device lacks, is one that reads a file."""
    names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(2)]
    taken = {}
    for case, (used, others) in CASES.items():
        Path(folder, "answer").write_text("".join(f"GPU-{n} {mb}\n" for n, mb in zip(names, used, strict=True)))
        gpu._held.clear()
        gpu.take_gpu.cache_clear()
        with contextlib.ExitStack() as held, contextlib.redirect_stderr(io.StringIO()) as said:
            for index in others:
                held.enter_context(FileLock(Path(tempfile.gettempdir(), f"fadrm_hf-gpu-{names[index]}.lock")))
            device = gpu.take_gpu()
        assert torch.cuda.current_device() == device.index and gpu.take_gpu() is device
        taken[case] = [device.index, said.getvalue().strip()]
    taken["joined"] = [str(join_world().device), ""]
    return taken


def join_launch(folder: str) -> dict[str, Any]:
    """Join a launch of two processes that train one student, and say what this one has."""
    distilled, state = load_distilled(folder), join_world()
    asked = StudentConfig(student="timm/resnet10_narrow", epochs=1)
    config = filled(asked, **student_defaults(asked.name, None, asked.student, 2))
    found: dict[str, Any] = {"device": str(state.device), "current": torch.cuda.current_device()}
    with student_group(state, 1, 2) as group:
        test = HeldOutImages(digits(8), state.device)
        together, alone = (
            StudentTraining(distilled, test, config, 0, state.device, *rest)._step for rest in ((group,), ())
        )
        found |= {"backends": [dist.get_backend(), dist.get_backend(group.channel)], "size": group.size}
        found |= {"captures": [isinstance(step, CapturedStep) for step in (together, alone)]}
    return found


def launch_two(folder: str) -> list[Any]:
    """Be the first process of a launch, and start the second as this one was started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", LOCAL_RANK="0")
    arguments = [sys.executable, "-m", "no_op_device.child", __file__, "join_launch", f'["{folder}"]']
    second = subprocess.Popen(arguments, env=os.environ | {"RANK": "1", "LOCAL_RANK": "1"}, stdout=subprocess.PIPE)
    own = join_launch(folder)
    said, _ = second.communicate()
    return [own, json.loads(said.splitlines()[-1])]


def use_second(folder: str) -> dict[str, Any]:
    """Train and label on the second GPU of a process that has not chosen it; count graphs, and name the devices."""
    distilled, device = load_distilled(folder), torch.device("cuda", 1)
    asked = StudentConfig(student="timm/resnet10_narrow", epochs=6)
    config = filled(asked, **student_defaults(asked.name, None, asked.student, 2))
    training = StudentTraining(distilled, HeldOutImages(digits(8), device), config, 0, device)
    with watch() as seen:
        training.run(Path(folder).with_name("student.safetensors"), Task("test", 6), num_checkpoints=1)
    source = digits(8)
    labeller = Labeller(
        [small_teacher(source, steps=1)],
        RelabelConfig(flip_probability=0.5),
        source.config.mean,
        source.config.std,
        device,
    )
    views = LabelViews.draw(torch.arange(8), 8, (0.08, 1.0), 0.5, True, generator(0, "views"))
    labels = labeller.label(distilled.images, views)
    return {"current": torch.cuda.current_device(), "nodes": seen.counts["graph_nodes"], "labels": list(labels.shape)}


def test_a_process_alone_takes_a_gpu_that_nobody_uses(no_op_device: NoOpDevice, tmp_path: Path) -> None:
    source, answer = Path(__file__).with_name("driver") / "nvml.c", f'-DANSWER="{tmp_path / "answer"}"'
    subprocess.run(["gcc", "-shared", "-fPIC", answer, source, "-o", tmp_path / "libnvidia-ml.so.1"], check=True)
    libraries = f"{tmp_path}{os.pathsep}{no_op_device.folder}"
    places = {"LD_LIBRARY_PATH": libraries, "TMPDIR": str(tmp_path)}
    taken = no_op_device.run(take_gpus, str(tmp_path), NO_OP_DEVICES="2", **places)
    assert {case: index for case, (index, _) in taken.items()} == {
        "both free": 0, "first used": 1, "first taken": 1, "both used": 1, "joined": "cuda:1"
    }  # fmt: skip
    assert taken["first taken"][1].startswith("GPU 1 of 2 (") and "nobody uses" in taken["first taken"][1]
    assert "all are in use" in taken["both used"][1] and "9,000 MB" in taken["both used"][1]


def test_processes_of_a_launch_have_a_gpu_each_and_capture_no_message(
    no_op_device: NoOpDevice, tmp_path: Path
) -> None:
    """NCCL is chosen; whether it connects GPUs cannot be seen here, so torch's older one is, which connects later."""
    folder = make_artifact(tmp_path / "run")
    first, second = no_op_device.run(launch_two, str(folder), NO_OP_DEVICES="2", TORCH_DIST_USE_NCCL2="0")
    expected = {"backends": ["nccl", "nccl"], "size": 2, "captures": [False, True]}
    assert first == expected | {"device": "cuda:0", "current": 0}
    assert second == expected | {"device": "cuda:1", "current": 1}


def test_any_gpu_can_be_named(no_op_device: NoOpDevice, tmp_path: Path) -> None:
    """A step is captured where the student is, not on the GPU that happens to be the current one."""
    folder = train_longer(make_artifact(tmp_path / "run"), 6)
    found = no_op_device.run(use_second, str(folder), NO_OP_DEVICES="2")
    assert found.pop("nodes") > 9 * 100, "an empty graph trains nothing"
    assert found == {"current": 0, "labels": [8, 10]}
