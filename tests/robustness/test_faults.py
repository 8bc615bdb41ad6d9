"""What goes wrong with disks, teachers, clocks, processes and memory, made to happen for real.

Each fault is reported with its remedy, and then the same command ends with the artifact of an undisturbed run.
`FAULTS=all`, as `make soak` sets it, tries every moment instead of one of each stage.
"""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.faults import (
    FILLER,
    Begun,
    Locked,
    Signalled,
    classify_in_halves,
    end_orderly,
    finished_files,
    obey_modes,
    small_disk,
    stop_itself,
    wide_network,
    write_small_files,
)
from fixtures.limited import answer
from fixtures.mistakes import names_all, refused
from fixtures.runs import (
    FADRM,
    LABELS,
    RECIPE,
    ROOT,
    copy_run,
    identities,
    lasting,
    run_and_die,
    work_of,
)
from fixtures.small import digits, small_teacher
from PIL import Image
from safetensors.torch import load_file, save_file

from fadrm_hf.artifact.reading import read_images
from fadrm_hf.cli import main
from fadrm_hf.config import PatchConfig, RecoverConfig, RelabelConfig, SourceConfig
from fadrm_hf.data.sources import load_source
from fadrm_hf.errors import ConfigError, TeacherError
from fadrm_hf.labels.relabel import Labeller, label_epoch
from fadrm_hf.recovery.matcher import open_matchers
from fadrm_hf.recovery.patches.starting import starting_images
from fadrm_hf.recovery.recover import Recovery
from fadrm_hf.runtime.locks import Locks
from fadrm_hf.runtime.out_of_memory import groups_in_halves, in_halves
from fadrm_hf.runtime.randomness import generator

CPU = torch.device("cpu")
EVERYTHING = os.environ.get("FAULTS") == "all"
IN_PLACE = {  # by stage, the files that are put in place
    "teachers": "*checkpoint.safetensors",
    "patches": "*/patches/*.safetensors",
    "recover": "*/recovered/*.safetensors",
    "relabel": "*/soft_labels/*.safetensors",
    "package": f"*/{LABELS}",
}


def distil(folder: Path, *more: str) -> list[str]:
    """The command of the run that `finished` is, elsewhere."""
    return ["distill", *RECIPE, *FADRM, *more, "--output", str(folder / "run")]


def with_teachers(finished: Path, folder: Path) -> Path:
    """A folder in which the run's teacher is there already."""
    shutil.copytree(finished.with_name("teachers"), folder / "teachers")
    return folder


def message_of(capfd: pytest.CaptureFixture[str]) -> str:
    """What processes told, as one line; none ended by an error that nobody foresaw."""
    shown = " ".join(capfd.readouterr().err.split())
    assert "Traceback" not in shown, shown
    return shown


