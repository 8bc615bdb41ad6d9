"""Evaluations sent back to a dataset's repository: what is refused, what is sent, and that a merge leaves it sound."""

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.hub import TestHub
from fixtures.runs import copy_artifact, files_of
from huggingface_hub import CommitOperationAdd, HfApi

from fadrm_hf.artifact.manifest import is_unaltered, read_manifest
from fadrm_hf.cli import main
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.contribute import send_result_command
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.errors import ArtifactError, ConfigError, HubError
from fadrm_hf.publishing.contribute import send_result
from fadrm_hf.publishing.received_results import read_evaluation
from fadrm_hf.publishing.verify import verify_artifact
from fadrm_hf.report.card.results import read_results

REPO = "org/digits"
KIND = "distilled-soft-fadrm-timm_resnet10_narrow"


def summary(*values: float) -> dict[str, Any]:
    mean = sum(values) / len(values)
    std = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
    return {"mean": mean, "std": std, "values": [round(value, 6) for value in values]}


def evaluation(commit: str = "0" * 40) -> dict[str, Any]:
    """What `train-student` writes of two students trained from the Hub."""
    student = "timm/resnet10_narrow"
    settings = {"name": "fadrm", "student": student, "labels": "soft", "epochs": 4, "lr": 0.001, "num_seeds": 2}
    return {
        "protocol": "fadrm", "student": student, "images": "distilled", "labels": "soft", "epochs": 4,
        "num_images": 20, "settings": settings, "num_seeds": 2, "num_test_images": 360, "top1": summary(0.1, 0.3),
        "top5": summary(0.5, 0.7), "best_epoch_top1": None, "seconds": 3.2,
        "machine": {"cpu": "Example CPU @ 2.5GHz", "cores": 2, "memory_bytes": 8_000_000_000, "gpu": None},
        "versions": {"python": "3.11.7", "torch": "2.6.0+cpu"}, "command": f"fadrm-hf train-student {REPO}",
        "artifact": {"repository": REPO, "revision": commit},
    }  # fmt: skip


