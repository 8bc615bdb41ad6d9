"""The evaluation protocol, against the formulas written out; and its program, from the artifact alone."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from fixtures.runs import EPOCHS, STUDENT, copy_artifact, launch, run_and_die, work_of

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.cli import main
from fadrm_hf.config import SourceConfig, StudentConfig
from fadrm_hf.data.sources import load_source
from fadrm_hf.errors import StudentError
from fadrm_hf.networks.students import create_student
from fadrm_hf.runtime.progress import Reporter, Task
from fadrm_hf.runtime.randomness import generator
from fadrm_hf.runtime.tensor_files import load_tensors
from fadrm_hf.training.accuracy import predict, topk_accuracy
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.one_student import StudentTraining, checkpoint_epochs
from fadrm_hf.training.protocol import parameter_groups, resolve_protocol, soft_label_loss
from fadrm_hf.training.testing import TestImages as HeldOutImages
from fadrm_hf.training.testing import epochs_to_test
from fadrm_hf.training.train_student import train_students

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
RESULT = "results/distilled-{labels}-fadrm-timm_resnet10_narrow.json"


def train(artifact, *arguments):
    assert main(["train-student", str(artifact), "--student", STUDENT, "--num_seeds=1", *arguments]) == 0
    labels = "hard" if "--labels=hard" in arguments else "soft"
    return json.loads((artifact / RESULT.format(labels=labels)).read_text())


def accuracies(result):
    return [result[name]["values"] for name in ("top1", "top5", "best_epoch_top1")]


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """The artifact alone, and the result of one student."""
    artifact = copy_artifact(finished, tmp_path_factory.mktemp("reader"))
    return artifact, train(artifact)


def kl_float64(student, teacher, temperature):
    p, q = ((logits.double() / temperature).softmax(1) for logits in (teacher, student))
    return (p * (p.log() - q.log())).sum(1).mean()


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_the_loss_is_kl_at_t_without_the_factor_t_squared(temperature):
    student, teacher = (5 * torch.randn((6, 10), generator=generator(seed, "test")) for seed in range(2))
    expected = kl_float64(student, teacher, temperature)
    torch.testing.assert_close(soft_label_loss(student, teacher, temperature).double(), expected, rtol=1e-4, atol=1e-8)
    loss = soft_label_loss(student.double(), teacher.double(), temperature)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_weight_decay_is_for_weights_of_more_than_one_dimension():
    student = create_student(STUDENT, 10, 16)
    decayed, free = parameter_groups(student, 0.01)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    layers = [module for module in student.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert {id(parameter) for parameter in decayed["params"]} == {id(layer.weight) for layer in layers}
    assert len(decayed["params"]) + len(free["params"]) == len(list(student.parameters()))


class Keeping(Task):
    """Keeps the checkpoint of every epoch; the training counts an epoch once its checkpoint is in place."""

    def __init__(self, checkpoint):
        super().__init__("test", EPOCHS)
        self._checkpoint, self.kept = checkpoint, []

    def advance(self, units=1, **metrics):
        super().advance(units, **metrics)
        if units:
            self.kept.append(load_tensors(self._checkpoint))


def plain_gradients(checkpoint, batch, temperature):
    """One step's gradient in float64: micro-batches of 16 and 4 through the network one after the other, each KL
    weighted by its share of the 20 images; and the running statistics that BatchNorm is left with."""
    student = create_student(STUDENT, 10, 16)
    student.load_state_dict({k[len("module.") :]: v for k, v in checkpoint.items() if k.startswith("module.")})
    student = student.double().train()
    total = {name: torch.zeros_like(parameter) for name, parameter in student.named_parameters()}
    for rows, share in ((slice(0, 16), 16 / 20), (slice(16, 20), 4 / 20)):
        loss = kl_float64(student(batch.images[rows].double()), batch.logits[rows], temperature)
        for name, gradient in zip(total, torch.autograd.grad(loss, list(student.parameters())), strict=True):
            total[name] += share * gradient
    return total, dict(student.named_buffers())


def test_a_training_step_by_step_against_the_formulas_in_float64(finished_random_real, tmp_path):
    """Accumulation over micro-batches, AdamW with its two groups, Eq. 57 per epoch; one step is one epoch here."""
    distilled = load_distilled(finished_random_real)
    config = StudentConfig(student=STUDENT, epochs=EPOCHS, lr=1e-3, eta=2.0, weight_decay=0.5, temperature=20.0)
    test = HeldOutImages(load_source(SourceConfig(name="digits", size=16)), CPU)
    checkpoint = tmp_path / "student.safetensors"
    task = Keeping(checkpoint)
    StudentTraining(distilled, test, config, 0, CPU).run(checkpoint, task)
    assert len(task.kept) == EPOCHS
    batches = list(distilled.batches(range(EPOCHS)))
    names = [name for name, _ in create_student(STUDENT, 10, 16).named_parameters()]
    decayed = [name for name in names if task.kept[0][f"module.{name}"].ndim > 1]
    places = {name: index for index, name in enumerate(decayed + [name for name in names if name not in decayed])}
    for epoch in range(1, EPOCHS):
        before, after = task.kept[epoch - 1], task.kept[epoch]
        gradients, buffers = plain_gradients(before, batches[epoch], 20.0)
        lr = 1e-3 * 0.5 * (1 + math.cos(math.pi * epoch / (EPOCHS * 2.0)))
        largest = max(gradient.abs().max().item() for gradient in gradients.values())
        for name, place in places.items():
            (m0, v0), (m, v) = (
                (kept[f"optimizer.{place}.exp_avg"].double(), kept[f"optimizer.{place}.exp_avg_sq"].double())
                for kept in (before, after)
            )
            # A layer with hardly any gradient has the rounding of those that it is computed from.
            scale = max(gradients[name].abs().max().item(), 1e-2 * largest)
            # Where rounding moves a value across the zero of a ReLU, which some instructions do, gradients are off
            # by a few thousandths of the largest, a single one by a hundredth; m is a tenth of them, v a thousandth
            # of their squares.
            expected_m, expected_v = 0.9 * m0 + 0.1 * gradients[name], 0.999 * v0 + 0.001 * gradients[name] ** 2
            torch.testing.assert_close(m, expected_m, rtol=0, atol=3e-3 * scale)
            torch.testing.assert_close(v, expected_v, rtol=1e-6, atol=1e-4 * scale**2)
            assert (m - expected_m).square().mean().sqrt() < 1e-3 * scale
            weight = before[f"module.{name}"].double() * (1 - lr * (0.5 if name in decayed else 0.0))
            unbiased = m / (1 - 0.9 ** (epoch + 1)), v / (1 - 0.999 ** (epoch + 1))
            expected = weight - lr * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
            torch.testing.assert_close(after[f"module.{name}"].double(), expected, rtol=1e-6, atol=1e-6)
        for name, value in buffers.items():
            torch.testing.assert_close(after[f"module.{name}"].to(value.dtype), value, rtol=1e-4, atol=1e-5)


def test_what_the_protocol_leaves_open_is_the_artifacts(finished):
    distilled = load_distilled(finished)
    own = distilled.manifest.config["student"]
    resolved = resolve_protocol(distilled, StudentConfig(student=STUDENT))
    assert (resolved.epochs, resolved.lr, resolved.eta) == (EPOCHS, own["lr"], own["eta"])
    assert resolve_protocol(distilled, StudentConfig(epochs=2, lr=0.5, eta=1.0)).lr == 0.5


def test_the_result_says_everything(trained):
    artifact, result = trained
    assert set(result) == {
        "protocol", "student", "images", "labels", "label_codec", "epochs", "top1", "top5", "best_epoch_top1",
        "num_seeds", "seconds", "num_images", "num_test_images", "machine", "command", "versions", "settings",
    }  # fmt: skip
    assert (result["images"], result["labels"], result["epochs"]) == ("distilled", "soft", EPOCHS)
    assert result["label_codec"] == "float16"
    assert (result["num_images"], result["num_test_images"], result["num_seeds"]) == (20, 500, 1)
    assert 0 <= result["top1"]["mean"] <= result["top5"]["mean"] <= 1
    assert result["top1"]["mean"] <= result["best_epoch_top1"]["mean"]
    assert result["command"] == f"fadrm-hf train-student run --student {STUDENT} --num_seeds=1"
    assert str(artifact) not in json.dumps(result), "no folder of this machine"


def test_the_card_carries_the_number_and_the_artifact_stays_sound(trained, finished):
    artifact, result = trained
    top1, top5, best = (f"{100 * result[name]['mean']:.1f}" for name in ("top1", "top5", "best_epoch_top1"))
    kind, card = "distilled images + soft labels", (artifact / "README.md").read_text()
    row = f"| {kind} | {STUDENT} | fadrm | {top1} | {top5} | authors |"
    assert row in card and row not in (finished / "README.md").read_text()
    assert f"| {kind} | {EPOCHS} | 1 | {best} | " in card
    assert RESULT.format(labels="soft") in read_manifest(artifact).files
    assert main(["verify", str(artifact)]) == 0


def test_the_best_epoch_is_called_what_it_is(trained, capsys):
    train(trained[0])
    said = " ".join(capsys.readouterr().out.split())
    best = trained[1]["best_epoch_top1"]["mean"]
    assert f"(last epoch, 1 seed); best epoch, chosen on the test images: {best:.1%}" in said


def test_results_do_not_depend_on_data_workers(trained, tmp_path):
    artifact = copy_artifact(trained[0], tmp_path)
    assert accuracies(train(artifact, "--num_workers=2")) == accuracies(trained[1])


def test_every_seed_is_another_student(trained, tmp_path):
    result = train(copy_artifact(trained[0], tmp_path), "--num_seeds=2")
    assert result["num_seeds"] == 2
    (first, second), (first_top5, second_top5) = result["top1"]["values"], result["top5"]["values"]
    assert (first, first_top5) != (second, second_top5)
    assert [first] == trained[1]["top1"]["values"]
    assert result["top1"]["std"] == pytest.approx(abs(first - second) / math.sqrt(2), abs=1e-6)


@pytest.mark.parametrize(
    ("epochs", "images", "tests", "expected"),
    [
        (300, 10_000, 50_000, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300]),  # ImageNet-1k, IPC 10: all ten
        (150, 100, 10_000, [15, 60, 105, 150]),  # CIFAR-10, IPC 10: 45,000 passes pay for four
        (300, 10, 3_925, [150, 300]),  # ImageNette, IPC 1: 9,000 for two
        (30, 10, 3_925, [30]),  # the last in any case
        (7, 10, 10_000, [7]),
        (7, 10_000, 10, [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_testing_takes_no_longer_than_training_and_never_misses_the_last_epoch(epochs, images, tests, expected):
    saved = checkpoint_epochs(epochs)
    assert len(saved) <= 11 and saved[-1] == epochs
    tested = epochs_to_test(saved, epochs * images, tests)
    assert tested == expected
    assert len(tested) == 1 or len(tested) * tests <= 3 * epochs * images


class Counting(HeldOutImages):
    """The first hundred, and how many of them are looked at."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.labels = self.labels[:100]
        self.seen = 0

    def batches(self, rows=None):
        for batch in super().batches(rows):
            self.seen += len(batch)
            yield batch