def flip(path: Path, position: int = -1) -> None:
    """One bit of one byte."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


# Disks


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.fault("distill", "full disk")
def test_a_disk_that_is_too_small_is_refused(place, capsys):
    with small_disk(place / "disk", "size=1m"):
        message = refused(capsys, place / "disk", *distil(Path("disk")))
    names_all(message, "disk/run needs about", "MB are free", "--output", "--relabel.epochs")


@pytest.mark.fault("distill", "read-only")
def test_a_disk_that_cannot_be_written_to_is_refused(place, capsys):
    with small_disk(place / "disk", "size=200m"):
        subprocess.run(["mount", "-o", "remount,ro", "disk"], check=True)
        names_all(refused(capsys, place / "disk", *distil(Path("disk"))), "disk cannot be written to", "--output")


FULL_AT = ["/teachers/", "/patches/", "/recovered/", "/soft_labels/", "/data/", "/README.md/"]


@pytest.mark.fault("distill", "full disk")
@pytest.mark.parametrize("moment", range(1, 50) if EVERYTHING else FULL_AT)
def test_a_disk_that_fills_up_loses_nothing(finished, place, capfd, moment):
    """Full to the last byte from some file on; with room again the same command ends as if nothing had been."""
    disk, command = place / "disk", distil(Path("disk"))
    with small_disk(disk, "size=80m"):
        if moment != "/teachers/":
            with_teachers(finished, disk)
        FILLER.watch(*(("", disk / "filler", moment) if EVERYTHING else (moment, disk / "filler")))
        code = main(command)
        if not FILLER.has_filled:  # there are fewer moments than that
            FILLER.watch("nowhere", disk / "filler")
            assert EVERYTHING and code == 0
            return
        assert code == 2
        message = message_of(capfd)
        names_all(message, "error: No space left on device at disk/", "is kept", "free some space", "same command")
        kept = identities(work_of(disk / "run"))
        assert EVERYTHING or bool(kept) == (moment not in ("/teachers/", "/patches/"))
        (disk / "filler").unlink()
        assert main(command) == 0
        assert kept.items() <= identities(work_of(disk / "run")).items()
        assert lasting(disk / "run") == lasting(finished)


@pytest.mark.skipif(sys.platform != "linux", reason="what lets root write everywhere is given up in Linux's way")
def test_files_that_may_not_be_so_large_are_named(finished, place, capfd):
    with Begun(distil(with_teachers(finished, place)), place / "said", first=write_small_files) as run:
        assert run.exit_code() == 2
    names_all(run.said, "File too large at", "patches/00000-00003.safetensors", "ulimit -f", "same command")


@pytest.mark.fault("distill", "read-only")
@pytest.mark.skipif(sys.platform != "linux", reason="what lets root write everywhere is given up in Linux's way")
def test_a_folder_of_another_is_refused_before_anything_is_done(place, capfd):
    (place / "theirs").mkdir(mode=0o500)
    with Begun(distil(place / "theirs"), place / "said", first=obey_modes) as run:
        assert run.exit_code() == 2
    names_all(run.said, "theirs cannot be written to", "--output")
    assert sorted(place.rglob("*")) == [place / "said", place / "theirs"]


@pytest.mark.fault("distill", "read-only")
@pytest.mark.skipif(sys.platform != "linux", reason="what lets root write everywhere is given up in Linux's way")
@pytest.mark.parametrize("folder", ["run.work/recovered", *(["run/soft_labels"] if EVERYTHING else [])])
def test_a_folder_that_becomes_read_only_is_named_and_the_run_goes_on_when_it_is_not(finished, place, folder):
    command = distil(with_teachers(finished, place))
    with Begun(command, place / "said", f"*/{folder}/*", Locked(place / folder)) as run:
        assert run.exit_code() == 2
    kept = identities(place / "run.work")
    names_all(run.said, f"Permission denied at {place / folder}/", "make that folder writable", "same command")
    (place / folder).chmod(0o700)
    assert main(command) == 0
    assert kept and kept.items() <= identities(place / "run.work").items()
    assert lasting(place / "run") == lasting(finished)


# Damage


@pytest.mark.fault("distill", "damaged file")
def test_whatever_a_disk_has_made_of_a_shard_it_is_made_again(finished, tmp_path, capfd, record_property):
    """Emptied, another shard's content, values of another shape: in each folder of shards."""
    run = copy_run(finished, tmp_path)
    work = work_of(run)
    kept = identities(work)
    changed = set()
    for stage in ("patches", "recovered", "soft_labels"):
        first, second, third, *_ = sorted((work / stage).iterdir())
        first.write_bytes(b"")
        shutil.copy(sorted((work / stage).iterdir())[-1], second)
        if stage != "patches":  # of which there are three
            save_file({name: values[1:].clone() for name, values in load_file(third).items()}, third)
        changed |= {path.relative_to(work).as_posix() for path in (first, second, third)[: 3 - (stage == "patches")]}
    (work / "costs.json").write_bytes(b"")
    record_property("cases", len(changed) + 1)
    (run / "fadrm.json").unlink()
    assert main(distil(tmp_path)) == 0
    message = message_of(capfd)
    assert all(f"{name} is damaged and is regenerated" in message for name in changed)
    assert {name for name, identity in identities(work).items() if identity != kept[name]} == changed
    assert lasting(run) == lasting(finished)


GATHERED = {
    "statistics": (("--method=edc", "--method.iterations=4"), "statistics/*.work/*.safetensors"),
    "pools": ((*FADRM, "--method.retrieval=0.1"), "run.work/pools/*.safetensors"),
}


