"""Students trained from an artifact on the Hub: what is fetched, where results go, and how it goes on."""

import json
import re
import uuid
from pathlib import Path

import pytest
from fixtures.runs import EPOCHS, IMAGES, LABELS, STUDENT, copy_artifact, files_of, run_and_die
from huggingface_hub import snapshot_download, try_to_load_from_cache

from fadrm_hf.cli import main

RESULT = "distilled-{labels}-fadrm-timm_resnet10_narrow.json"
OPTIONS = ("--student", STUDENT, "--num_seeds=1")


@pytest.fixture
def published(hub, finished):
    """The finished run on the Hub: its name, of its own for each test, so that no cache knows it; and its commit."""
    name = f"alice/digits-{uuid.uuid4().hex[:12]}"
    return name, hub.put(name, files_of(finished))


@pytest.fixture(scope="module")
def local(finished, tmp_path_factory):
    """What the same student reaches from the folder."""
    artifact = copy_artifact(finished, tmp_path_factory.mktemp("local"))
    assert main(["train-student", str(artifact), *OPTIONS]) == 0
    return json.loads((artifact / "results" / RESULT.format(labels="soft")).read_text())


def train(place, name, *arguments, labels="soft"):
    assert main(["train-student", *arguments]) == 0
    folder = place / "runs" / name.replace("/", "--")
    return json.loads((folder / "results" / RESULT.format(labels=labels)).read_text())


def accuracies(result):
    return [result[key]["values"] for key in ("top1", "top5", "best_epoch_top1")]


def fetched(hub):
    """The files whose content was asked for."""
    paths = (re.fullmatch(r"GET /datasets/[^/]+/[^/]+/resolve/[^/]+/(.+)", line) for line in hub.requests)
    return {path[1] for path in paths if path}


@pytest.mark.parametrize("form", ["{}", "--artifact={}", "hf://datasets/{}", "{}@main"])
def test_a_student_trained_from_the_hub_is_the_one_trained_from_the_folder(hub, published, local, place, form):
    name, commit = published
    hub.requests.clear()
    result = train(place, name, form.format(name), *OPTIONS)
    assert accuracies(result) == accuracies(local)
    assert result["artifact"] == {"repository": name, "revision": commit}
    same = set(local) - {"command", "seconds"}
    assert {key: result[key] for key in same} == {key: local[key] for key in same}
    assert set(result) - set(local) == {"artifact"}
    assert fetched(hub) == {"fadrm.json", IMAGES, LABELS}
    assert not any(line.startswith(("POST", "PUT")) for line in hub.requests if "paths-info" not in line)


def test_the_cache_is_only_read(hub, published, place, finished):
    name, _ = published
    snapshot = snapshot_download(name, repo_type="dataset")
    train(place, name, "--artifact", name, *OPTIONS)
    after = files_of(Path(snapshot))
    after.pop(".gitattributes", None)
    assert after == files_of(finished)
    assert sorted(path.name for path in (place / "runs").iterdir()) == [
        name.replace("/", "--"),
        name.replace("/", "--") + ".work",
    ]


def test_a_tag_is_pinned_to_its_commit(hub, published, finished, place):
    name, first = published
    hub.tag(name, "v1.0", first)
    hub.put(name, {"README.md": b"a newer card"})
    result = train(place, name, name, "--revision=v1.0", *OPTIONS)
    assert result["artifact"]["revision"] == first
    assert main(["train-student", f"{name}@v1.0", "--revision=main", *OPTIONS]) == 2


def test_streamed_labels_train_the_same_student_and_leave_no_file(hub, published, local, place):
    name, commit = published
    result = train(place, name, name, "--streaming", *OPTIONS)
    assert accuracies(result) == accuracies(local)
    here = {
        file: try_to_load_from_cache(name, file, revision=commit, repo_type="dataset") for file in (IMAGES, LABELS)
    }
    assert isinstance(here[IMAGES], str) and here[LABELS] is None


def test_labels_made_on_the_fly_ask_for_the_teachers(hub, published, local, place, finished):
    name, _ = published
    hub.requests.clear()
    result = train(place, name, name, "--online", *OPTIONS)
    teachers = {file for file in files_of(finished) if file.startswith("teachers/")}
    assert teachers and fetched(hub) == {"fadrm.json", IMAGES, LABELS, *teachers}
    assert result["label_codec"] == "none" and local["label_codec"] == "float16"
    assert result["top1"]["mean"] == pytest.approx(local["top1"]["mean"], abs=0.05)


