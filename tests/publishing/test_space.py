"""A gallery as a static Space beside its dataset, on the test Hub with the real client."""

import shutil

import pytest
import yaml
from fixtures.galleries import make_gallery, read_script
from fixtures.runs import copy_artifact, files_of

from fadrm_hf.artifact.manifest import read_manifest, refresh_files
from fadrm_hf.cli import main
from fadrm_hf.errors import ArtifactError, ConfigError, HubError
from fadrm_hf.hub.retry import Patience
from fadrm_hf.publishing.publish import Request, publish

REPO = "alice/trees"
PATIENCE = Patience(tries=3, first_pause=0.01, longest_pause=0.05)


@pytest.fixture(autouse=True)
def logged_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_alice")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_gallery(tmp_path_factory.mktemp("space") / "trees")


@pytest.fixture
def run(made, tmp_path):
    return copy_artifact(made, tmp_path)


def send(folder, **options):
    return publish(Request(folder, REPO, num_steps=0, space=True, **options), patience=PATIENCE)


def test_the_space_is_the_gallery_with_a_card(hub, run):
    send(run)
    there = hub.files(REPO, kind="spaces")
    card = there.pop("README.md").decode()
    assert there == files_of(run / "gallery")
    header = yaml.safe_load(card.split("---")[1])
    assert (header["sdk"], header["app_file"], header["datasets"]) == ("static", "index.html", [REPO])
    assert header["title"] == "trees distilled by FADRM, 2 images per class" and f"[{REPO}]" in card
    assert f'load_dataset("{REPO}"' in read_script(run / "gallery/data.js")["howTo"][0]["code"]
    assert hub.tags(REPO, kind="spaces").keys() == hub.tags(REPO).keys() == {"v1.0"}
    assert {name: hub.files(REPO)[f"gallery/{name}"] for name in there} == there, "the dataset holds it too"
    titles = [commit.title for commit in hub.commits(REPO, kind="spaces")]
    assert titles == ["v1.0, published with fadrm_hf", "initial commit"]


def test_published_again_nothing_is_sent_and_what_is_lost_is_made_good(hub, run):
    send(run)
    before = hub.commits(REPO, kind="spaces")
    assert send(run).was_there and hub.commits(REPO, kind="spaces") == before
    hub.fail("POST", f"^/api/spaces/{REPO}/commit/main$", "500")
    (run / "gallery/style.css").write_text("body { color: teal; }")
    refresh_files(run)
    send(run)
    assert hub.files(REPO, kind="spaces")["style.css"] == b"body { color: teal; }"
    assert len(hub.commits(REPO, kind="spaces")) == len(before) + 1


@pytest.mark.parametrize("labels", ["apart", "online"])
def test_labels_that_lie_apart_or_nowhere_change_nothing_but_what_is_known(hub, made, tmp_path, labels):
    run = copy_artifact(made, tmp_path)
    send(run, labels=labels)
    there = hub.files(REPO, kind="spaces")
    assert there["recovered-00000.webp"] == (made / "gallery/recovered-00000.webp").read_bytes()
    (run / "check.js").write_bytes(there["data.js"])
    facts = read_script(run / "check.js")
    assert facts["hasLabels"] == (labels == "apart") and facts["name"] == REPO


def test_what_readers_must_consent_to_is_shown_to_nobody_else(hub, tmp_path):
    gated = make_gallery(tmp_path / "gated", gated=True)
    with pytest.raises(ConfigError, match=r"terms of example/trees, which no Space can ask of them; add --private"):
        send(gated)
    assert not hub.exists(REPO) and not hub.exists(REPO, kind="spaces")
    send(gated, private=True)
    assert hub.settings(REPO, kind="spaces")["private"]


def test_the_space_of_a_private_dataset_is_private(hub, run):
    publish(Request(run, REPO, num_steps=0, private=True), patience=PATIENCE)
    send(run)
    assert hub.settings(REPO, kind="spaces")["private"]


def test_an_artifact_without_a_gallery_is_told_how_to_get_one(hub, run):
    shutil.rmtree(run / "gallery")
    with pytest.raises(ArtifactError, match=r"has no gallery to make a Space of; make it with fadrm-hf gallery"):
        send(run)
    assert not hub.exists(REPO)


def test_another_space_is_not_overwritten(hub, run):
    hub.put(REPO, {"app.py": b"print()"}, kind="spaces", owner="alice")
    with pytest.raises(HubError, match=rf"Space {REPO} is no gallery \(it holds app\.py\)"):
        send(run)
    assert hub.files(REPO, kind="spaces").keys() >= {"app.py"}


def test_the_command_says_what_it_would_send_and_what_it_sent(hub, run, capsys):
    command = ["publish", str(run), REPO, "--num_steps=0", "--space"]
    assert main([*command, "--dry_run"]) == 0
    assert f"Space {REPO} (new, public)" in capsys.readouterr().err and not hub.exists(REPO, kind="spaces")
    assert main(command) == 0
    assert f"/spaces/{REPO}" in capsys.readouterr().err
    assert read_manifest(run).files["gallery/index.html"].bytes == len(hub.files(REPO, kind="spaces")["index.html"])
