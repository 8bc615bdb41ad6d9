"""Artifacts read from a Hub over HTTP: what travels, when, and what a broken connection does."""

import os
import re
import threading
from pathlib import Path

import pytest
import torch
from fixtures import artifacts
from fixtures.runs import files_of
from fixtures.tables import put, rehash, split_labels, train_longer

from fadrm_hf.errors import ArtifactError, HubError
from fadrm_hf.hub import open_artifact
from fadrm_hf.training.loader import load_distilled

pytestmark = pytest.mark.numerical

EPOCHS = 7  # of training; three are stored, each in a file of its own
FILES = [f"soft_labels/train-{index:05d}-of-00003.parquet" for index in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = artifacts.make_artifact(tmp_path_factory.mktemp("streamed") / "run")
    return train_longer(split_labels(made, 1), EPOCHS)


@pytest.fixture(scope="module")
def expected(folder):
    return list(load_distilled(folder).batches(range(EPOCHS)))


@pytest.fixture
def name(hub, folder, request):
    """The artifact on the Hub, in a repository that no cache knows."""
    return put(hub, f"alice/trees-{abs(hash(request.node.name)):x}", folder)


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def fetched(hub):
    """Files whose contents were asked for."""
    paths = (re.fullmatch(r"GET /datasets/[^/]+/[^/]+/resolve/\w+/(.+)", request) for request in hub.requests)
    return [match[1] for match in paths if match]


def cached_labels(distilled):
    return sorted(path.name for path in (distilled.folder / "soft_labels").glob("*"))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_the_same_from_the_hub(name, expected, streaming, num_workers):
    distilled = load_distilled(name, streaming=streaming)
    assert distilled.name == name
    same(list(distilled.batches(range(EPOCHS), num_workers=num_workers)), expected)
    assert cached_labels(distilled) == ([] if streaming else [Path(file).name for file in FILES])


@pytest.mark.parametrize("streaming", [False, True])
def test_a_position_from_before_is_taken_up_elsewhere(name, folder, expected, streaming):
    batches = load_distilled(folder).batches(range(EPOCHS))
    same([next(batches) for _ in range(3)], expected[:3])
    state = batches.state_dict()
    same(list(load_distilled(name, streaming=streaming).batches(range(EPOCHS), state=state)), expected[3:])


def test_only_what_is_read_is_fetched(hub, name, expected):
    distilled = load_distilled(name)
    assert set(fetched(hub)) == {"fadrm.json", "data/train-00000-of-00001.parquet"}
    same(list(distilled.batches(range(2))), expected[:4])
    assert cached_labels(distilled) == [Path(file).name for file in FILES[:2]]
    assert FILES[2] not in fetched(hub)
    assert not [path for path in fetched(hub) if path.startswith(("teachers/", "README", "assets/", "results/"))]
    hub.requests.clear()
    same(list(load_distilled(name).batches(range(2))), expected[:4])
    assert fetched(hub) == []


@pytest.mark.parametrize("streaming", [False, True])
def test_the_first_batches_need_no_more_than_their_own_file(hub, name, expected, streaming):
    hub.fail("GET", "soft_labels/train-0000[12]", "403", times=-1)
    batches = load_distilled(name, streaming=streaming).batches(range(3))
    same([next(batches), next(batches)], expected[:2])
    with pytest.raises(HubError, match=FILES[1]):
        next(batches)


def test_an_epoch_far_back_needs_the_ends_of_the_files_before_only(hub, name, expected):
    distilled = load_distilled(name)
    same(list(distilled.batches(range(2, 3))), expected[4:6])
    assert cached_labels(distilled) == [Path(FILES[2]).name]


def test_streaming_reads_what_is_in_the_cache_from_there(hub, name, expected):
    list(load_distilled(name).batches(range(3)))
    hub.requests.clear()
    same(list(load_distilled(name, streaming=True).batches(range(EPOCHS))), expected)
    assert fetched(hub) == []


def test_views_without_labels(name, expected):
    bare = list(load_distilled(name, streaming=True).batches(range(1), labels="none"))
    assert [batch.logits.shape[1] for batch in bare] == [0, 0]
    assert torch.equal(bare[0].images, expected[0].images)


def test_labels_apart_are_read_from_their_own_repository(hub, folder, expected, tmp_path):
    whole = files_of(folder)
    labels = {path: content for path, content in whole.items() if path.startswith("soft_labels/")}
    commit = hub.put("alice/trees-labels", labels)
    manifest = artifacts.copy_artifact(folder, tmp_path / "run") / "fadrm.json"
    rehash(manifest.parent, label_repository=f"alice/trees-labels@{commit}")
    rest = {path: content for path, content in whole.items() if path not in labels}
    hub.put("alice/trees-images", rest | {"fadrm.json": manifest.read_bytes()})
    for streaming in (True, False):
        same(list(load_distilled("alice/trees-images", streaming=streaming).batches(range(EPOCHS))), expected)


def test_a_short_trouble_of_the_hub_is_waited_out(hub, name, expected):
    distilled = load_distilled(name, streaming=True)
    hub.fail("GET", "soft_labels/", "503", times=1)
    same(list(distilled.batches(range(3))), expected[:6])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_refusal_in_the_middle_is_named_and_ends_the_thread(hub, name, expected, streaming, num_workers):
    distilled = load_distilled(name, streaming=streaming)
    hub.fail("GET", FILES[2], "403", times=-1)
    batches = distilled.batches(range(3), num_workers=num_workers)
    with pytest.raises(HubError, match=rf"{FILES[2]}: status 403"):
        list(batches)
    batches.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("read-labels", "fetch-labels"))]


def test_what_is_in_the_cache_is_read_without_the_hub(hub, name, expected):
    list(load_distilled(name).batches(range(3)))
    hub.fail("*", ".*", "reset", times=-1)
    again = load_distilled(name)
    same(list(again.batches(range(EPOCHS))), expected)


def test_a_name_without_a_revision_is_pinned_to_the_commit(hub, name, folder, expected):
    repo, _, commit = name.partition("@")
    distilled = load_distilled(repo)
    assert distilled.name == f"{repo}@{commit}"
    hub.put(repo, {"README.md": b"# Another\n"})
    same(list(distilled.batches(range(1))), expected[:2])
    assert load_distilled(repo, revision=commit).name == f"{repo}@{commit}"
    assert load_distilled(repo).name != f"{repo}@{commit}"


def test_a_file_of_another_size_is_refused_before_it_is_fetched(hub, name):
    repo = name.partition("@")[0]
    hub.put(repo, {FILES[1]: os.urandom(1 << 16)})
    hub.requests.clear()
    location = open_artifact(repo)
    with pytest.raises(ArtifactError, match=r"has 65,536 bytes, fadrm.json says"):
        location.local(FILES[1])
    with pytest.raises(ArtifactError, match=r"has 65,536 bytes, fadrm.json says"):
        location.stream(FILES[1])
    assert FILES[1] not in fetched(hub)
