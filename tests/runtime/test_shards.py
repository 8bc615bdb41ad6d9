"""Units of work: all of them, once each, whoever does them; and whose folder it is."""

import copy
import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pytest
import torch

from fadrm_hf.config import RecoverConfig, RelabelConfig, RunConfig
from fadrm_hf.errors import RunFolderError
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.run import recipe_of
from fadrm_hf.runtime import files
from fadrm_hf.runtime.run_folder import WorkFolder, refuse_other_run, require_space
from fadrm_hf.runtime.shards import Shard, check_world, class_ranges, mine, recovery_shards
from fadrm_hf.runtime.tensor_files import save_tensors


def process(index, of):
    return SimpleNamespace(process_index=index, num_processes=of)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("num_units", [0, 1, 3, 10])
def test_processes_share_all_units_and_none_twice(world, num_units):
    units = [f"unit{index}" for index in range(num_units)]
    shares = [mine(units, process(index, world)) for index in range(world)]
    assert sorted(unit for share in shares for unit in share) == sorted(units)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("num_classes", "per_range"), [(10, 4), (10, 10), (10, 100), (1, 1), (200, 100)])
def test_ranges_cover_the_classes_in_order(num_classes, per_range):
    ranges = class_ranges(num_classes, per_range)
    assert [label for labels in ranges for label in labels] == [*range(num_classes)]
    assert all(0 < len(labels) <= per_range for labels in ranges)


def test_shards_stand_in_the_order_of_the_image_table():
    shards = recovery_shards(10, 2, RecoverConfig(batch_size=4))
    assert [(shard.ipc_indices[0], label) for shard in shards for label in shard.classes] == [
        (index, label) for index in range(2) for label in range(10)
    ]
    assert len({shard.name for shard in shards}) == len(shards) == 6
    assert [shard.name for shard in shards] == sorted(shard.name for shard in shards)


def test_the_shards_of_a_small_ipc_are_the_first_of_a_larger_one():
    assert recovery_shards(10, 2, RecoverConfig(batch_size=4))[:3] == recovery_shards(
        10, 1, RecoverConfig(batch_size=4)
    )
    assert recovery_shards(10, 1, RecoverConfig(batch_size=4))[-1] == Shard(range(1), range(8, 10))


@pytest.mark.parametrize(("num_classes", "ipc", "batch_size"), [(10, 4, 9), (10, 1, 100), (3, 7, 4), (5, 2, 1)])
@pytest.mark.parametrize("layout", ["ipc_major", "class_major"])
def test_every_layout_covers_every_image_once_in_files_of_one_image_index(layout, num_classes, ipc, batch_size):
    config = RecoverConfig(layout=layout, batch_size=batch_size)
    shards = recovery_shards(num_classes, ipc, config)
    images = [(index, label) for shard in shards for index in shard.ipc_indices for label in shard.classes]
    assert sorted(images) == [(index, label) for index in range(ipc) for label in range(num_classes)]
    assert all(len(shard.ipc_indices) * len(shard.classes) <= batch_size for shard in shards)
    files = [(name, index) for shard in shards for index, name in shard.files.items()]
    assert len({name for name, _ in files}) == len(files)
    assert [index for _, index in sorted(files)] == sorted(index for _, index in files)


def test_class_major_keeps_the_images_of_a_class_together():
    shards = recovery_shards(10, 5, RecoverConfig(layout="class_major", batch_size=20))
    assert [(shard.ipc_indices, shard.classes) for shard in shards[:2]] == [
        (range(5), range(4)),
        (range(5), range(4, 8)),
    ]
    more_images_than_a_batch = recovery_shards(2, 5, RecoverConfig(layout="class_major", batch_size=3))
    assert [(shard.ipc_indices, shard.classes) for shard in more_images_than_a_batch][:3] == [
        (range(3), range(1)),
        (range(3), range(1, 2)),
        (range(3, 5), range(1)),
    ]


