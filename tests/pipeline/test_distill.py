"""The whole line: the same bits however the work was cut, and an artifact that plain `datasets` reads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from fixtures.runs import (
    EPOCHS,
    FADRM,
    IMAGES,
    LABELS,
    RECIPE,
    STUDENT,
    copy_artifact,
    copy_run,
    distill,
    files_of,
    identities,
    lasting,
    launch_on_two_machines,
    run_and_die,
    work_of,
)

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.artifact.reading import read_images
from fadrm_hf.cli import main
from fadrm_hf.config import SourceConfig
from fadrm_hf.data.sources import load_source
from fadrm_hf.errors import ArtifactError
from fadrm_hf.runtime.tensor_files import load_tensors

pytestmark = pytest.mark.numerical

ROOT = Path(__file__).parent.parent.parent


def image_bytes(run):
    return [image["bytes"] for image in pq.read_table(run / IMAGES)["image"].to_pylist()]


def test_a_finished_run_holds_what_the_design_draws(finished):
    names = {
        name for name in files_of(finished) if not name.startswith("gallery/")
    }  # see tests/report/test_gallery.py
    teacher = "teachers/" + read_manifest(finished).teachers[0].path.split("/")[1]
    tables_and_records = {IMAGES, LABELS, "README.md", "recipe.yaml", "fadrm.json"}
    pictures = {"assets/grid.png", "assets/recovery.png"}
    assert names == tables_and_records | pictures | {f"{teacher}/config.json", f"{teacher}/model.safetensors"}
    assert set(read_manifest(finished).stages) >= {"teachers", "patches", "recover", "relabel"}


def test_killed_in_every_stage_the_artifact_is_that_of_an_undisturbed_run(finished, tmp_path):
    """Signal 9 while a file is complete but not in place yet: in each stage, and twice while packaging."""
    run, work = tmp_path / "run", work_of(tmp_path / "run")
    command = ["distill", *RECIPE, *FADRM, "--output", str(run)]
    deaths = {
        "*checkpoint.safetensors": (2, "teachers/.*.work/*.safetensors"),
        "*/patches/*.safetensors": (2, "run.work/patches/0*"),
        "*/recovered/*.safetensors": (3, "run.work/recovered/ipc*"),
        "*/soft_labels/*.safetensors": (2, "run.work/soft_labels/epoch*"),
        f"*/{LABELS}": (1, f"run/{LABELS}"),
        "*/run/fadrm.json": (1, "run/fadrm.json"),
    }
    for pattern, (count, results) in deaths.items():
        before = identities(work)
        assert run_and_die(command, pattern, count) == -9
        assert len(list(tmp_path.glob(results))) == count - 1, "it died in the middle"
        assert before.items() <= identities(work).items(), "no finished shard is computed twice"
        with pytest.raises(ArtifactError, match="run the same `fadrm-hf distill` command again"):
            read_manifest(run)
    shards = identities(work)
    assert main(command) == 0
    assert identities(work) == shards
    assert lasting(run) == lasting(finished)
    assert main(["verify", str(run)]) == 0


def test_a_deleted_truncated_or_flipped_shard_is_made_again_alone_with_the_same_bits(finished, tmp_path, capsys):
    run = copy_run(finished, tmp_path)
    work = work_of(run)
    before, kept = files_of(work), identities(work)
    deleted = ["patches/00004-00007", "recovered/ipc00001-00008-00009", "soft_labels/epoch00002"]
    truncated = ["patches/00008-00009", "recovered/ipc00000-00000-00003", "soft_labels/epoch00001"]
    flipped = ["patches/00000-00003", "recovered/ipc00000-00008-00009", "soft_labels/epoch00000"]
    for name in deleted:
        (work / f"{name}.safetensors").unlink()
    for name in flipped:  # one bit of the last value
        content = bytearray((work / f"{name}.safetensors").read_bytes())
        content[-1] ^= 1
        (work / f"{name}.safetensors").write_bytes(content)
    for name in truncated:
        os.truncate(work / f"{name}.safetensors", 1000)
    (run / "fadrm.json").unlink()
    distill(run)
    after = files_of(work)
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    changed = {name for name, identity in identities(work).items() if identity != kept[name]}
    assert changed == {f"{name}.safetensors" for name in deleted + truncated + flipped}
    said = "".join(capsys.readouterr().err.split())
    assert all(f"{name}.safetensorsisdamagedandisregenerated" in said for name in flipped)
    assert lasting(run) == lasting(finished)


def test_two_machines_that_share_a_folder_make_the_artifact_of_one_process(finished, tmp_path):
    first, second = launch_on_two_machines("distill", *RECIPE, *FADRM, "--output", str(tmp_path / "run"))
    assert "run is finished" in first and "finished" not in second, "one process speaks"
    assert lasting(tmp_path / "run") == lasting(finished)
    assert read_manifest(tmp_path / "run").stages.keys() == read_manifest(finished).stages.keys()
    shards = files_of(work_of(finished))
    assert {name: files_of(work_of(tmp_path / "run"))[name] for name in identities(work_of(finished))} == {
        name: shards[name] for name in identities(work_of(finished))
    }


def test_processes_that_do_not_see_each_other_are_refused(tmp_path, monkeypatch, capsys):
    """What `accelerate launch --multi_gpu` without GPUs starts: two processes that both believe to be the only one."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["distill", *RECIPE, *FADRM, "--output", str(tmp_path / "run")]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "WORLD_SIZE is 2 but 1 process joined" in message and "ACCELERATE_USE_CPU=true" in message
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_left_as_it_is(finished):
    before = {path: path.stat().st_mtime_ns for path in [*finished.rglob("*"), *work_of(finished).rglob("*")]}
    distill(finished)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_recipe_is_the_run_and_repeats_it(finished, tmp_path):
    recipe = finished / "recipe.yaml"
    assert yaml.safe_load(recipe.read_text()) == read_manifest(finished).config
    again = copy_run(finished, tmp_path)
    assert main(["distill", "--config", str(recipe), "--output", str(again)]) == 0  # finished already: the same run
    assert main(["distill", "--config", str(recipe), "--seed=1", "--output", str(again)]) == 2