def test_a_student_is_tested_as_often_as_its_training_pays_for_and_saved_more_often(trained, tmp_path):
    distilled = load_distilled(str(trained[0]))
    test = Counting(load_source(SourceConfig(name="digits")), CPU)
    config = resolve_protocol(distilled, StudentConfig(name="fadrm", student=STUDENT, epochs=EPOCHS))
    assert 3 * EPOCHS * len(distilled.labels) // len(test) == 2, "what two tests take"
    checkpoint, kept = tmp_path / "student.safetensors", []

    class Watching(Task):
        def advance(self, units=1, **metrics):
            super().advance(units, **metrics)
            kept.append(json.loads(checkpoint.with_suffix(".json").read_text()) if checkpoint.exists() else [])

    outcome = StudentTraining(distilled, test, config, 0, CPU).run(checkpoint, Watching("test", EPOCHS))
    assert test.seen == 2 * len(test)
    curve = kept[-1]
    assert [point["epoch"] for point in curve] == checkpoint_epochs(EPOCHS) == [1, 2, 3, 4]
    measured = [point["top1"] for point in curve if "top1" in point]
    assert len(measured) == 2 and measured[-1] == outcome.top1 and max(measured) == outcome.best_epoch_top1
    assert all(point["seconds"] > 0 for point in curve)