def test_a_launch_must_have_as_many_processes_as_it_promises(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_world(process(1, 4))
    with pytest.raises(RunFolderError, match="WORLD_SIZE is 4 but 1 process joined"):
        check_world(process(0, 1))
    monkeypatch.delenv("WORLD_SIZE")
    check_world(process(0, 1))


def test_a_claimed_folder_takes_the_same_run_only(tmp_path):
    folder = WorkFolder(tmp_path / "run")
    recipe = {"ipc": 2, "method": {"alpha": 0.5, "sizes": [12, 16]}}
    assert not folder.has_begun
    folder.begin(recipe, {})
    assert folder.has_begun
    folder.begin(recipe, {})
    other = {"ipc": 3, "method": {"alpha": 0.5, "sizes": [16, 16]}}
    with pytest.raises(RunFolderError, match=r"ipc is 2 there, 3 here; method.sizes is \[12, 16\] there"):
        folder.begin(other, {})
    assert json.loads((folder.path / "recipe.json").read_text())["ipc"] == 2


def test_of_many_runs_that_begin_in_one_folder_at_once_one_is_let_through(tmp_path):
    def begin(folder: Path, start: Barrier, ipc: int) -> bool:
        start.wait()
        try:
            WorkFolder(folder).begin({"ipc": ipc}, {})
        except RunFolderError as error:
            assert f"{ipc} here" in str(error) and "--output" in str(error)
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        for attempt in range(40):
            folder, start = tmp_path / str(attempt), Barrier(4)
            begun = list(pool.map(partial(begin, folder, start), range(4)))
            assert begun.count(True) == 1
            held = json.loads((folder.with_name(f"{attempt}.work") / "recipe.json").read_text())
            assert begun[held["ipc"]] and len(list(folder.with_name(f"{attempt}.work").iterdir())) == 1


def test_a_disk_without_second_names_is_claimed_once_too(tmp_path, monkeypatch):
    def link(*names: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    work = WorkFolder(tmp_path / "run")
    work.begin({"ipc": 1}, {})
    with pytest.raises(RunFolderError, match="ipc is 1 there, 2 here"):
        work.begin({"ipc": 2}, {})
    assert not files.create_json(work.path / "recipe.json", {"ipc": 2})
    assert json.loads((work.path / "recipe.json").read_text()) == {"ipc": 1}


def test_settings_that_only_one_run_has_differ_too(tmp_path):
    with pytest.raises(RunFolderError, match=r"a\.c is None there, 2 here"):
        refuse_other_run({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, {}, tmp_path)


def without(document: dict, *names: str) -> dict:
    """A recipe as a version wrote it that did not have some settings, or sections, yet."""
    earlier = copy.deepcopy(document)
    for name in names:
        *sections, last = name.split(".")
        del reduce(dict.__getitem__, sections, earlier)[last]
    return earlier


def run_of(**changed: object) -> RunConfig:
    """A run with the labels of a protocol, so that it has a section inside a section."""
    run = parse_run(["--config", "recipes/configs/digits/fadrm_ipc10.yaml"])
    return replace(run, student=replace(run.student, relabel=RelabelConfig(epochs=4)), **changed)


def accept(held: dict, run: RunConfig, folder: Path) -> None:
    refuse_other_run(held, recipe_of(run), vars(run), folder)


def test_a_folder_of_an_earlier_version_is_the_same_run_where_settings_that_it_lacks_have_their_defaults(tmp_path):
    run = run_of(seed=3)
    recipe = recipe_of(run)
    accept(without(recipe, "squeeze.cutmix", "method.retrieval", "statistics", "student.relabel.shuffle_tiles"), run,
           tmp_path)  # fmt: skip
    assert recipe["squeeze"]["cutmix"] is False and recipe["student"]["relabel"]["shuffle_tiles"] == 1
    work = WorkFolder(tmp_path / "run")
    work.begin(without(recipe, "squeeze.cutmix"), {})
    work.begin(recipe, vars(run))


def test_a_folder_of_an_earlier_version_is_another_run_where_a_setting_that_it_lacks_is_not_the_default(tmp_path):
    run = run_of()
    for name, section in {
        "squeeze.cutmix": replace(run, squeeze=replace(run.squeeze, cutmix=True)),
        "method.retrieval": replace(run, method=replace(run.method, retrieval=0.1)),
        "statistics.patch_side": replace(run, statistics=replace(run.statistics, patch_side=8)),
        "student.relabel.shuffle_tiles": replace(
            run, student=replace(run.student, relabel=RelabelConfig(epochs=4, shuffle_tiles=2))
        ),
    }.items():
        earlier = without(recipe_of(section), name)
        with pytest.raises(RunFolderError, match=rf"{name} is .* there, .* here"):
            accept(earlier, section, tmp_path)
    with pytest.raises(RunFolderError, match=r"student\.relabel\.accumulation is None there, 2 here"):
        accept(without(recipe_of(run), "student.relabel"), run, tmp_path)
    with pytest.raises(RunFolderError, match="ipc is None there, 10 here"):
        accept(without(recipe_of(run), "ipc"), run, tmp_path)


def test_missing_are_those_that_are_absent_or_cut_short(tmp_path):
    folder = WorkFolder(tmp_path / "run")
    for name in ("whole", "cut"):
        save_tensors(folder.shard("patches", name), {"x": torch.arange(100)})
    with open(folder.shard("patches", "cut"), "r+b") as file:
        file.truncate(300)
    assert folder.missing("patches", ["whole", "cut", "absent"]) == ["cut", "absent"]


def test_a_full_disk_is_refused_with_the_remedies(tmp_path):
    require_space(tmp_path / "not/yet/there", 1)
    with pytest.raises(RunFolderError, match=r"MB are free; free some space, set --output .* lower --relabel.epochs"):
        require_space(tmp_path / "run", 1 << 60)