def test_the_tables_hold_what_the_shards_hold(finished):
    images, labels = read_images(finished)
    for index in range(2):
        for first, last in ((0, 3), (4, 7), (8, 9)):
            shard = load_tensors(work_of(finished) / f"recovered/ipc{index:05d}-{first:05d}-{last:05d}.safetensors")
            rows = slice(10 * index + first, 10 * index + last + 1)
            assert images[rows].equal(shard["images"]) and labels[rows].equal(shard["label"])
    table = pq.read_table(finished / LABELS)
    for epoch in range(EPOCHS):
        shard = load_tensors(work_of(finished) / f"soft_labels/epoch{epoch:05d}.safetensors")
        rows = table.slice(20 * epoch, 20)
        for name in ("epoch", "step", "image", "flip", "mix_image", "crop", "mix_crop", "mix_box", "logits"):
            assert np.array_equal(np.array(rows[name].to_pylist()), shard[name].numpy()), name


READER = """
import json, sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("fadrm_hf", "builders"):
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Forbidden())
from datasets import load_dataset

images = load_dataset(sys.argv[1], split="train")
views = load_dataset(sys.argv[1], "soft_labels", split="train")
one_per_class = images.filter(lambda index: index == 0, input_columns="ipc_index")
first_epoch = load_dataset(sys.argv[1], "soft_labels", split="train", filters=[("epoch", "==", 0)])
print(json.dumps({
    "names": images.features["label"].names,
    "labels": images["label"][:],
    "places": images["ipc_index"][:],
    "pictures": [[image.mode, image.size, image.tobytes().hex()] for image in images["image"]],
    "source_index": images["source_index"][:],
    "one_per_class": one_per_class["label"][:],
    "views": [len(views), len(first_epoch)],
    "columns": views.column_names,
    "view": views[20],
}))
"""


def test_plain_datasets_reads_the_artifact_where_fadrm_hf_cannot_be_imported(finished, tmp_path):
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", READER, finished], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert read["names"] == [str(digit) for digit in range(10)] == list(read_manifest(finished).classes.names)
    assert read["labels"] == [*range(10)] * 2
    assert read["places"] == [0] * 10 + [1] * 10
    assert read["one_per_class"] == [*range(10)]
    pixels = read_images(finished)[0].permute(0, 2, 3, 1)
    assert read["pictures"] == [["RGB", [16, 16], picture.numpy().tobytes().hex()] for picture in pixels]
    assert all(len(rows) == 1 for rows in read["source_index"])
    assert read["views"] == [20 * EPOCHS, 20]
    shard = load_tensors(work_of(finished) / "soft_labels/epoch00001.safetensors")
    assert set(read["columns"]) == set(shard)
    assert read["view"] == {name: column[0].tolist() for name, column in shard.items()}


