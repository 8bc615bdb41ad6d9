"""One student by several processes against the same student by one: step by step in float64, and as commands."""

import json
from types import SimpleNamespace

import pytest
import torch
from fixtures.runs import STUDENT, copy_artifact, run_until, work_of
from fixtures.steps import every_state, write_states
from fixtures.together import run_together
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from fadrm_hf.cli import main
from fadrm_hf.errors import ConfigError, StudentError
from fadrm_hf.runtime.tensor_files import load_tensors
from fadrm_hf.training.shared_norm import check_shareable
from fadrm_hf.training.student_group import ALONE, StudentGroup, student_group

pytestmark = pytest.mark.numerical

EPOCHS = 3
RESULT = "results/distilled-soft-fadrm-timm_resnet10_narrow.json"


@pytest.fixture(scope="module")
def alone():
    """The states of one process."""
    return every_state(ALONE)


@pytest.mark.parametrize("world", [2, 3])
def test_steps_are_those_of_one_process(world, alone, tmp_path):
    """Weights, gradients, losses, running statistics, averaged weights with theirs: on every process, bf16 too."""
    assert run_together(world, write_states, tmp_path) == [0] * world
    for rank in range(world):
        found = load_tensors(tmp_path / f"{rank}.safetensors")
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            near = 1e-10 if value.dtype == torch.float64 else 1e-2  # bf16 has 8 bits
            torch.testing.assert_close(
                found[name], value, rtol=near, atol=near, msg=lambda m, name=name: f"{name}: {m}"
            )
        with safe_open(tmp_path / f"{rank}.safetensors", framework="pt") as file:
            assert f"found {list(range(world))} finished epochs" in file.metadata()["told"]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("sizes", [[8, 8], [6, 6, 4], [2], [3, 1]])
def test_every_row_is_held_once_and_nobody_holds_more_than_one_more(size, sizes):
    groups = [StudentGroup(rank=rank, size=size) for rank in range(size)]
    rows = [group.rows(sum(sizes)) for group in groups]
    assert [row for held in rows for row in held] == list(range(sum(sizes)))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    owner = [number for number, num in enumerate(sizes) for _ in range(num)]
    expected = [[[owner[row] for row in held].count(number) for number in range(len(sizes))] for held in rows]
    assert all(group.portions(sizes) == expected for group in groups)


def launched(world):
    return [
        SimpleNamespace(process_index=rank, num_processes=world, device=torch.device("cpu")) for rank in range(world)
    ]


def test_processes_without_company_train_students_of_their_own():
    found = []
    for state in launched(2):
        with student_group(state, 3) as group:
            found.append(list(range(3)[group.index :: group.count]))
            assert group.is_leader and group.size == 1
    assert found == [[0, 2], [1]]


@pytest.mark.parametrize("least", [0, 3])
def test_a_group_larger_than_the_launch_is_refused(least):
    with pytest.raises(ConfigError, match=f"processes_per_student is {least}, expected 1 to 2.*--num_processes"):
        student_group(launched(2)[0], 3, least).__enter__()


def test_a_layer_that_cannot_be_divided_is_named():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True))
    with pytest.raises(StudentError, match=r"layer 1 is a InstanceNorm2d.*as many processes as there are seeds"):
        check_shareable(network)
    check_shareable(nn.Sequential(nn.InstanceNorm2d(4), nn.LayerNorm(4), nn.BatchNorm2d(4)))


def command(artifact, *arguments):
    saved = artifact.with_name(artifact.name + "-student")
    settings = ["--student", STUDENT, f"--epochs={EPOCHS}", "--save_student", str(saved)]
    return ["train-student", str(artifact), *settings, *arguments]


def weights_of(artifact):
    """Of the student of the first seed, with its running statistics."""
    return load_file(artifact.with_name(artifact.name + "-student") / "model.safetensors")


def result_of(artifact):
    return json.loads((artifact / RESULT).read_text())


def assert_same_student(artifact, reference):
    """In fp32, where roundings grow with every step (float64 is above): nearly all within a tenth of AdamW's step."""
    found, expected = weights_of(artifact), weights_of(reference)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-2, msg=lambda m, name=name: f"{name}: {m}")
    is_far = [((found[name] - value).abs() > 1e-4 + 1e-3 * value.abs()).flatten() for name, value in expected.items()]
    assert torch.cat(is_far).double().mean() < 1e-2


def assert_same_result(artifact, reference):
    """The same fields, and the same values but for cost, how it was called, and rounding in accuracies."""
    found, expected = result_of(artifact), result_of(reference)
    assert found.keys() == expected.keys()
    for name in ("top1", "top5", "best_epoch_top1"):
        assert found[name]["values"] == pytest.approx(expected[name]["values"], abs=0.01)
    told = {"seconds", "command", "top1", "top5", "best_epoch_top1"}
    assert {k: v for k, v in found.items() if k not in told} == {k: v for k, v in expected.items() if k not in told}


def train_alone(finished, folder, *arguments):
    artifact = copy_artifact(finished, folder)
    assert main(command(artifact, *arguments)) == 0
    return artifact


@pytest.fixture(scope="module")
def two_students(finished, tmp_path_factory):
    """By one process."""
    return train_alone(finished, tmp_path_factory.mktemp("alone"), "--num_seeds=2")


def test_two_students_begun_by_four_processes_and_ended_by_three(two_students, finished, tmp_path):
    """A leader dies after the second epoch, before its checkpoint, which ends the others. Of three processes two train
    the first student and one the second. They are those that one process trains."""
    artifact = copy_artifact(finished, tmp_path)
    arguments = command(artifact, "--num_seeds=2")
    died, *others = run_together(4, run_until, arguments, "*soft-seed0.safetensors", 2)
    # The other of its group is told; those of the other group wait for the launch, which a launcher would end.
    assert died == -9 and others[0] == 2 and 0 not in others
    assert len(list(work_of(artifact).glob("*.safetensors"))) == 2, "two groups have left a checkpoint"
    assert run_together(3, main, arguments) == [0, 0, 0]
    assert_same_student(artifact, two_students)
    assert_same_result(artifact, two_students)
    assert [path.name for path in work_of(artifact).iterdir()] == ["log.jsonl"], "no checkpoint is left"


def test_groups_are_as_large_as_asked_for_and_average_weights(finished, tmp_path):
    """Two processes train both seeds together; only their leader reports."""
    settings = ("--num_seeds=2", "--ema=0.5")
    artifact = copy_artifact(finished, tmp_path / "together")
    assert run_together(2, main, command(artifact, *settings, "--processes_per_student=2")) == [0, 0]
    alone = train_alone(finished, tmp_path, *settings)
    assert_same_student(artifact, alone)
    assert_same_result(artifact, alone)
    log = [json.loads(line) for line in (work_of(artifact) / "log.jsonl").read_text().splitlines()]
    assert [line["units"] for line in log if "loss" in line] == list(range(1, 2 * EPOCHS + 1))
