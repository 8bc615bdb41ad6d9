"""Committee voting: what teachers are worth, who sits on a committee, and what becomes of its images."""

import json
import math
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from accelerate import PartialState
from fixtures.runs import RECIPE, lasting, run_and_die
from fixtures.small import digits, small_teacher
from torch import nn

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.cli import main
from fadrm_hf.config import RecoverConfig, VoteConfig
from fadrm_hf.config.datasets import resolve
from fadrm_hf.data.sources import num_held_out
from fadrm_hf.data.views import BatchViews, apply_view
from fadrm_hf.errors import ConfigError, FadrmError, SourceError
from fadrm_hf.methods.cv_dd import CVDD
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.distill import check_run
from fadrm_hf.pipeline.run import VoteContext
from fadrm_hf.pipeline.votes import check_votes, measure_votes, needs_votes
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.recover import Recovery, ShardContext, valid_range
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
POOL = ("R18", "R50", "SV2", "MBV2", "DN121")
IMAGENET = torch.tensor([0.564, 0.423, 0.525, 0.442, 0.406])  # the released constants for ImageNet-1k
TEACHERS = "--teachers.names=[squeeze/resnet10_narrow, squeeze/convnet3_narrow]"
CV_DD = (
    "--method=cv_dd",
    TEACHERS,
    "--method.iterations=4",
    "--method.vote_ipc=1",
    "--method.vote_iterations=2",
    "--method.vote_epochs=1",
    "--method.vote_student=timm/resnet10_narrow",
    "--squeeze.epochs=1",
    "--relabel.epochs=1",
    "--student.epochs=1",
)


@pytest.fixture(scope="module")
def source():
    return digits()


@pytest.fixture(scope="module")
def teachers(source):
    """Three, each with weights and a hash of its own."""
    return [replace(small_teacher(source, seed, steps=4), sha256=f"{seed}" * 64) for seed in range(3)]


def encoded(table):
    return Counter(image["bytes"] for image in table["image"])


def test_held_out_images_are_training_images_that_are_no_longer_trained_on(source):
    divided = source.hold_out(0.2, seed=3)
    assert encoded(divided.train) + encoded(divided.test) == encoded(source.train)
    assert encoded(divided.train).keys().isdisjoint(encoded(divided.test))
    assert encoded(divided.test).keys().isdisjoint(encoded(source.test))
    whole, held, left = (torch.as_tensor(s).bincount() for s in
                         (source.labels("train"), divided.labels("test"), divided.labels("train")))  # fmt: skip
    assert held.tolist() == [round(0.2 * count) for count in whole.tolist()]
    assert (held + left).tolist() == whole.tolist()
    row = divided.image("test", 0)
    assert row.tobytes() in {source.image("train", i).tobytes() for i in range(len(source.train))}


def test_the_same_seed_holds_out_the_same_images_under_another_fingerprint(source):
    first, again, other = (source.hold_out(0.1, seed) for seed in (0, 0, 1))
    assert first.test["image"] == again.test["image"] and first.fingerprint == again.fingerprint
    assert encoded(first.test) != encoded(other.test)
    prints = {s.fingerprint for s in (source, first, other, source.hold_out(0.2, 0), first.hold_out(0.1, 0))}
    assert len(prints) == 5


@pytest.mark.parametrize(("num", "fraction", "expected"), [(100, 0.1, 10), (2, 0.01, 1), (3, 0.99, 2), (10, 0.55, 6)])
def test_at_least_one_image_is_held_out_and_one_is_left(num, fraction, expected):
    assert num_held_out(num, fraction) == expected


def test_a_class_of_one_image_cannot_be_divided(source):
    rows = [int((source.labels("train") == label).argmax()) for label in range(10)]
    with pytest.raises(SourceError, match=r"class '0' has 1 training images, expected at least 2 to hold some out"):
        replace(source, train=source.train.select(rows)).hold_out(0.1, 0)


def names(committee):
    return "-".join(POOL[member] for member, _ in committee)


@pytest.mark.parametrize(("members", "expected"), [((0, 3), (0.92, 0.08)), ((0, 4), (0.96, 0.04))])
def test_weights_of_a_committee_are_those_of_the_released_constants(members, expected):
    committee = CVDD().committee(POOL_PAIRS.index(members), IMAGENET)
    assert [member for member, _ in committee] == list(members)
    assert [round(weight, 2) for _, weight in committee] == list(expected)