def test_a_run_with_fewer_images_per_class_is_the_beginning_of_a_larger_one(finished, tmp_path):
    copy_run(finished, tmp_path)  # for its teacher
    assert image_bytes(distill(tmp_path / "ipc1", "--ipc=1")) == image_bytes(finished)[:10]


def test_fadrm_plus_from_end_to_end(finished, tmp_path, capsys):
    """Two teachers take turns, both travel with the artifact, and both are needed to make its labels again."""
    copy_run(finished, tmp_path)
    teachers = "--teachers.names=[squeeze/resnet10_narrow,squeeze/resnet18_narrow]"
    plus = distill(tmp_path / "plus", "--method=fadrm_plus", teachers, "--squeeze.epochs=1")
    manifest = read_manifest(plus)
    assert manifest.method == "fadrm_plus"
    assert [teacher.name for teacher in manifest.teachers] == ["squeeze/resnet10_narrow", "squeeze/resnet18_narrow"]
    assert all((plus / teacher.path / "model.safetensors").is_file() for teacher in manifest.teachers)
    assert main(["verify", str(plus), "--num_steps=20"]) == 0
    assert image_bytes(plus) != image_bytes(finished)
    assert main(["distill", *RECIPE, *FADRM, "--method=fadrm_plus", "--output", str(tmp_path / "one")]) == 2
    assert "needs at least 2 teachers" in " ".join(capsys.readouterr().err.split())


def flip_byte(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def verified(run, capsys):
    """Exit code and output of the program."""
    code = main(["verify", str(run)])
    return code, capsys.readouterr().out


def test_one_flipped_byte_in_any_file_of_a_real_artifact_is_found_and_named(finished, tmp_path, capsys):
    run = copy_artifact(finished, tmp_path)
    assert main(["train-student", str(run), "--student", STUDENT, "--num_seeds=1"]) == 0
    kinds = {Path(name).suffix for name in files_of(run)}
    page = {".html", ".css", ".js", ".webp"}
    assert kinds == {".md", ".parquet", ".yaml", ".json", ".png", ".safetensors"} | page
    assert verified(run, capsys)[0] == 0
    for name, content in files_of(run).items():
        is_manifest = name == "fadrm.json"
        flip_byte(run / name, content.rindex(b'"digest": "') + 15 if is_manifest else len(content) // 2)
        code, said = verified(run, capsys)
        assert code == 1
        assert said.startswith("fadrm.json, digest: is not the hash" if is_manifest else f"{name}: has SHA-256 "), said
        (run / name).write_bytes(content)
    code, said = verified(run, capsys)
    assert code == 0 and said.strip() == f"{run}: sound"


@pytest.mark.parametrize("row", [0, 13])
def test_a_flipped_byte_of_a_picture_or_a_logit_names_its_row(finished, tmp_path, capsys, row):
    run = copy_artifact(finished, tmp_path)
    picture = image_bytes(run)[row]
    flip_byte(run / IMAGES, (run / IMAGES).read_bytes().index(picture) + len(picture) // 2)
    code, said = verified(run, capsys)
    assert code == 1 and f"{IMAGES}, row {row}:" in said
    shutil.copy(finished / IMAGES, run / IMAGES)
    shard = load_tensors(work_of(finished) / "soft_labels/epoch00002.safetensors")
    logits = shard["logits"][row].numpy().tobytes()
    content = (run / LABELS).read_bytes()
    assert content.count(logits) == 1
    flip_byte(run / LABELS, content.index(logits) + 1)  # the highest byte of a half
    code, said = verified(run, capsys)
    step, image = (int(shard[name][row]) for name in ("step", "image"))
    assert code == 1 and f"{LABELS}, epoch 2, step {step}, row {row}, image {image}:" in said


def test_random_real_images_are_those_of_the_source(finished_random_real):
    source = load_source(SourceConfig(name="digits", size=16))
    images, labels = read_images(finished_random_real)
    rows = [rows[0] for rows in pq.read_table(finished_random_real / IMAGES)["source_index"].to_pylist()]
    assert len(set(rows)) == 20
    assert images.equal(source.pixels("train", rows))
    assert labels.tolist() == source.labels("train")[rows].tolist() == [*range(10)] * 2
    assert main(["verify", str(finished_random_real)]) == 0