def test_an_interrupted_training_goes_on_from_its_checkpoint(hub, published, local, place):
    name, _ = published
    assert run_and_die(["train-student", name, *OPTIONS], "*soft-seed0.safetensors", 2) == -9
    work = place / "runs" / (name.replace("/", "--") + ".work")
    assert list(work.glob("*soft-seed0.safetensors"))
    assert accuracies(train(place, name, name, *OPTIONS)) == accuracies(local)
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    assert sum("loss" in line for line in log) < 2 * EPOCHS, "what was done is not done again"


def test_results_go_where_they_are_asked_to(hub, published, finished, place):
    name, commit = published
    assert main(["train-student", name, *OPTIONS, "--output=elsewhere", "--labels=hard", "--epochs=1"]) == 0
    result = json.loads((place / "elsewhere/results" / RESULT.format(labels="hard")).read_text())
    assert result["artifact"]["revision"] == commit and "label_codec" not in result
    assert not (place / "runs").exists()
    copy_artifact(finished, place)
    assert main(["train-student", name, *OPTIONS, "--output=run"]) == 2
    assert main(["train-student", "run", *OPTIONS, "--output=aside", "--labels=hard", "--epochs=1"]) == 0
    assert "artifact" not in json.loads((place / "aside/results" / RESULT.format(labels="hard")).read_text())
    assert files_of(place / "run") == files_of(finished)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--push_student=alice/student"], "not logged in"),
        (["--send_result"], "not logged in"),
        (["--push_student=student"], "expected ORG/MODEL"),
        (["--revision=v9.9"], "--revision"),
        (["--epochs=99"], "--epochs 4"),
    ],
)
def test_mistakes_are_refused_before_any_data_is_read(hub, published, place, capsys, arguments, named):
    name, _ = published
    hub.requests.clear()
    assert main(["train-student", name, *OPTIONS, *arguments]) == 2
    assert named in " ".join(capsys.readouterr().err.split())
    assert LABELS not in fetched(hub) and not list(place.iterdir())
    if named in ("not logged in", "expected ORG/MODEL"):
        assert hub.requests == []


def test_a_result_of_a_folder_has_nowhere_to_be_sent(hub, finished, place, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    copy_artifact(finished, place)
    assert main(["train-student", "run", *OPTIONS, "--send_result"]) == 2
    assert "run is a folder" in capsys.readouterr().err
    assert main(["baselines", "none/none"]) == 2


def test_baselines_need_a_folder(hub, published, place, capsys):
    name, _ = published
    assert main(["baselines", name]) == 2
    assert f"hf download --repo-type dataset {name}" in " ".join(capsys.readouterr().err.split())


# What others get to see


def test_a_student_and_its_result_are_shared_when_asked_to(hub, published, place, monkeypatch, capsys):
    name, commit = published
    model = f"bob/student-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    result = train(place, name, name, *OPTIONS, "--save_student=mine", f"--push_student={model}", "--send_result")
    pushed = hub.files(model, kind="models")
    assert {"config.json", "model.safetensors", "README.md"} <= set(pushed)
    assert (place / "mine/model.safetensors").read_bytes() == pushed["model.safetensors"]
    (pull,) = hub.pulls(name)
    (sent,) = set(hub.files(name, f"refs/pr/{pull.number}")) - set(hub.files(name))
    document = json.loads(hub.files(name, f"refs/pr/{pull.number}")[sent])
    assert document["contributed"] is True and document["top1"] == result["top1"]
    assert document["artifact"] == {"repository": name, "revision": commit}
    assert "hf_bob" not in capsys.readouterr().out


def test_what_cannot_be_pushed_now_is_kept_for_later(hub, published, place, monkeypatch, capsys):
    name, _ = published
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    hub.fail("POST", r"/api/repos/create", "403", times=-1)
    assert main(["train-student", name, *OPTIONS, "--push_student=bob/refused"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    folder = Path("runs", name.replace("/", "--") + ".work", "student")
    assert f"this command is enough: fadrm-hf push-student {folder} bob/refused" in said
    assert (place / folder / "model.safetensors").exists()
    hub.heal()
    assert main(["push-student", str(folder), "bob/refused"]) == 0
    assert "model.safetensors" in hub.files("bob/refused", kind="models")