POOL_PAIRS = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]


def test_ten_pairs_take_their_turn_and_random_ones_follow():
    pairs = [names(CVDD().committee(index, IMAGENET)) for index in range(10)]
    assert pairs == ["R18-R50", "R18-SV2", "R18-MBV2", "R18-DN121", "R50-SV2", "R50-MBV2", "R50-DN121", "SV2-MBV2",
                     "SV2-DN121", "MBV2-DN121"]  # fmt: skip
    later = [names(CVDD().committee(index, IMAGENET)) for index in range(10, 110)]
    assert later == [names(CVDD().committee(index, IMAGENET)) for index in range(10, 110)]
    assert set(later) == set(pairs) and later[:10] != pairs
    assert min(Counter(later).values()) >= 3  # of 10 on average: 3 or less has a chance below 1 % for each pair


def test_committees_of_any_size_fit_any_pool():
    votes = torch.tensor([0.5, 0.7, 0.7])
    three = CVDD(committee_size=3).committee(5, votes)
    assert [member for member, _ in three] == [0, 1, 2]
    assert math.fsum(weight for _, weight in three) == pytest.approx(1.0, abs=1e-6)
    assert CVDD(committee_size=1).committee(1, votes) == [(1, 1.0)]
    largest = CVDD(committees="largest")
    assert [largest.committee(index, votes) for index in (0, 7)] == [[(1, 0.5), (2, 0.5)]] * 2
    assert names(largest.committee(0, IMAGENET)) == "R18-SV2"
    drawn = {names(CVDD(committees="random").committee(index, IMAGENET)) for index in range(100)}
    assert len(drawn) == 10


def plain_committee(source, pair, start, labels, iterations, config):
    """sum_j w_j (CE_j + r_bn D_j) of one view, with Adam from its formula, all in float64."""
    low, high = (bound.double() for bound in valid_range(source, CPU))
    images = start.double()
    momentum, square = torch.zeros_like(images), torch.zeros_like(images)
    views = BatchViews.draw(
        iterations, 16, config.crop_area, config.flip_probability, config.max_roll, generator(0, "test")
    )
    rows, columns = views.matrices(16, torch.float32)
    for t in range(iterations):
        images = images.detach().requires_grad_()
        loss = torch.zeros((), dtype=torch.float64)
        for weight, module in pair:
            seen = []
            layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
            hooks = [layer.register_forward_pre_hook(lambda _, x, to=seen: to.append(x[0])) for layer in layers]
            logits = module(apply_view(images, rows[t].double(), columns[t].double()))
            for hook in hooks:
                hook.remove()
            gaps = [
                (x.mean((0, 2, 3)) - layer.running_mean).norm()
                + (x.var((0, 2, 3), correction=0) - layer.running_var).norm()
                for layer, x in zip(layers, seen, strict=True)
            ]
            distance = 10.0 * gaps[0] + sum(gaps[1:])
            loss = loss + weight * (F.cross_entropy(logits, labels) + config.statistics_weight * distance)
        (grad,) = torch.autograd.grad(loss, images)
        lr = config.lr * 0.5 * (1 + math.cos(math.pi * t / iterations))
        momentum, square = 0.5 * momentum + 0.5 * grad, 0.9 * square + 0.1 * grad**2
        update = (momentum / (1 - 0.5 ** (t + 1))) / ((square / (1 - 0.9 ** (t + 1))).sqrt() + 1e-8)
        images = torch.maximum(torch.minimum(images.detach() - lr * update, high), low)
    return images


def test_a_committee_recovers_as_a_plain_loop_over_its_members(source, teachers):
    """Image index 1 of a pool of three: the first and the third teacher, whose votes 40 and 44 weigh e^8 : e^8.8."""
    config = RecoverConfig(lr=0.05, flip_probability=0.5, max_roll=2, crop_area=(0.3, 1.0))
    rows = [int((source.labels("train") == label).argmax()) for label in range(10)]
    start, labels = source.normalise(source.pixels("train", rows)), torch.arange(10)
    with open_matchers(teachers, config, CPU) as matchers:
        recovery = Recovery(matchers, labels, source, config, 6, generator(0, "test"), lambda done, losses: None,
                            ShardContext(torch.ones_like(labels), votes=[0.4, 0.9, 0.44]))  # fmt: skip
        recovered = CVDD(iterations=6).recover(start, recovery)
    first = 1.0 / (1.0 + math.exp(0.8))
    pair = [(first, teachers[0].module.double()), (1.0 - first, teachers[2].module.double())]
    expected = plain_committee(source, pair, start, labels, 6, config)
    for teacher in teachers:
        teacher.module.float()
    torch.testing.assert_close(recovered.double(), expected, rtol=0, atol=2e-4)