@pytest.mark.parametrize(("method", "pattern"), list(GATHERED.values())[: 2 if EVERYTHING else 1])
def test_what_some_methods_gather_is_found_damaged_too(finished, tmp_path, method, pattern):
    """A process is killed after two units; a bit of one of them changes before the next start."""
    undisturbed, disturbed = (with_teachers(finished, tmp_path / name) for name in ("undisturbed", "disturbed"))
    commands = [["distill", *RECIPE, *method, "--output", str(f / "run")] for f in (undisturbed, disturbed)]
    assert main(commands[0]) == 0
    assert run_and_die(commands[1], f"*/{pattern}", 3) == -9
    first, _ = sorted(disturbed.glob(pattern))
    flip(first)
    assert main(commands[1]) == 0
    assert lasting(disturbed / "run") == lasting(undisturbed / "run")


def test_a_folder_in_the_place_of_a_shard_is_left_alone(finished, tmp_path, capsys):
    run = copy_run(finished, tmp_path)
    (run / "fadrm.json").unlink()
    shard = work_of(run) / "soft_labels/epoch00001.safetensors"
    shard.unlink()
    (shard / "notes").mkdir(parents=True)
    names_all(refused(capsys, tmp_path, *distil(tmp_path)), str(shard), "is a folder", "remove it")
    shutil.rmtree(shard)
    assert main(distil(tmp_path)) == 0
    assert lasting(run) == lasting(finished)


def test_a_damaged_checkpoint_of_a_teacher_is_refused(finished, tmp_path, capsys):
    assert run_and_die(distil(tmp_path), IN_PLACE["teachers"], 2) == -9
    (checkpoint,) = tmp_path.glob("teachers/.*.work/checkpoint.safetensors")
    flip(checkpoint)
    for _ in ("flipped", "a folder"):
        capsys.readouterr()
        assert main(distil(tmp_path)) == 2
        names_all(message_of(capsys), str(checkpoint), "is damaged", "delete it to begin this training anew")
        if checkpoint.is_file():
            checkpoint.unlink()
            checkpoint.mkdir()
    checkpoint.rmdir()
    assert main(distil(tmp_path)) == 0
    assert lasting(tmp_path / "run") == lasting(finished)


@pytest.mark.parametrize(
    "damage", [flip, lambda path: path.write_bytes(b""), Path.unlink], ids=["flip", "empty", "no"]
)
def test_damaged_weights_of_a_trained_teacher_are_refused(finished, tmp_path, capsys, damage):
    (weights,) = with_teachers(finished, tmp_path).glob("teachers/*/model.safetensors")
    damage(weights)
    names_all(refused(capsys, tmp_path, *distil(tmp_path)), str(weights), "is damaged", "is trained again")