@pytest.fixture
def commit(hub: TestHub, finished: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit of alice's dataset; bob is logged in."""
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    return hub.put(REPO, files_of(finished))


@pytest.fixture
def result(tmp_path: Path, commit: str) -> Path:
    return write(tmp_path / "result.json", evaluation(commit))


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def merge(number: int) -> None:
    """The owner accepts a pull request."""
    HfApi(token="hf_alice").merge_pull_request(REPO, number, repo_type="dataset")


def checkout(hub: TestHub, folder: Path, revision: str = "main") -> Path:
    """The repository's files at a revision, on disk."""
    for name, content in hub.files(REPO, revision).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def changed(hub: TestHub, revision: str) -> set[str]:
    """The files of a revision that are not as on main."""
    main, other = hub.files(REPO), hub.files(REPO, revision)
    return {name for name in main.keys() | other.keys() if main.get(name) != other.get(name)}


def test_a_merged_result_leaves_a_sound_artifact(hub: TestHub, result: Path, commit: str, tmp_path: Path) -> None:
    sent = send_result(result, REPO)
    assert (sent.state, sent.url) == ("opened", f"{hub.url}/datasets/{REPO}/discussions/1")
    (path,) = changed(hub, "refs/pr/1") - {"README.md", "fadrm.json"}
    assert path.startswith(f"results/{KIND}-")
    before = checkout(hub, tmp_path / "before")
    merge(1)
    after = checkout(hub, tmp_path / "after")
    assert verify_artifact(after, 0) == []
    assert is_unaltered(after)
    (filed,) = (entry for entry in read_results(after) if entry.get("contributed"))
    assert filed == evaluation(commit) | {"contributed": True}
    old, new = read_manifest(before), read_manifest(after)
    assert new.bytes == old.bytes
    assert {name for name in new.files if new.files[name] != old.files.get(name)} == {path, "README.md"}
    old_card, new_card = ((folder / "README.md").read_text().splitlines() for folder in (before, after))
    added = [line for line in new_card if line not in old_card]
    shown, folded = [line for line in added if line.startswith("| distilled")]
    assert "20.0\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}14.1" in shown and shown.endswith("| others |")
    assert REPO in folded


def test_nothing_but_card_manifest_and_results_is_read(hub: TestHub, result: Path) -> None:
    send_result(result, REPO)
    read = {request.partition("/resolve/")[2].partition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert {name for name in read if not name.startswith("results")} == {"README.md", "fadrm.json"}


def test_the_same_result_is_sent_once(hub: TestHub, result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = send_result(result, REPO).url
    again = send_result(result, REPO)
    assert (again.state, again.url) == ("open", url)
    merge(1)
    assert (
        send_result_command(
            Call(
                "send-result",
                (
                    str(result),
                    REPO,
                ),
            )
        ).code
        == ExitCode.DONE
    )
    assert f"in the repository already: {hub.url}/datasets/{REPO}/blob/main/results/{KIND}-" in capsys.readouterr().out
    assert len(hub.pulls(REPO)) == 1


def test_a_result_of_the_same_kind_is_added_beside_the_other(hub: TestHub, result: Path, commit: str) -> None:
    send_result(result, REPO)
    merge(1)
    other = write(result.with_name("other.json"), evaluation(commit) | {"top1": summary(0.2, 0.2)})
    assert send_result(other, REPO).state == "opened"
    merge(2)
    assert len([name for name in hub.files(REPO) if name.startswith(f"results/{KIND}-")]) == 2


def test_a_pull_request_that_was_overtaken_is_made_anew(
    hub: TestHub, result: Path, commit: str, tmp_path: Path
) -> None:
    other = write(tmp_path / "other.json", evaluation(commit) | {"top1": summary(0.2, 0.2)})
    send_result(result, REPO)
    send_result(other, REPO)
    merge(1)
    assert send_result(other, REPO).state == "opened"
    assert send_result(other, REPO).state == "open"
    merge(3)
    assert verify_artifact(checkout(hub, tmp_path / "after"), 0) == []
    assert send_result(result, REPO).state == send_result(other, REPO).state == "merged"


@pytest.mark.parametrize("broken", [b"{}", b"import os"])
def test_a_pull_request_that_only_looks_alike_is_not_taken_for_it(broken: bytes, hub: TestHub, result: Path) -> None:
    name = "fadrm.json" if broken == b"{}" else "setup.py"
    send_result(result, REPO)
    (pull,) = hub.pulls(REPO)
    pull.status = "closed"
    HfApi(token="hf_mallory").create_commit(
        REPO, [CommitOperationAdd(name, broken)], commit_message=pull.title, repo_type="dataset", create_pr=True
    )
    assert send_result(result, REPO).url == f"{hub.url}/datasets/{REPO}/discussions/3"


@pytest.mark.parametrize("fault", ["lost", "503", "reset"])
def test_trouble_leaves_one_pull_request(fault: str, hub: TestHub, result: Path) -> None:
    hub.fail("POST", "/commit/", fault)
    sent = send_result(result, REPO)
    assert [f"{hub.url}/datasets/{REPO}/discussions/{pull.number}" for pull in hub.pulls(REPO)] == [sent.url]


def test_a_lasting_refusal_opens_nothing(hub: TestHub, result: Path) -> None:
    hub.fail("POST", "/commit/", "403", times=-1)
    with pytest.raises(HubError, match="sending a result to org/digits: status 403"):
        send_result(result, REPO)
    assert hub.pulls(REPO) == []


@pytest.mark.usefixtures("commit")
def test_without_a_token_nothing_is_asked(hub: TestHub, result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="not logged in"):
        send_result_command(
            Call(
                "send-result",
                (
                    str(result),
                    REPO,
                ),
            )
        )
    assert hub.requests == []


def test_other_data_since_are_refused(hub: TestHub, finished_random_real: Path, result: Path) -> None:
    hub.put(REPO, files_of(finished_random_real))
    with pytest.raises(HubError, match=r"images or labels of .* are others than those of .* measure again"):
        send_result(result, REPO)
    assert hub.pulls(REPO) == []


def test_a_new_card_since_is_no_other_data(hub: TestHub, result: Path, commit: str) -> None:
    hub.put(REPO, {"results/.keep": b""})
    send_result(result, REPO)
    (pull,) = hub.pulls(REPO)
    assert pull.base != commit


def test_a_result_of_another_repository_is_refused(hub: TestHub, result: Path, finished: Path) -> None:
    hub.put("org/other", files_of(finished))
    with pytest.raises(HubError, match="was measured on org/digits, not on org/other"):
        send_result(result, "org/other")


def test_a_result_that_names_no_commit_needs_one(hub: TestHub, commit: str, tmp_path: Path) -> None:
    document = evaluation()
    del document["artifact"]
    file = write(tmp_path / "result.json", document)
    with pytest.raises(HubError, match="give it with --revision"):
        send_result(file, REPO)
    hub.tag(REPO, "v1.0", commit)
    assert (
        send_result_command(
            Call(
                "send-result",
                (
                    str(file),
                    REPO,
                    "--revision",
                    "v1.0",
                ),
            )
        ).code
        == ExitCode.DONE
    )
    (path,) = changed(hub, "refs/pr/1") - {"README.md", "fadrm.json"}
    sent = json.loads(hub.files(REPO, "refs/pr/1")[path])
    assert sent["artifact"] == {"repository": REPO, "revision": commit}


def test_another_commit_than_the_results_own_is_refused(hub: TestHub, result: Path) -> None:
    later = hub.put(REPO, {"results/.keep": b""})
    with pytest.raises(HubError, match=f"not on {later}; leave out --revision"):
        send_result(result, REPO, later)


@pytest.mark.usefixtures("commit")
def test_a_repository_that_is_no_artifact_is_refused(hub: TestHub, tmp_path: Path) -> None:
    hub.put("org/plain", {"README.md": b"# Other\n"})
    document = evaluation() | {"artifact": {"repository": "org/plain", "revision": hub.commits("org/plain")[0].id}}
    with pytest.raises(ArtifactError, match=r"has no fadrm\.json"):
        send_result(write(tmp_path / "result.json", document), "org/plain")


def test_what_train_student_writes_is_an_evaluation(finished: Path, tmp_path: Path) -> None:
    run = copy_artifact(finished, tmp_path)
    assert main(["train-student", str(run), "--epochs", "1", "--num_seeds", "2"]) == 0
    (path,) = (run / "results").glob("*.json")
    assert read_evaluation(path) == json.loads(path.read_text())


def test_only_what_belongs_to_an_evaluation_is_sent(tmp_path: Path) -> None:
    command = "fadrm-hf train-student hf://datasets/org/digits --source.name=/home/alice/data/digits --work ~/tmp/x"
    document = evaluation() | {"user": "alice", "command": command, "contributed": False}
    document["machine"] |= {"host": "alices-laptop"}
    document["versions"] |= {"alices_package": "1.0"}
    document["settings"] |= {"cache": "caches/alice"}
    sent = read_evaluation(write(tmp_path / "result.json", document))
    assert "alice" not in json.dumps(sent)
    assert sent["command"] == "fadrm-hf train-student hf://datasets/org/digits --source.name=digits --work x"
    assert sent["machine"] == evaluation()["machine"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top1": None}, "top1 = None, expected mean, std and values"),
        ({"top1": summary(0.1, 0.3) | {"mean": 0.25}}, "top1 = .*agree with one another"),
        ({"top1": summary(0.1, 0.3) | {"std": 0.0}}, "top1 = .*agree with one another"),
        ({"top1": summary(10.0, 30.0)}, "top1 = .*fractions"),
        ({"top1": summary(0.1, 0.3) | {"mean": float("nan")}}, "top1 = .*fractions"),
        ({"top1": summary(0.1, 0.2, 0.3)}, "3 values of top1 for 2 seeds"),
        ({"top5": summary(0.0, 0.7)}, "top-1 accuracy above the top-5"),
        ({"best_epoch_top1": 0.4}, "best_epoch_top1 = 0.4"),
        ({"num_seeds": True}, "num_seeds = True, expected a count"),
        ({"epochs": 0}, "epochs = 0, expected a count"),
        ({"epochs": 5}, r"settings\.epochs = 4 but epochs = 5"),
        ({"seconds": float("inf")}, "seconds = inf"),
        ({"protocol": "../fadrm"}, r"protocol = '\.\./fadrm', expected a name"),
        ({"student": "timm/../x"}, "student = .*expected LIBRARY/ARCHITECTURE"),
        ({"student": "timm/a|b"}, "student = .*expected LIBRARY/ARCHITECTURE"),
        ({"images": "a\nb"}, "images = .*expected a name"),
        ({"machine": {"cpu": "/home/alice"}}, "machine = .*expected cpu"),
        ({"settings": {"lr": {"x": 1}}}, "settings = .*without folders"),
        ({"command": "a\x1b[2J"}, "command = .*expected the command line"),
        ({"artifact": {"repository": REPO, "revision": "main"}}, "artifact = .*40 hexadecimal digits"),
    ],
)
def test_what_no_evaluation_can_say_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "result.json", evaluation() | changes)
    with pytest.raises(ConfigError, match=message):
        read_evaluation(file)


@pytest.mark.parametrize("name", sorted(evaluation().keys() - {"artifact"}))
def test_every_field_is_needed(name: str, tmp_path: Path) -> None:
    document = evaluation()
    del document[name]
    with pytest.raises(ConfigError, match=f"lacks {name}"):
        read_evaluation(write(tmp_path / "result.json", document))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is not JSON"), (b"[]", "holds list"), (b"\xff", "is not JSON"), (b"[" * 100_000, "is not JSON"),
     (b" " * (2 << 20), "2,097,152 bytes")],
)  # fmt: skip
def test_files_that_are_no_results_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_evaluation(tmp_path / "result.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_evaluation(tmp_path / "absent.json")