def context_of(source, teachers, work):
    longer = ("--method.vote_ipc=2", "--method.vote_epochs=8", "--patches.pool=4", "--recover.batch_size=10")
    words = [*RECIPE, *CV_DD, *longer, f"--output={work / 'run'}"]
    run, state = resolve(parse_run(words)), PartialState(cpu=True)
    return VoteContext(run, source, teachers, work / "votes", state, Reporter(quiet=True))


def test_votes_are_measured_once_for_each_teacher_and_look_at_no_test_image(source, teachers, tmp_path):
    pair = teachers[:2]
    votes = [teacher.vote for teacher in measure_votes(context_of(source, pair, tmp_path))]
    assert all(vote is not None and 0.0 <= vote <= 1.0 for vote in votes) and votes[0] != votes[1]
    left = sorted((tmp_path / "votes").iterdir())
    assert [path.suffix for path in left] == [".json"] * 2, "no more than a small file is left of each"
    held = json.loads(left[0].read_text())
    assert held["num_images"] == len(source.hold_out(0.1, 0).test) and held["sha256"] == pair[0].sha256
    kept = [path.stat().st_mtime_ns for path in left]
    blind = replace(source, test=None)
    again = measure_votes(context_of(blind, [*reversed(pair), pair[0]], tmp_path))
    assert [teacher.vote for teacher in again] == [votes[1], votes[0], votes[0]]
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "votes").iterdir())] == kept
    elsewhere = measure_votes(context_of(blind, [pair[1]], tmp_path / "elsewhere"))
    assert elsewhere[0].vote == votes[1], "measured anew, without test images and without the other teacher"


def test_labels_by_votes_ask_for_them_whatever_the_method(tmp_path):
    words = [*RECIPE, "--method=fadrm_plus", TEACHERS, f"--output={tmp_path / 'run'}"]
    mean, votes = parse_run(words), parse_run([*words, "--relabel.ensemble=votes"])
    assert not needs_votes(mean) and needs_votes(votes) and needs_votes(parse_run([*words, *CV_DD]))
    check_run(votes)
    with pytest.raises(
        SourceError, match=r"class '\d' .* at least 40 for 10 images per class; set --relabel\.ensemble"
    ):
        run, source = check_run(replace(votes, patches=replace(votes.patches, grid=2)))
        check_votes(run, source.hold_out(0.7, 0))


def test_votes_that_are_given_are_not_measured(source, teachers, tmp_path):
    context = context_of(source, teachers[:2], tmp_path)
    given = replace(context.run, method=replace(context.run.method, votes=(63.0, 65.3)))
    voted = measure_votes(replace(context, run=given))
    assert [teacher.vote for teacher in voted] == pytest.approx([0.63, 0.653]) and not (tmp_path / "votes").exists()
    assert voted[0].module is teachers[0].module


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--teachers.names=[squeeze/resnet10_narrow]"], "method cv_dd needs at least 2 teachers"),
        (["--method.committee_size=3"], r"method\.committee_size is 3, expected at most 2, the number of"),
        (["--recover.layout=class_major"], r"recover\.layout is 'class_major', and each image index has a committee"),
        (["--method.votes=[60, 61, 62]"], r"method\.votes has 3 votes, expected one for each of the 2 teachers"),
        (["--method.vote_ipc=120"], r"class '\d' has \d+ training images; with a fraction of 0\.1 held out.*"
                                    r"at least 120 for 120 images per class; lower --method\.vote_ipc"),
        (["--method.vote_student=timm/resnet19"], "resnet19"),
    ],
)  # fmt: skip
def test_what_cannot_vote_is_refused_before_any_work(words, message, tmp_path):
    run = parse_run([*RECIPE, *CV_DD, *words, f"--output={tmp_path / 'run'}"])
    with pytest.raises(FadrmError, match=message):
        check_run(run)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"votes": (0.63, 0.65)}, r"method\.votes must be accuracies in per cent, such as 63\.0"),
        ({"votes": (63.0, 101.0)}, r"method\.votes"),
        ({"votes": ()}, r"method\.votes"),
        ({"held_out": 0.0}, r"method\.held_out must be a fraction between 0 and 1, got 0\.0"),
        ({"vote_ipc": 0}, r"method\.vote_ipc"),
        ({"vote_iterations": 0}, r"method\.vote_iterations"),
        ({"vote_epochs": 0}, r"method\.vote_epochs"),
    ],
)
def test_settings_of_voting_out_of_range_are_named(settings, message):
    for kind in (VoteConfig, CVDD):
        with pytest.raises(ConfigError, match=message):
            kind(**settings)


