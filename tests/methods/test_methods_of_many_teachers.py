"""G-VBSM and EDC: iterates against a plain float64 loop, published settings, and small runs of the line."""

import copy
import math
import shutil
from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from fixtures.plain_matching import PlainMatching, measured, seen
from fixtures.runs import RECIPE, lasting, work_of
from fixtures.small import digits, small_teacher

from fadrm_hf.cli import main
from fadrm_hf.config import RecoverConfig
from fadrm_hf.config.datasets import resolve
from fadrm_hf.data.views import BatchViews, apply_view
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.edc import EDC
from fadrm_hf.methods.g_vbsm import GVBSM
from fadrm_hf.networks.teachers import check_names
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.recover import Recovery, valid_range
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
SIDE = 4
LABELS = torch.arange(5).repeat_interleave(2)  # class-major
CONFIG = RecoverConfig(lr=0.05, flip_probability=0.5, max_roll=2, layout="class_major")


@pytest.fixture(scope="module")
def source():
    return digits()


@pytest.fixture(scope="module")
def teachers(source):
    """One with BatchNorm, one without."""
    torch.manual_seed(0)
    other = timm.create_model("convnet3_narrow", num_classes=10, img_size=16)
    return [small_teacher(source), small_teacher(source, 1, steps=10, module=other)]


@pytest.fixture(scope="module")
def real(source):
    """Some training images of each class, sorted by it."""
    labels = torch.as_tensor(source.labels("train"))
    rows = torch.cat([(labels == label).nonzero()[:4, 0] for label in range(10)])
    return source.normalise(source.pixels("train", rows.tolist())), labels[rows]


def start():
    return torch.randn((10, 3, 16, 16), generator=generator(0, "start"))


def recovered(method, config, source, teachers, real):
    known = [measured(teacher.module, *real, SIDE) for teacher in teachers]
    with open_matchers(teachers, config, CPU, method.matching, known, SIDE) as matchers:
        rng = generator(0, "test")
        recovery = Recovery(matchers, LABELS, source, config, method.iterations, rng, lambda done, losses: None)
        return method.recover(start(), recovery)


def plainly_recovered(method, config, source, teachers, real, extra):
    """The whole objective by loops and autograd, Adam from its formula; `extra` is what the method adds."""
    images = start().double()
    low, high = (bound.double() for bound in valid_range(source, CPU))
    modules = [copy.deepcopy(teacher.module).double() for teacher in teachers]
    options = {"momentum": method.momentum, "category": getattr(method, "category", 0.0)}
    images_of_classes = real[0].double(), real[1]
    plain = [PlainMatching(module, measured(module, *images_of_classes, SIDE), SIDE, **options) for module in modules]
    padding = config.padding if config.crop == "pad" else None
    views = BatchViews.draw(
        method.iterations, 16, config.crop_area, 0.5, config.max_roll, generator(0, "test"), padding
    )
    matrices = zip(*(matrix.double() for matrix in views.matrices(16, torch.float32)), strict=True)
    momentum, square = torch.zeros_like(images), torch.zeros_like(images)
    for t, (rows, columns) in enumerate(matrices):
        images = images.detach().requires_grad_()
        module, matcher = modules[t % 2], plain[t % 2]
        shown = apply_view(images, rows, columns)
        logits, maps = seen(module, shown)
        loss = F.cross_entropy(logits, LABELS) + config.statistics_weight * matcher.loss(maps, LABELS)
        loss = loss + extra(images, shown, logits, lambda x, m=module, r=rows, c=columns: m(apply_view(x, r, c)))
        (gradient,) = torch.autograd.grad(loss, images)
        lr = config.lr * 0.5 * (1 + math.cos(math.pi * t / method.iterations))
        momentum, square = 0.5 * momentum + 0.5 * gradient, 0.9 * square + 0.1 * gradient**2
        update = (momentum / (1 - 0.5 ** (t + 1))) / ((square / (1 - 0.9 ** (t + 1))).sqrt() + 1e-8)
        images = torch.maximum(torch.minimum(images.detach() - lr * update, high), low)
    return images


def assert_near(ours, theirs):
    """Adam divides by the root of tiny second moments, which amplifies fp32 rounding on a few pixels."""
    difference = (ours.double() - theirs).abs()
    assert difference.median() < 1e-4
    assert (difference > 0.02).double().mean() < 0.02
    assert (ours - start()).abs().median() > 0.01