def test_killed_between_curve_and_checkpoint_a_training_ends_like_an_undisturbed_one(trained, tmp_path):
    artifact = copy_artifact(trained[0], tmp_path)
    (artifact / RESULT.format(labels="soft")).unlink()
    command = ["train-student", str(artifact), "--student", STUDENT, "--num_seeds=1"]
    assert run_and_die(command, "*soft-seed0.safetensors", 3) == -9
    (checkpoint,) = work_of(artifact).glob("*soft-seed0.safetensors")
    assert len(json.loads(checkpoint.with_suffix(".json").read_text())) == 3, "the curve is one epoch ahead"
    again = train(artifact)
    assert {**again, "seconds": 0} == {**trained[1], "seconds": 0}
    assert not checkpoint.exists()


def test_a_training_goes_on_after_another_was_recorded_and_with_other_workers(trained, tmp_path):
    """Neither a new result in the artifact nor the number of workers or seeds makes it another training."""
    artifact = copy_artifact(trained[0], tmp_path)
    command = ["train-student", str(artifact), "--student", STUDENT, "--num_seeds=2"]
    assert run_and_die(command, "*soft-seed0.safetensors", 2) == -9
    train(artifact, "--labels=hard", "--epochs=1")
    assert accuracies(train(artifact, "--num_workers=1")) == accuracies(trained[1])


