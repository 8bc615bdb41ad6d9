"""Publishing to the test Hub with the real clients: what readers see, and that no fault shows them half of it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import load_dataset
from fixtures.artifacts import make_artifact, make_manifest
from fixtures.hub import TestHub, start_command
from huggingface_hub import HfApi

from fadrm_hf.artifact.manifest import SourceRecord, read_manifest, write_manifest
from fadrm_hf.cli import main
from fadrm_hf.errors import ArtifactError, HubError
from fadrm_hf.evaluation.results import record_result
from fadrm_hf.hub import open_artifact
from fadrm_hf.hub.retry import Patience
from fadrm_hf.publishing.publish import Publication, Request, publish
from fadrm_hf.publishing.verify import verify_location
from fadrm_hf.runtime.files import write_bytes

REPO = "org/trees"
PATIENCE = Patience(tries=4, first_pause=0.01, longest_pause=0.05)
ACCURACY = {"mean": 0.5, "std": 0.1, "values": [0.4, 0.6]}
# Every request of a publication, in order, but that large files go in parallel: for each of three, a PUT and a POST.
SEQUENCE = (
    "GET /api/whoami-v2",
    "GET /api/datasets/org/trees",
    "POST /api/repos/create",
    "PUT /api/datasets/org/trees/settings",
    "GET /api/datasets/org/trees",
    "GET /api/datasets/org/trees/refs",
    "POST /api/datasets/org/trees/preupload/main",
    "POST /datasets/org/trees.git/info/lfs/objects/batch",
    *("PUT /_lfs/datasets/org/trees/OBJECT",) * 3,
    *("POST /_lfs/datasets/org/trees/OBJECT/verify",) * 3,
    "POST /api/validate-yaml",
    "POST /api/datasets/org/trees/commit/main",
    "POST /api/datasets/org/trees/tag/COMMIT",
    "GET /api/datasets/org/trees/refs",
)
LARGE = (".parquet", ".safetensors")  # what git keeps a pointer to
STEPS = [(step, SEQUENCE[:index].count(step)) for index, step in enumerate(SEQUENCE)]


def evaluation(student: str, **more: object) -> dict[str, Any]:
    scores = dict.fromkeys(("top1", "top5", "best_epoch_top1"), ACCURACY)
    kind = {"images": "distilled", "labels": "soft", "protocol": "fadrm", "epochs": 3, "num_seeds": 2}
    return kind | scores | {"student": student} | more


@pytest.fixture(autouse=True)
def logged_in(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_alice")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small artifact without pictures and results, of a source whose terms ask for consent."""
    folder = make_artifact(tmp_path_factory.mktemp("made") / "trees")
    for name in ("results/fadrm-resnet18.json", "assets/grid.png"):
        (folder / name).unlink()
    source = SourceRecord("example/trees", "ab" * 32, "c0ffee", "other", "https://example.org/terms", gated=True)
    write_manifest(folder, replace(make_manifest(), source=source))
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test to publish."""
    return Path(shutil.copytree(made, tmp_path / "trees"))


@pytest.fixture
def open_run(run: Path) -> Path:
    """The same, of a source that anybody may read."""
    manifest = read_manifest(run)
    write_manifest(run, replace(manifest, source=replace(manifest.source, gated=False)))
    return run


def send(folder: Path, patience: Patience = PATIENCE, **options: Any) -> Publication:
    return publish(Request(folder, REPO, num_steps=0, **options), patience=patience)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def titles(hub: TestHub, repo_id: str = REPO) -> list[str]:
    return [commit.title for commit in hub.commits(repo_id)]


def writes(hub: TestHub) -> list[str]:
    return [request for request in hub.requests if not request.startswith(("GET", "HEAD"))]


def normalised(request: str) -> str:
    return re.sub(r"/tag/[0-9a-f]{40}", "/tag/COMMIT", re.sub(r"/[0-9a-f]{64}", "/OBJECT", request))


def break_step(hub: TestHub, folder: Path, step: str, before: int, fault: str) -> None:
    """Let one request of `SEQUENCE` fail once: the one with so many equal ones before it."""
    method, path = step.split()
    large = [record.sha256 for name, record in read_manifest(folder).files.items() if name.endswith(LARGE)]
    path = path.replace("COMMIT", "[0-9a-f]{40}").replace("OBJECT", large[before])
    hub.fail(method, f"^{path}$", fault, skip=0 if "OBJECT" in step else before)


# What readers get


@pytest.mark.parametrize("config", ["default", "soft_labels", "views", "ipc1"])
def test_plain_datasets_reads_what_was_published(hub, open_run, tmp_path, config):
    send(open_run)
    local = load_dataset(str(open_run), config, split="train", cache_dir=str(tmp_path / "local"))
    there = load_dataset(REPO, config, split="train", revision="v1.0", cache_dir=str(tmp_path / "hub"))
    assert there.features == local.features and list(there) == list(local) and len(local) > 0
    assert list(load_dataset(REPO, config, split="train", streaming=True)) == list(local)


def test_the_hub_holds_the_artifact_and_it_is_sound(hub, open_run):
    done = send(open_run)
    assert (done.tag, done.was_there) == ("v1.0", False)
    assert hub.files(REPO) == contents(open_run)
    assert hub.tags(REPO) == {"v1.0": done.commit}
    assert titles(hub) == ["v1.0, published with fadrm_hf", "initial commit"]
    assert f'load_dataset("{REPO}", split="train")' in hub.files(REPO)["README.md"].decode()
    assert verify_location(open_artifact(REPO, "v1.0"), num_steps=0) == []
    assert verify_location(open_artifact(open_run), num_steps=0) == []


def test_a_publication_sends_these_requests(hub, run):
    send(run)
    sent = [normalised(request) for request in hub.requests]
    assert sorted(sent) == sorted(SEQUENCE)
    alone = [step for step in SEQUENCE if "_lfs" not in step]
    assert [step for step in sent if "_lfs" not in step] == alone


def test_a_second_publication_sends_nothing(hub, open_run):
    first = send(open_run)
    before = contents(open_run)
    hub.requests.clear()
    second = send(open_run)
    assert (second.commit, second.tag, second.was_there) == (first.commit, "v1.0", True)
    assert writes(hub) == [] and contents(open_run) == before


def test_a_new_result_is_one_more_version(hub, open_run):
    send(open_run)
    record_result(open_run, evaluation("timm/resnet18"))
    assert send(open_run).tag == "v1.1"
    assert titles(hub) == ["v1.1, published with fadrm_hf", "v1.0, published with fadrm_hf", "initial commit"]
    assert hub.files(REPO, "v1.1") == contents(open_run)
    assert "results/distilled-soft-fadrm-timm_resnet18.json" not in hub.files(REPO, "v1.0")


def test_tables_of_an_earlier_version_are_deleted_in_the_same_commit(hub, open_run):
    hub.put(REPO, {"fadrm.json": b"{}", "data/train-00000-of-00002.parquet": b"stale", "notes/a.txt": b"x"})
    send(open_run)
    assert hub.files(REPO) == contents(open_run) and len(hub.commits(REPO)) == 3


# Versions


def test_a_version_never_moves(hub, open_run):
    first = send(open_run, tag="v1.0")
    write_bytes(open_run / "recipe.yaml", b"ipc: 2\nseed: 1\n")
    write_manifest(open_run, read_manifest(open_run))
    hub.requests.clear()
    with pytest.raises(HubError, match=r"has a version v1\.0 with other files.*v1\.1: set --revision"):
        send(open_run, tag="v1.0")
    assert writes(hub) == [] and hub.tags(REPO) == {"v1.0": first.commit}
    second = send(open_run, tag="camera-ready")
    assert hub.tags(REPO) == {"v1.0": first.commit, "camera-ready": second.commit}
    assert send(open_run).tag == "camera-ready"


def test_a_version_that_is_there_is_published_already(hub, open_run):
    first = send(open_run, tag="v2.3")
    hub.put(REPO, {"README.md": b"---\n{}\n---\nchanged by hand"})
    assert send(open_run, tag="v2.3") == replace(first, was_there=True)
    assert len(hub.commits(REPO)) == 3
    assert send(open_run).tag == "v2.4"


@pytest.mark.parametrize("tag", ["main", "a b", "", "0123abcd", "../x"])
def test_a_name_that_is_no_version(hub, run, tag):
    with pytest.raises(HubError, match=r"cannot be a version.*v1\.0"):
        send(run, tag=tag)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["trees", "org/trees@v1.0", "org/a/b", "org/--", "../x"])
def test_a_name_that_is_no_repository(hub, run, name):
    with pytest.raises(HubError, match="ORG/NAME"):
        publish(Request(run, name))
    assert hub.requests == []


# Before anything is sent


def test_who_is_not_logged_in_is_told_how_before_a_byte_is_read(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    assert main(["publish", str(tmp_path / "absent"), REPO]) == 2
    assert "hf auth login" in capsys.readouterr().err and hub.requests == []


def test_a_token_that_the_hub_does_not_know(hub, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with pytest.raises(HubError, match="hf auth login") as caught:
        send(run)
    assert "secret" not in str(caught.value) and hub.requests == ["GET /api/whoami-v2"]


def test_without_a_network_it_ends_at_once(tmp_path):
    script = f"from fadrm_hf.publishing.publish import *; publish(Request({str(tmp_path)!r}, {REPO!r}))"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "HubError: logging in: " in done.stderr and "unset HF_HUB_OFFLINE" in done.stderr


def test_a_damaged_artifact_stays_at_home(hub, run):
    content = bytearray((run / "recipe.yaml").read_bytes())
    content[0] ^= 1
    (run / "recipe.yaml").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"damaged, so nothing was sent: recipe\.yaml: has SHA-256"):
        send(run)
    assert not hub.exists(REPO)


def test_another_dataset_is_not_overwritten(hub, run):
    hub.put(REPO, {"README.md": b"# Mine", "data/raw.csv": b"1"})
    with pytest.raises(HubError, match=r"is no artifact \(it holds data/raw\.csv\)"):
        send(run)
    assert set(hub.files(REPO)) == {"README.md", "data/raw.csv"}


def test_a_dry_run_says_what_would_be_sent(hub, run, capsys):
    assert main(["publish", str(run), REPO, "--num_steps=0", "--dry_run"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"new +7 files, \d+\.\d kB", shown.err) and "v1.0" in shown.err and "(new, gated)" in shown.err
    assert f"would be published as {REPO}@v1.0" in shown.out
    assert not hub.exists(REPO) and writes(hub) == []
    send(run)
    record_result(run, evaluation("timm/resnet18"))
    assert main(["publish", str(run), REPO, "--num_steps=0", "--dry_run"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"new +2 files.*\n +changed +2 files.*\n +unchanged +5 files.*\n +to delete +0 files", shown.err)
    assert len(hub.commits(REPO)) == 2


def test_the_command_publishes_and_says_so(hub, run, capsys):
    arguments = ["publish", str(run), REPO, "--private", "--revision=v3.0", "--num_steps=0"]
    assert main(arguments) == 0
    assert f"is published as {REPO}@v3.0" in capsys.readouterr().out
    assert hub.settings(REPO) == {"owner": "alice", "private": True, "gated": False}
    assert main(arguments) == 0
    assert f"was published before as {REPO}@v3.0" in capsys.readouterr().out


# Who may read


def test_terms_of_the_source_are_asked_for_before_there_is_anything_to_read(hub, run):
    send(run)
    assert hub.settings(REPO)["gated"] == "auto"
    settings, commit = (next(i for i, r in enumerate(hub.requests) if part in r) for part in ("/settings", "/commit/"))
    assert settings < commit
    header = hub.files(REPO)["README.md"].decode()
    assert "extra_gated_prompt" in header and "license_link: https://example.org/terms" in header


def test_a_repository_that_was_opened_is_gated_again(hub, run):
    send(run)
    HfApi().update_repo_settings(REPO, repo_type="dataset", gated=False)
    send(run)
    assert hub.settings(REPO)["gated"] == "auto" and hub.tags(REPO).keys() == {"v1.0"}


def test_a_private_repository_needs_no_gate_and_a_public_one_is_not_taken_for_private(hub, run):
    send(run, private=True)
    assert hub.settings(REPO) == {"owner": "alice", "private": True, "gated": False}
    hub.put("org/open", {"fadrm.json": b"{}"})
    with pytest.raises(HubError, match="public already"):
        publish(Request(run, "org/open", private=True, num_steps=0))


# Results of others


def test_results_of_others_stay_and_come_home(hub, open_run):
    send(open_run)
    theirs = json.dumps(evaluation("timm/vgg11", contributed=True)).encode()
    hub.put(REPO, {"results/theirs.json": theirs})
    assert send(open_run).tag == "v1.1"
    assert (open_run / "results/theirs.json").read_bytes() == theirs
    assert hub.files(REPO) == contents(open_run)
    assert "timm/vgg11" in (open_run / "README.md").read_text()
    assert verify_location(open_artifact(open_run), num_steps=0) == []


def test_results_here_are_not_overwritten(hub, open_run):
    record_result(open_run, evaluation("timm/resnet18"))
    send(open_run)
    (name,) = [name for name in hub.files(REPO) if name.startswith("results/")]
    hub.put(REPO, {name: b'{"another": 1}'})
    before = contents(open_run)
    send(open_run)
    assert hub.files(REPO) == contents(open_run) == before


@pytest.mark.parametrize("content", [b"not json", b"{}", b"[" * 100_000, b" " * 2_000_000])
def test_a_result_that_is_none_is_not_taken_over(hub, open_run, content):
    send(open_run)
    hub.put(REPO, {"results/theirs.json": content})
    with pytest.raises(HubError, match=r"remove it there"):
        send(open_run)
    assert not (open_run / "results/theirs.json").exists() and hub.files(REPO)["results/theirs.json"] == content


# Labels apart, or none


def test_labels_in_a_repository_of_their_own(hub, run, tmp_path):
    before = contents(run)
    send(run, labels="apart")
    assert contents(run) == before
    pinned = hub.tags(f"{REPO}-labels")["v1.0"]
    assert read_manifest(open_artifact(REPO).folder).label_repository == f"{REPO}-labels@{pinned}"
    assert {name for name in hub.files(REPO) if name.startswith("soft_labels/")} == set()
    assert hub.settings(f"{REPO}-labels")["gated"] == "auto"
    card = hub.files(REPO)["README.md"].decode()
    assert f'load_dataset(\n    "{REPO}-labels", "soft_labels", revision="{pinned}"' in card
    files = str(run / "soft_labels/*.parquet")
    local = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "a"))
    assert list(load_dataset(f"{REPO}-labels", split="train", cache_dir=str(tmp_path / "b"))) == list(local)
    assert len(load_dataset(REPO, split="train", cache_dir=str(tmp_path / "c"))) == 8
    assert verify_location(open_artifact(REPO, "v1.0"), num_steps=0) == []


def test_labels_apart_a_second_time(hub, run):
    send(run, labels="apart")
    hub.requests.clear()
    assert send(run, labels="apart").was_there
    assert writes(hub) == [] and len(hub.commits(f"{REPO}-labels")) == 2
    record_result(run, evaluation("timm/resnet18"))
    assert send(run, labels="apart").tag == "v1.1"
    assert hub.tags(f"{REPO}-labels").keys() == {"v1.0"}


def test_labels_apart_in_a_dry_run(hub, run):
    send(run, labels="apart", dry_run=True)
    assert not hub.exists(REPO) and not hub.exists(f"{REPO}-labels")


def test_no_labels(hub, run):
    before = contents(run)
    send(run, labels="online")
    assert contents(run) == before
    there = open_artifact(REPO)
    assert there.manifest.label_codec == "none"
    assert verify_location(there, num_steps=0) == []
    assert "logits" not in load_dataset(REPO, "soft_labels", split="train", streaming=True).column_names
    hub.requests.clear()
    assert send(run, labels="online").was_there and writes(hub) == []


# Faults


def require_no_half_version(hub: TestHub, folder: Path) -> None:
    """Every state that `main` ever had is either the empty one or the whole dataset; so are those with a tag."""
    if not hub.exists(REPO):
        return
    *made, initial = hub.commits(REPO)
    assert set(initial.files) == {".gitattributes"} and len(made) <= 1
    assert all(hub.files(REPO, commit.id) == contents(folder) for commit in made)
    assert set(hub.tags(REPO).values()) <= {commit.id for commit in made}


def require_published_once(hub: TestHub, folder: Path) -> None:
    require_no_half_version(hub, folder)
    assert titles(hub) == ["v1.0, published with fadrm_hf", "initial commit"]
    assert hub.tags(REPO) == {"v1.0": hub.commits(REPO)[0].id}
    assert hub.settings(REPO)["gated"] == "auto"


@pytest.mark.fault("publish", "network")
@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "lost", "slow"])
def test_passing_trouble_at_every_request_is_waited_out(hub, run, fault, record_property):
    record_property("cases", len(STEPS))
    for step, before in STEPS:
        break_step(hub, run, step, 0 if fault == "slow" and "_lfs" not in step else before, fault)  # never sent again
    send(run)
    assert sorted(map(normalised, hub.failures)) == sorted(SEQUENCE)
    require_published_once(hub, run)


@pytest.mark.fault("publish", "network")
@pytest.mark.parametrize("fault", ["401", "403", "409", "412", "full", "page"])
@pytest.mark.parametrize(("step", "before"), STEPS)
def test_after_a_refusal_at_any_request_a_second_call_finishes(hub, run, step, before, fault):
    break_step(hub, run, step, before, fault)
    looks_again = fault == "412" and "whoami" not in step  # somebody else was faster
    # The file is there whatever is said of it, and so is the tag that is looked for once more.
    is_nothing_lost = (fault == "page" and "verify" in step) or (step, before) == STEPS[-1]
    if looks_again or is_nothing_lost:
        send(run)
    else:
        with pytest.raises(HubError) as caught:
            send(run)
        assert REPO in str(caught.value) or "logging in" in str(caught.value)
        require_no_half_version(hub, run)
    send(run)
    require_published_once(hub, run)


def test_trouble_that_lasts_is_told_and_leaves_nothing_half_done(hub, run):
    hub.fail("POST", "/commit/", "503", times=-1)
    with pytest.raises(HubError, match=r"committing to org/trees: status 503 .*run the same command again"):
        send(run)
    assert len([request for request in hub.failures if "/commit/" in request]) == PATIENCE.tries
    require_no_half_version(hub, run)
    hub.heal()
    hub.requests.clear()
    send(run)
    assert [request for request in hub.requests if request.startswith("PUT /_lfs")] == []  # all of it is there
    require_published_once(hub, run)


def test_the_hub_is_given_the_time_it_asks_for(hub, run, monkeypatch):
    pauses = []
    monkeypatch.setattr("fadrm_hf.hub.retry.time", SimpleNamespace(sleep=pauses.append))
    hub.fail("POST", "/commit/", "429")
    send(run, patience=replace(PATIENCE, longest_pause=5))
    assert pauses == [1.0]  # the server's Retry-After
    require_published_once(hub, run)


def test_a_result_that_arrives_meanwhile_is_taken_over(hub, open_run):
    send(open_run)
    record_result(open_run, evaluation("timm/resnet18"))
    theirs = json.dumps(evaluation("timm/vgg11", contributed=True)).encode()
    hub.when("POST", "/commit/", lambda: hub.put(REPO, {"results/theirs.json": theirs}))
    send(open_run)
    assert titles(hub)[:3] == ["v1.1, published with fadrm_hf", "put", "v1.0, published with fadrm_hf"]
    assert hub.files(REPO) == contents(open_run)
    assert (open_run / "results/theirs.json").read_bytes() == theirs


def test_a_publication_that_is_killed_goes_on(hub, run):
    process = start_command("alice", "publish", str(run), REPO, "--num_steps=0")
    hub.when("POST", "/_lfs/.*/verify", process.kill)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    require_no_half_version(hub, run)
    arrived = hub.received(REPO)  # another file may have been cut off half-way
    hub.requests.clear()
    send(run)
    sent = {request.rpartition("/")[2] for request in hub.requests if request.startswith("PUT /_lfs")}
    assert arrived and not arrived & sent
    require_published_once(hub, run)


def test_who_may_not_write_is_told_so(hub, open_run, monkeypatch):
    send(open_run)
    record_result(open_run, evaluation("timm/resnet18"))
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    with pytest.raises(HubError, match=r"403.*write access to the repository"):
        send(open_run)
    assert len(hub.commits(REPO)) == 2


@pytest.mark.parametrize("fault", [None, "403"])
def test_the_token_is_nowhere(hub, run, tmp_path, capfd, caplog, fault):
    if fault:
        hub.fail("POST", "/tag/", fault)
    code = main(["publish", str(run), REPO, "--num_steps=0", "--labels=apart"])
    assert code == (2 if fault else 0)
    shown = capfd.readouterr()
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    told = [shown.out, shown.err, caplog.text]
    assert [text for text in told if "hf_alice" in text] == []
    assert [content for content in [*written, *hub.stored().values()] if b"hf_alice" in content] == []