def test_iterates_of_g_vbsm(source, teachers, real):
    method = GVBSM(iterations=6, drop=0.0, momentum=0.4)
    config = replace(CONFIG, crop="pad", padding=2)

    def densification(images, shown, logits, predict):
        total = 0.0
        for label in LABELS.unique():
            flat = shown[label == LABELS].flatten(1)
            eigenvalues = torch.linalg.eigvalsh(flat @ flat.T)
            goal = (eigenvalues / 4.0).softmax(0).detach()
            total = total + torch.special.xlogy(goal, goal).sum() - (goal * eigenvalues.log_softmax(0)).sum()
        return total

    ours = recovered(method, config, source, teachers, real)
    assert_near(ours, plainly_recovered(method, config, source, teachers, real, densification))


def test_iterates_of_edc(source, teachers, real):
    method = EDC(iterations=6, flatness_decay=0.5, flatness=5.0)
    average = [start().double()]

    def flatness(images, shown, logits, predict):
        with torch.no_grad():
            there = (predict(average[0]) / 4.0).softmax(1)
        here = (logits / 4.0).softmax(1)
        average[0] = 0.5 * average[0] + 0.5 * images.detach()
        return 5.0 * (here * (here / there).log()).sum(1).mean()

    ours = recovered(method, CONFIG, source, teachers, real)
    assert_near(ours, plainly_recovered(method, CONFIG, source, teachers, real, flatness))


def run_of(method, dataset, ipc, *arguments):
    return resolve(parse_run([f"--method={method}", f"--source.name={dataset}", f"--ipc={ipc}", *arguments]))


LARGE = (
    "timm/resnet18.tv_in1k",
    "torchvision/mobilenet_v2",
    "torchvision/efficientnet_b0",
    "torchvision/shufflenet_v2_x0_5",
)
SMALL = tuple(
    f"squeeze/{name}" for name in ("resnet18", "convnet3", "mobilenetv2_050", "wrn16_2", "shufflenet_v2_x0_5_1x1_stem")
)


@pytest.mark.parametrize(
    ("dataset", "teachers", "lr", "momentum", "drop", "together", "crop", "padding", "labels"),
    [
        ("imagenet1k", LARGE, 0.1, 0.4, 0.0, 80, "resized", 4, (300, 1024, "frobenius")),
        ("tiny_imagenet", SMALL, 0.05, 0.8, 0.4, 100, "pad", 8, (100, 100, "mean")),
        ("cifar100", SMALL, 0.05, 0.8, 0.4, 100, "pad", 4, (1000, 64, "mean")),
        ("cifar10", SMALL, 0.05, 0.8, 0.4, 100, "pad", 4, (1000, 100, "mean")),
    ],
)
def test_published_settings_of_g_vbsm(dataset, teachers, lr, momentum, drop, together, crop, padding, labels):
    run = run_of("g_vbsm", dataset, 10)
    check_names(run.teachers.names, run.source.size)
    method, recover, relabel = run.method, run.recover, run.relabel
    assert run.teachers.names == teachers
    assert (method.iterations, method.momentum, method.drop, method.densification) == (4000, momentum, drop, 1.0)
    assert (recover.lr, recover.statistics_weight, recover.first_bn_multiplier) == (lr, 0.01, 10.0)
    assert (recover.batch_size, recover.crop, recover.padding) == (together, crop, padding)
    assert (recover.layout, recover.teacher_order) == ("class_major", "run")
    assert (relabel.epochs, relabel.batch_size, relabel.ensemble) == labels and not relabel.batch_statistics
    assert (run.student.name, run.student.loss) == ("g_vbsm", "mse")
    assert run.student.ce_weight == (0.15 if dataset.startswith("cifar") else 0.1)