# Source rows


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory):
    """More photographs than are decoded before a run, 68 MB of them; a sound test split."""
    folder, rng = tmp_path_factory.mktemp("many") / "photos", np.random.default_rng(0)
    for split, num in (("train", 520), ("test", 5)):
        for label in ("ant", "bee"):
            (folder / split / label).mkdir(parents=True)
            for index in range(num):
                pixels = rng.integers(0, 256, (148, 150, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{index:04d}.bmp")
    return folder


def test_a_row_that_only_the_run_itself_decodes_is_named(many_photos, tmp_path, capsys):
    """Of a large source a sample is decoded before a run; of the rest some are cut short, and training finds one."""
    decoded = set(torch.randperm(1040, generator=generator(0, "source", "scan"))[:1000].tolist())
    damaged = sorted(set(range(1040)) - decoded)
    for row in damaged:
        path = many_photos / "train" / ("ant", "bee")[row // 520] / f"{row % 520:04d}.bmp"
        path.write_bytes(path.read_bytes()[:100])
    command = ["distill", *RECIPE, "--method=random_real", "--source.name", str(many_photos), "--ipc=400",
               "--squeeze.epochs=1", "--relabel.epochs=1", "--student.epochs=1", "--relabel.batch_size=100",
               "--output", str(tmp_path / "run")]  # fmt: skip
    assert main(command) == 2
    message = message_of(capsys)
    names_all(message, "split 'train', row ", ".bmp): image cannot be decoded", "--source.on_corrupt skip")
    assert int(message.split("row ")[1].split()[0]) in damaged
    assert not list(tmp_path.glob("teachers/*.safetensors")), "it was the training that met it"
    if EVERYTHING:
        assert main([*command, "--source.on_corrupt=skip"]) == 0
        assert len(read_images(tmp_path / "run")[0]) == 800
    assert len(load_source(SourceConfig(name=str(many_photos), size=16, on_corrupt="skip")).train) == 1000


# Teachers that give no numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_teacher_with_weights_that_are_no_numbers_is_refused_by_name(finished, place, capsys, value):
    (made,) = (finished / "teachers").iterdir()
    shutil.copytree(made, place / "teacher")
    weights = load_file(made / "model.safetensors")
    weights["fc.bias"][3] = value
    save_file(weights, place / "teacher/model.safetensors", {"format": "pt"})
    message = refused(capsys, place, *distil(place, "--teachers.names=[timm/local-dir:teacher]"))
    names_all(message, "'timm/local-dir:teacher'", "are not finite (fc.bias)", "--teachers.names")


@pytest.fixture(scope="module")
def overflowing():
    """A source, and a teacher whose last layer overflows for most of its images, but not for a blank one."""
    source = digits()
    teacher = small_teacher(source)
    with torch.no_grad():
        teacher.module.head.weight *= 3e38 / teacher.module.head.weight.abs().max()
    return source, teacher


@pytest.mark.parametrize("kind", ["patches", "el2n"])
def test_a_teacher_that_overflows_ranks_nothing(overflowing, kind):
    source, teacher = overflowing
    with pytest.raises(
        TeacherError, match=r"'test/0' gives logits of .* of class 3 that are not finite .*--teachers\."
    ):
        starting_images(kind, source, teacher, range(3, 4), 2, PatchConfig(pool=8), 0, CPU)


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_a_teacher_that_overflows_labels_nothing(overflowing, batch_statistics):
    source, teacher = overflowing
    config = RelabelConfig(epochs=1, batch_size=10, batch_statistics=batch_statistics, flip_probability=0.5)
    labeller = Labeller([small_teacher(source, 1), teacher], config, source.config.mean, source.config.std, CPU)
    with pytest.raises(TeacherError, match="'test/0' gives logits of views of distilled images that are not finite"):
        label_epoch(source.pixels("train", range(20)), labeller, config, 0, 0)


def recover(source, teachers, iterations, config):
    """The iterations that were told of; images are the first ten."""
    images, labels = source.normalise(source.pixels("train", range(10))), torch.arange(10)
    seen: list[int] = []
    with open_matchers(teachers, config, CPU) as matchers:
        report = lambda done, losses: seen.append(done)  # noqa: E731
        recovery = Recovery(matchers, labels, source, config, iterations, generator(0, "test"), report)
        try:
            recovery.optimise(images, iterations)
        except (ConfigError, TeacherError) as error:
            return sum(seen), error
    return sum(seen), None


RECOVER = RecoverConfig(flip_probability=0.5, max_roll=2, crop_area=(0.3, 1.0))


@pytest.mark.parametrize("form", ["plain", "eager"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_teacher_that_overflows_is_named_when_recovery_has_hardly_begun(overflowing, form, precision):
    source, teacher = overflowing
    config = replace(RECOVER, form=form, precision=precision)
    told, error = recover(source, [small_teacher(source, 1), teacher], 1000, config)
    assert told <= 50
    assert isinstance(error, TeacherError) and f"'test/0' gives logits, in {precision}, that are not" in str(error)


@pytest.mark.parametrize(("iterations", "most"), [(1000, 50), (6, 0)])
def test_gradients_beyond_fp16_at_every_scale_end_the_recovery(iterations, most):
    """The weight of the statistics makes gradients that no scale of the loss brings into the range of fp16."""
    source = digits()
    config = replace(RECOVER, precision="fp16", statistics_weight=1e30)
    told, error = recover(source, [small_teacher(source)], iterations, config)
    assert told <= most
    assert isinstance(error, ConfigError) and "beyond the range of fp16" in str(error)
    assert "--recover.precision fp32" in str(error) and "--recover.lr" in str(error)
    assert recover(source, [small_teacher(source)], 6, replace(RECOVER, precision="fp16")) == (6, None)


# Clocks


def test_files_from_the_past_and_the_future_are_neither_made_again_nor_waited_for(finished, tmp_path):
    run = copy_run(finished, tmp_path)
    work, before = work_of(run), identities(work_of(run))
    missing = work / "soft_labels/epoch00001.safetensors"
    missing.unlink()
    (run / "fadrm.json").unlink()
    for index, path in enumerate(sorted(tmp_path.rglob("*"))):
        os.utime(path, (0, 0) if index % 2 else (4e9, 4e9))  # 1970 and 2096
    assert main(distil(tmp_path)) == 0
    kept = {name for name, (inode, _) in identities(work).items() if inode == before[name][0]}
    assert before.keys() - kept <= {"soft_labels/epoch00001.safetensors"}
    assert all(cost["seconds"] >= 0 for cost in json.loads((work / "costs.json").read_text()).values())
    assert lasting(run) == lasting(finished)


def test_a_clock_that_jumps_takes_nobody_for_dead(tmp_path):
    """The times of a claim go to and fro between 1970 and 2096 for eight times as long as patience lasts, by the clock
    of a process that waits; then they stand still."""
    taken, said = [], []
    holder = Locks(tmp_path, said.append, said.append).take("stage", {"a": 1}, lambda name: bool(taken))
    assert next(holder) == 1
    command = [sys.executable, "-c", WAITING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as waiting:
        try:
            for beat in range(20):
                assert waiting.stdout.readline() == "waits\n"
                os.utime(tmp_path / "stage/a.lock", (beat, beat) if beat % 2 else (4e9 + beat, 4e9 + beat))
                print(file=waiting.stdin, flush=True)
            while (heard := waiting.stdout.readline()) == "waits\n":
                print(file=waiting.stdin, flush=True)
        finally:
            waiting.kill()
    assert "no progress on a for 0.5 seconds" in heard


WAITING = """
import sys
from pathlib import Path
from types import SimpleNamespace
from fadrm_hf.runtime import locks

now = 0.0

def sleep(seconds):
    global now
    tell("waits")
    sys.stdin.readline()
    now += seconds

tell = lambda line: print(line, flush=True)
locks.time = SimpleNamespace(monotonic=lambda: now, sleep=sleep)
for unit in locks.Locks(Path(sys.argv[1]), tell, tell, patience=0.5).take("stage", {"a": 1}, lambda name: False):
    tell("took it over")
"""


def test_nothing_asks_for_the_time_of_day():
    asked = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
    for path in (ROOT / "fadrm_hf").rglob("*.py"):
        called = {
            ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        }
        assert not {name for name in called if name.removeprefix("datetime.") in asked}, path


# Processes that hang


def test_a_process_may_hang_in_every_stage(finished, tmp_path, capfd):
    """One stops in each stage, the next takes over what it held; when they wake up again nothing changes."""
    run, units = with_teachers(finished, tmp_path) / "run", ("00000-00003", "ipc00000-00000-00003", "epoch00000")
    little = {"FADRM_HF_PATIENCE": "0.3"}
    with ExitStack() as stack:
        hung = []
        for number, stage in enumerate(("patches", "recover", "relabel", "package")):
            begun = Begun(distil(tmp_path), tmp_path / f"said{number}", IN_PLACE[stage], stop_itself, **little)
            hung.append(stack.enter_context(begun))
            hung[-1].wait_until_stopped()
        last = stack.enter_context(Begun(distil(tmp_path), tmp_path / "said", **little))
        assert last.exit_code() == 0
        assert lasting(run) == lasting(finished)
        for taker, unit in zip((*hung[1:], last), (*units, "artifact"), strict=True):
            assert f"no progress on {unit} for 0.3 seconds; taking it over" in taker.said
        for process in hung:
            process.send(signal.SIGCONT)
            assert process.exit_code() == 0, process.said
        assert lasting(run) == lasting(finished)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan"])
def test_a_patience_that_is_none_is_refused(finished, place, monkeypatch, capsys, text):
    monkeypatch.setenv("FADRM_HF_PATIENCE", text)
    names_all(refused(capsys, place, *distil(place)), "FADRM_HF_PATIENCE", repr(text), "seconds above 0")


# Memory


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_a_batch_that_does_not_fit_is_halved_until_it_does():
    """64 images with feature maps of 134 MB, twice over, in a process that may take 200 MB more."""
    logits, attempts = answer(200, classify_in_halves, 64)
    assert attempts[0] == 64 and min(attempts) < 64
    expected, at_once = classify_in_halves(64)
    assert at_once == [64]
    torch.testing.assert_close(torch.tensor(logits), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_images_that_are_seen_together_stay_together_when_memory_lacks():
    """Of groups of 3, 1, 4 and 2 images at most 4 fit."""
    passes = []

    def centre(images, sizes):
        if len(images) > 4:
            raise MemoryError
        passes.append(list(sizes))
        return torch.cat([group - group.mean() for group in images.split(list(sizes))])

    images = torch.arange(10.0) ** 2
    found = groups_in_halves(centre, images, [3, 1, 4, 2])
    assert passes == [[3, 1], [4], [2]]
    assert torch.equal(found, torch.cat([group - group.mean() for group in images.split([3, 1, 4, 2])]))
    with pytest.raises(MemoryError):
        groups_in_halves(centre, images, [5, 5])


def test_what_is_no_lack_of_memory_is_not_tried_again():
    attempts = []

    def fail(batch):
        attempts.append(len(batch))
        return wide_network()(batch)

    with pytest.raises(RuntimeError, match="channels"):
        in_halves(fail, torch.zeros(4, 5, 8, 8))
    assert attempts == [4]


# Ctrl-C, and the signal of schedulers


def test_whoever_is_asked_to_end_ends_at_once_and_says_how_to_go_on(finished, tmp_path, capfd):
    """In each stage, by Ctrl-C and by SIGTERM in turn; the stages of one run one after the other.

    At once: the first file of the stage is about to be put in place, and neither it nor any other is from then on.
    """
    told = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}
    kept = {}
    for index, stage in enumerate(IN_PLACE):
        for number in list(told) if EVERYTHING else [list(told)[index % 2]]:
            note = tmp_path / "note"
            happen = Signalled(number, tmp_path, note)
            with Begun(distil(tmp_path), tmp_path / "said", IN_PLACE[stage], happen, end_orderly) as run:
                assert run.exit_code() == 128 + number
            assert {str(path) for path in finished_files(tmp_path)} <= {*note.read_text().splitlines()}
            assert run.said.endswith(f"error: {told[number]}; run the same command again to resume")
            assert kept.items() <= identities(tmp_path / "run.work").items()
            kept = identities(tmp_path / "run.work")
            assert not list(tmp_path.rglob("*.tmp"))
    assert main(distil(tmp_path)) == 0
    assert lasting(tmp_path / "run") == lasting(finished)


def test_a_process_that_cannot_be_interrupted_ends_all_the_same(finished, tmp_path, capfd):
    """One of two processes trains the teacher, the other waits for it outside of Python; both are told to end."""
    port = str(29600 + os.getpid() % 300)
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
             "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    command = distil(tmp_path, "--squeeze.epochs=500")
    ranks = [Begun(command, tmp_path / f"said{rank}", **world, RANK=rank, LOCAL_RANK=rank) for rank in "01"]
    with ranks[0] as trains, ranks[1] as waits:
        while not list(tmp_path.glob("teachers/.*.work/checkpoint.safetensors")):
            assert trains.process.exitcode is None, trains.said
            time.sleep(0.02)
        waits.send(signal.SIGTERM)
        assert waits.exit_code() == 128 + signal.SIGTERM, waits.said
        assert trains.process.exitcode is None, "it was not waited for"
        trains.send(signal.SIGINT)
        assert trains.exit_code() == 128 + signal.SIGINT, trains.said
    assert not list(tmp_path.glob("teachers/*/model.safetensors")), "of its 500 epochs, most were still to come"
    assert "ended by SIGTERM; run the same" in waits.said and "interrupted; run the same" in trains.said


@pytest.mark.skipif(not EVERYTHING, reason="a launcher takes long to start; FAULTS=all tries it")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_launch_is_ended_by_a_signal_and_goes_on(finished, tmp_path, number):
    command = [str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_processes", "2",
               "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
               "recipes/distill.py", *distil(tmp_path)[1:]]  # fmt: skip
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launched = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(tmp_path.glob("teachers/.*.work/checkpoint.safetensors")):
        assert launched.poll() is None
        time.sleep(0.02)
    os.killpg(launched.pid, number)
    errors = launched.communicate()[1]
    assert launched.returncode == 1  # the launcher's own: it passes signals on
    assert not (tmp_path / "run").exists(), "which its processes did not wait for the end of"
    assert "run the same command again to resume" in errors
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert lasting(tmp_path / "run") == lasting(finished)