def test_a_student_that_is_finished_is_not_trained_again_for_the_sake_of_the_next(trained, tmp_path):
    artifact = copy_artifact(trained[0], tmp_path)
    command = ["train-student", str(artifact), "--student", STUDENT, "--num_seeds=2"]
    assert run_and_die(command, "*soft-seed1.safetensors") == -9
    first = work_of(artifact) / f"fadrm-{STUDENT.replace('/', '_')}-soft-seed0.safetensors"
    before = first.stat()
    assert run_and_die(command, "*soft-seed1.safetensors", 2) == -9
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    undisturbed = train(copy_artifact(trained[0], tmp_path / "undisturbed"), "--num_seeds=2")
    assert accuracies(train(artifact, "--num_seeds=2")) == accuracies(undisturbed)
    assert [path.name for path in work_of(artifact).iterdir()] == ["log.jsonl"], "no checkpoint is left"


def test_processes_of_a_launch_share_the_seeds(trained, tmp_path):
    """Three of two processes; each is the student that one process alone trains with as many threads."""
    together, alone = (copy_artifact(trained[0], tmp_path / name) for name in ("together", "alone"))
    arguments = ("--student", STUDENT, "--num_seeds=3")
    done = launch(2, "train_student", str(together), *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 seeds") == 1, "one process speaks"
    log = [json.loads(line) for line in (work_of(together) / "log.jsonl").read_text().splitlines()]
    assert [line["units"] for line in log].count(EPOCHS) == 2, "both processes have trained"
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the two had
    try:
        expected = train(alone, "--num_seeds=3")
    finally:
        torch.set_num_threads(num_threads)
    result = json.loads((together / RESULT.format(labels="soft")).read_text())
    assert accuracies(result) == accuracies(expected) and result["num_seeds"] == 3
    assert [path.name for path in work_of(together).iterdir()] == ["log.jsonl"], "no checkpoint is left"


def test_every_trained_student_is_offered_with_its_seed(finished_random_real, tmp_path):
    distilled = load_distilled(finished_random_real)
    source = load_source(SourceConfig(name="digits", size=16))
    config = StudentConfig(student=STUDENT, epochs=1, num_seeds=2)
    offered = {}
    reporter = Reporter(quiet=True)
    result = train_students(
        distilled, source, config, tmp_path, reporter, CPU, lambda s, seed: offered.update({seed: s})
    )
    test = HeldOutImages(source, CPU)
    found = [topk_accuracy(predict(offered[seed], test.batches()), test.labels, 1) for seed in (0, 1)]
    assert list(offered) == [0, 1] and result["top1"]["values"] == [round(value, 6) for value in found]


def test_hard_labels_train_on_the_class_of_unmixed_views(finished, tmp_path):
    """The first epoch's loss against cross-entropy of the first student, batch by batch."""
    artifact = copy_artifact(finished, tmp_path)
    result = train(artifact, "--labels=hard", "--epochs=1", "--lr=1e-9")
    assert (result["labels"], result["epochs"]) == ("hard", 1)
    log = [json.loads(line) for line in (work_of(artifact) / "log.jsonl").read_text().splitlines()]
    (loss,) = [line["loss"] for line in log if line["stage"] == "student hard" and "loss" in line]
    distilled = load_distilled(artifact)
    config = resolve_protocol(distilled, StudentConfig(student=STUDENT, labels="hard", epochs=1, lr=1e-9))
    test = HeldOutImages(load_source(SourceConfig(name="digits", size=16)), CPU)
    checkpoint = tmp_path / "student.safetensors"
    task = Keeping(checkpoint)
    with torch.random.fork_rng():
        StudentTraining(distilled, test, config, 0, CPU).run(checkpoint, task)
    student = create_student(STUDENT, 10, 16)
    student.load_state_dict({k[len("module.") :]: v for k, v in task.kept[0].items() if k.startswith("module.")})
    student.train()
    losses = []
    for batch, sizes in zip(distilled.batches(range(1), mixed=False), ([6, 6], [6, 2]), strict=True):
        parts = zip(batch.images.split(sizes), batch.labels.split(sizes), strict=True)
        losses.append(sum(F.cross_entropy(student(x), y, reduction="sum") for x, y in parts) / sum(sizes))
    assert loss == pytest.approx(sum(losses).item() / 2, rel=1e-5)


def test_more_epochs_than_labels_are_refused_before_training(trained, capsys):
    assert main(["train-student", str(trained[0]), "--student", STUDENT, "--epochs=99"]) == 2
    assert "99 epochs were requested" in " ".join(capsys.readouterr().err.split())


def test_a_diverging_student_is_refused_with_a_remedy(finished_random_real, tmp_path):
    distilled = load_distilled(finished_random_real)
    config = StudentConfig(student=STUDENT, epochs=EPOCHS, lr=1e30, eta=1.0)
    test = HeldOutImages(load_source(SourceConfig(name="digits", size=16)), CPU)
    with pytest.raises(StudentError, match=r"became (nan|inf) in epoch \d; lower --student.lr"):
        StudentTraining(distilled, test, config, 0, CPU).run(tmp_path / "s.safetensors", Task("test", 1))