@pytest.mark.parametrize(
    ("dataset", "ipc", "starts", "iterations", "weight", "momentum", "together", "area", "labelling", "labels"),
    [
        ("imagenet1k", 10, "patches", 2000, 0.1, 0.8, 80, (0.5, 1.0), (5, 4), (300, 100)),
        ("imagenette", 10, "patches", 2000, 0.01, 0.0, 100, (0.5, 1.0), (4, 4), (1000, 50)),
        ("tiny_imagenet", 10, "random_images", 2000, 0.01, 0.8, 100, (0.5, 1.0), (5, 5), (300, 100)),
        ("tiny_imagenet", 1, "random_images", 2000, 0.01, 0.8, 100, (0.5, 1.0), (5, 5), (1000, 100)),
        ("cifar100", 10, "random_images", 2000, 0.01, 0.8, 100, (0.5, 1.0), (8, 5), (1000, 50)),
        ("cifar10", 10, "random_images", 75, 0.01, 0.8, 100, (0.08, 1.0), (8, 8), (1000, 25)),
    ],
)
def test_published_settings_of_edc(
    dataset, ipc, starts, iterations, weight, momentum, together, area, labelling, labels
):
    run = run_of("edc", dataset, ipc)
    check_names(run.teachers.names, run.source.size)
    method, recover, relabel = run.method, run.recover, run.relabel
    assert (method.init, method.iterations, method.momentum) == (starts, iterations, momentum)
    assert (method.category, method.flatness, method.flatness_decay) == (0.5, 0.25, 0.99)
    assert (recover.lr, recover.statistics_weight, recover.batch_size) == (0.05, weight, together)
    assert (recover.crop_area, recover.max_roll) == (area, 0)
    assert (recover.layout, recover.teacher_order) == ("class_major", "run")
    assert (len(run.teachers.names), relabel.num_teachers) == labelling
    assert not any("efficientnet" in name for name in run.teachers.names[:3])
    assert (relabel.epochs, relabel.batch_size, relabel.batch_statistics) == (*labels, False)
    assert run.patches.flip_probability == 0.5 and run.patches.difficulty == "easy"
    assert (run.student.name, run.student.loss, run.student.ema, run.student.ce_weight) == ("edc", "mse", 0.99, 0.025)


def test_what_was_released_can_be_had():
    run = run_of(
        "edc",
        "cifar100",
        10,
        "--method.from_zero=true",
        "--method.category_form=average",
        "--method.flatness=0",
        "--statistics.class_variance=images",
        "--statistics.global_variance=batches",
    )
    assert run.method.matching.from_zero and run.method.matching.category_form == "average"
    assert run_of("g_vbsm", "cifar100", 10, "--recover.max_roll=32").recover.max_roll == 32
    assert run_of("g_vbsm", "cifar100", 10).recover.max_roll == 4


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (GVBSM, {"momentum": 1.0}, r"method\.momentum must be in \[0, 1\), got 1\.0"),
        (GVBSM, {"drop": 1.5}, r"method\.drop"),
        (GVBSM, {"temperature": 0.0}, r"method\.temperature must be positive, got 0\.0"),
        (EDC, {"category": 1.5}, r"method\.category must be a fraction in \[0, 1\], got 1\.5"),
        (EDC, {"flatness_decay": 1.0}, r"method\.flatness_decay"),
        (EDC, {"iterations": 0}, r"method\.iterations must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_named(method, settings, message):
    with pytest.raises(ConfigError, match=message):
        method(**settings)


ARGUMENTS = (
    *RECIPE,
    "--teachers.names=[squeeze/resnet10_narrow,squeeze/convnet3_narrow]",
    "--statistics.images_per_class=4",
    "--method.iterations=4",
    "--relabel.num_teachers=1",
)


@pytest.fixture(scope="module")
def beside_teachers(finished, tmp_path_factory):
    """A folder for runs, beside a teacher that is trained already."""
    folder = tmp_path_factory.mktemp("many")
    shutil.copytree(finished.with_name("teachers"), folder / "teachers")
    return folder


@pytest.mark.parametrize("method", ["g_vbsm", "edc"])
def test_a_mixed_pool_distils_digits_and_what_is_missing_is_made_alike(method, beside_teachers):
    run = beside_teachers / method
    command = ["distill", f"--method={method}", *ARGUMENTS, f"--output={run}"]
    assert main(command) == 0
    whole = lasting(run)
    shutil.rmtree(run)
    recovered = sorted((work_of(run) / "recovered").iterdir())
    assert len(recovered) == 2 * 5, "two images of each class, in shards of two classes"
    for shard in recovered[3:6]:
        shard.unlink()
    assert main(command) == 0
    assert lasting(run) == whole