@pytest.mark.parametrize(("settings", "message"), [({"committee_size": 0}, r"committee_size"),
                                                   ({"temperature": 0.0}, r"temperature"),
                                                   ({"iterations": 0}, r"iterations")])  # fmt: skip
def test_settings_of_a_committee_out_of_range_are_named(settings, message):
    with pytest.raises(ConfigError, match=rf"method\.{message} must be"):
        CVDD(**settings)


def test_published_settings():
    run = parse_run(["--method=cv_dd", "--source.name=ILSVRC/imagenet-1k", "--ipc=1"])
    method = run.method
    assert (method.committees, method.vote_ipc, method.iterations, method.committee_size) == ("largest", 10, 4000, 2)
    assert [name.rpartition("/")[2].partition(".")[0] for name in run.teachers.names] == [
        "resnet18", "resnet50", "shufflenet_v2_x1_0", "mobilenet_v2", "densenet121"]  # fmt: skip
    assert (run.relabel.ensemble, run.relabel.vote_temperature, run.relabel.batch_size) == ("votes", 10.0, 16)
    small = parse_run(["--method=cv_dd", "--source.name=uoft-cs/cifar10", "--ipc=10"])
    assert (small.method.committees, small.method.vote_ipc, small.relabel.batch_size) == ("in_turn", 50, 16)
    assert small.teachers.names[2] == "squeeze/shufflenet_v2_x0_5"
    one = parse_run(["--method=cv_dd", "--source.name=uoft-cs/cifar10", "--ipc=1"])
    assert one.relabel.batch_size == 10
    assert replace(one.student, name="") == replace(small.student, name="") and one.student.name == "cv_dd"


@pytest.fixture(scope="module")
def committee_run(tmp_path_factory):
    """A run of two teachers that voted, undisturbed."""
    run = tmp_path_factory.mktemp("committee") / "run"
    assert main(["distill", *RECIPE, *CV_DD, "--output", str(run)]) == 0
    return run


def records(run):
    return {path.name: path.stat().st_mtime_ns for path in run.with_name("votes").glob("*.json")}


def test_an_interrupted_vote_goes_on_to_the_same_artifact(committee_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(committee_run.with_name("teachers"), tmp_path / "teachers")
    command = ["distill", *RECIPE, *CV_DD, "--output", str(run)]
    assert run_and_die(command, f"*/votes/*-{12 * '[0-9a-f]'}.json", 2) == -9
    first = records(run)
    assert len(first) == 1
    assert main(command) == 0
    assert first.items() < records(run).items() and len(records(run)) == 2
    assert lasting(run) == lasting(committee_run)


def test_an_artifact_says_what_its_teachers_were_worth_and_its_baseline_believes_it(committee_run):
    kept = records(committee_run)
    folder = committee_run.with_name("votes")
    votes = [json.loads((folder / name).read_text())["vote"] for name in sorted(kept)]
    recorded = {teacher.name: teacher.vote for teacher in read_manifest(committee_run).teachers}
    assert recorded == dict(zip(("squeeze/convnet3_narrow", "squeeze/resnet10_narrow"), votes, strict=True))
    assert main(["verify", str(committee_run)]) == 0
    assert main(["baselines", str(committee_run), "--rows=[random_real]"]) == 0
    baseline = committee_run.with_name("run.random_real")
    assert [teacher.vote for teacher in read_manifest(baseline).teachers] == list(recorded.values())
    assert records(committee_run) == kept, "votes are the manifest's, and not measured again"
