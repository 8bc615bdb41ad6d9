"""The test Hub, by the real clients: what other tests rely on."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from fixtures.hub import FAULTS, TestHub
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import httpx

REPO = "alice/numbers"
README = b"---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n# Numbers\n"


@pytest.fixture
def api(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """A client that is logged in as alice."""
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    return HfApi()


def table(folder: Path, rows: int) -> bytes:
    pq.write_table(pa.table({"n": list(range(rows))}), folder / "table.parquet")
    return (folder / "table.parquet").read_bytes()


def commit(api: HfApi, files: dict[str, bytes], **options: object) -> str:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(REPO, operations, commit_message="files", repo_type="dataset", **options).oid


@pytest.fixture
def published(api: HfApi, tmp_path: Path) -> str:
    """A dataset of 100 rows; its commit."""
    api.create_repo(REPO, repo_type="dataset")
    return commit(api, {"README.md": README, "data/train.parquet": table(tmp_path, 100)})


def test_what_is_committed_is_read(hub, api, published, tmp_path):
    assert api.whoami()["name"] == "alice"
    assert load_dataset(REPO, split="train", cache_dir=tmp_path)["n"][:] == list(range(100))
    assert [row["n"] for row in load_dataset(REPO, split="train", streaming=True)] == list(range(100))
    assert hub.files(REPO) == {"README.md": README, "data/train.parquet": table(tmp_path, 100)}
    assert [made.title for made in hub.commits(REPO)] == ["files", "initial commit"]
    folder = Path(snapshot_download(REPO, repo_type="dataset", cache_dir=tmp_path / "hub"))
    assert (folder / "README.md").read_bytes() == README
    assert folder.name == published


def test_a_part_of_a_file(hub, published):
    with HfFileSystem().open(f"datasets/{REPO}/data/train.parquet", "rb", block_size=4) as file:
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"PAR1"


def test_a_tag_stays_where_it_is(hub, api, published, tmp_path):
    api.create_tag(REPO, tag="v1.0", repo_type="dataset")
    later = commit(api, {"data/train.parquet": table(tmp_path, 5)}, parent_commit=published)
    assert hub.tags(REPO) == {"v1.0": published}
    assert len(load_dataset(REPO, split="train", revision="v1.0", cache_dir=tmp_path)) == 100
    assert len(load_dataset(REPO, split="train", cache_dir=tmp_path)) == 5
    assert {ref.name: ref.target_commit for ref in api.list_repo_refs(REPO, repo_type="dataset").branches} == {
        "main": later
    }
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(REPO, tag="v1.0", revision=later, repo_type="dataset")


def test_a_commit_on_another_parent_is_refused(hub, api, published):
    commit(api, {"a.txt": b"first"}, parent_commit=published)
    with pytest.raises(HfHubHTTPError, match="412"):
        commit(api, {"b.txt": b"second"}, parent_commit=published)


def test_files_are_deleted(hub, api, published):
    api.create_commit(REPO, [CommitOperationDelete("data/")], commit_message="less", repo_type="dataset")
    assert list(hub.files(REPO)) == ["README.md"]


def test_a_pull_request_of_someone_else(hub, api, published, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    with pytest.raises(HfHubHTTPError, match="403"):
        commit(api, {"results/b.json": b"{}"})
    addition = CommitOperationAdd("results/b.json", b"{}")
    made = api.create_commit(REPO, [addition], commit_message="A result", repo_type="dataset", create_pr=True)
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    assert list(hub.files(REPO)) == ["README.md", "data/train.parquet"]
    assert hub.files(REPO, "refs/pr/1")["results/b.json"] == b"{}"
    path = hf_hub_download(REPO, "results/b.json", repo_type="dataset", revision="refs/pr/1")
    assert Path(path).read_bytes() == b"{}"
    (listed,) = api.get_repo_discussions(REPO, repo_type="dataset")
    assert (listed.title, listed.author, listed.status, listed.is_pull_request) == ("A result", "bob", "open", True)
    refs = api.list_repo_refs(REPO, repo_type="dataset", include_pull_requests=True)
    assert [pull.ref for pull in refs.pull_requests or []] == ["refs/pr/1"]
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    api.merge_pull_request(REPO, 1, repo_type="dataset")
    assert hub.files(REPO)["results/b.json"] == b"{}"
    assert hub.pulls(REPO)[0].status == "merged"


def test_who_may_read(hub, api, published, monkeypatch, tmp_path):
    api.create_repo("alice/secret", repo_type="dataset", private=True)
    api.update_repo_settings(REPO, repo_type="dataset", gated="auto")
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("alice/secret")
    assert api.dataset_info(REPO).gated == "auto"
    with pytest.raises(GatedRepoError):
        hf_hub_download(REPO, "README.md", repo_type="dataset", cache_dir=tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    assert api.dataset_info("alice/secret").private
    hf_hub_download(REPO, "README.md", repo_type="dataset", cache_dir=tmp_path)


def test_any_file_can_be_put_and_damaged(hub, tmp_path):
    first = hub.put("bob/strange", {"../up.txt": b"x", "data/a.parquet": table(tmp_path, 3)}, owner="bob")
    hub.corrupt("bob/strange", "data/a.parquet", 4)
    damaged, sound = hub.files("bob/strange")["data/a.parquet"], table(tmp_path, 3)
    assert [index for index in range(len(sound)) if damaged[index] != sound[index]] == [4]
    assert hub.commits("bob/strange")[0].id == first
    path = hf_hub_download("bob/strange", "data/a.parquet", repo_type="dataset", cache_dir=tmp_path)
    assert Path(path).read_bytes() == damaged
    hub.put("bob/sound", {"data/a.parquet": sound}, owner="bob")
    assert hub.files("bob/sound")["data/a.parquet"] == sound


def test_another_process_reads_the_same_hub(hub, published, tmp_path):
    script = f"import datasets; print(len(datasets.load_dataset({REPO!r}, split='train')))"
    environment = os.environ | {"HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "100\n"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_happens_once(hub, published, fault):
    url, client = f"{hub.url}/datasets/{REPO}/resolve/main/README.md", httpx.Client(timeout=600)
    hub.requests.clear()
    hub.fail("GET", "README", fault)
    with client:
        if fault == "slow":
            assert client.get(url).content == README
        elif fault in ("reset", "lost"):
            with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
                client.get(url)
        elif fault == "page":
            answer = client.get(url)
            assert answer.status_code == 200 and "Log in" in answer.text
        else:
            assert client.get(url).status_code == (507 if fault == "full" else int(fault))
        assert client.get(url).content == README
    assert hub.requests == [f"GET /datasets/{REPO}/resolve/main/README.md"] * 2


def test_a_lost_answer_is_carried_out_and_a_broken_request_is_not(hub, api, published):
    hub.fail("POST", "/commit/", "reset")
    hub.fail("POST", "/commit/", "lost")
    for number, name in enumerate(["reset", "lost"]):
        with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
            commit(api, {f"{name}.txt": b"x"})
        assert (f"{name}.txt" in hub.files(REPO)) is bool(number)


def test_a_reset_within_a_large_file_leaves_nothing(hub, api, published):
    content = os.urandom(3_000_000)
    hub.fail("PUT", "/_lfs/", "reset", times=1)
    commit(api, {"large.bin": content})  # the client sends large files again by itself
    assert len([request for request in hub.requests if request.startswith("PUT")]) == 3
    assert hub.files(REPO)["large.bin"] == content


def test_nothing_is_known_of_the_test_before(hub):
    assert not hub.exists(REPO) and hub.requests == []
    with pytest.raises(RepositoryNotFoundError):
        HfApi().dataset_info(REPO)


def test_a_missing_file_is_told_from_a_missing_dataset(hub, published):
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "absent.txt", repo_type="dataset")
    with pytest.raises(datasets.exceptions.DatasetNotFoundError):
        load_dataset("alice/absent")
