"""A trained student as a model repository: read back by timm, transformers and pipelines, locally and from the Hub."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fixtures.hub import TestHub
from fixtures.runs import copy_artifact, files_of
from huggingface_hub import ModelCard
from huggingface_hub import __version__ as hub_version
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from fadrm_hf.artifact.location import LocalFolder
from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.commands.call import Call
from fadrm_hf.commands.contribute import push_student_command
from fadrm_hf.commands.exit_code import ExitCode
from fadrm_hf.errors import HubError, RunFolderError, StudentError
from fadrm_hf.hub import open_artifact
from fadrm_hf.networks.students import create_student
from fadrm_hf.publishing.student_repository import check_model_name, check_savable, push_student, save_student
from fadrm_hf.runtime.randomness import generator

SIZE, CLASSES = 16, 10
MODEL = "alice/student"
COMMAND = "fadrm-hf train-student org/digits --work /home/alice/here"

# Reads the students named on its command line by all three readers; those after "--" with our architectures known.
READERS = """
import json, sys
import timm, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

def read(name):
    prefix = "local-dir:" if name.startswith("/") else "hf-hub:"
    image, answers = Image.open(sys.argv[1]), {}
    model = timm.create_model(prefix + name, pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    answers["timm"] = model(transform(image)[None])[0].tolist()
    wrapped = AutoModelForImageClassification.from_pretrained(name)
    processor = AutoImageProcessor.from_pretrained(name)
    answers["transformers"] = wrapped(**processor(image, return_tensors="pt")).logits[0].tolist()
    classify = pipeline("image-classification", model=name)
    answers["pipeline"] = {entry["label"]: entry["score"] for entry in classify(image, top_k=99)}
    return answers

torch.set_num_threads(1)
torch.set_grad_enabled(False)
split = sys.argv.index("--")
found = {name: read(name) for name in sys.argv[2:split]}
assert "fadrm_hf" not in sys.modules
for name in sys.argv[split + 1:]:
    try:
        timm.create_model("local-dir:" + name if name.startswith("/") else "hf-hub:" + name, pretrained=True)
        sys.exit(name + " needs no import")
    except RuntimeError as error:
        assert "Unknown model" in str(error), error
import fadrm_hf.networks
found |= {name: read(name) for name in sys.argv[split + 1:]}
print(json.dumps(found))
"""


def trained(student: str, size: int = SIZE, num_classes: int = CLASSES) -> nn.Module:
    """A student with statistics of its own, as after some training."""
    torch.manual_seed(0)
    network = create_student(student, num_classes, size).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 3, size, size, generator=generator(0, "images")))
    return network.to(memory_format=torch.channels_last)


def evaluation(student: str) -> dict[str, Any]:
    """What `train_students` says of two students."""
    settings = {"name": "fadrm", "student": student, "lr": 0.001, "temperature": 20.0, "num_workers": 0}
    return {
        "protocol": "fadrm", "student": student, "images": "distilled", "labels": "soft", "epochs": 4,
        "num_images": 20, "settings": settings, "num_seeds": 2, "num_test_images": 500,
        "top1": {"mean": 0.3, "std": 0.141421, "values": [0.2, 0.4]},
        "top5": {"mean": 0.7, "std": 0.0, "values": [0.7, 0.7]}, "best_epoch_top1": None, "seconds": 1.0,
        "machine": {}, "versions": {"timm": "1.0.31"}, "command": COMMAND,
    }  # fmt: skip


def save(module: nn.Module, student: str, folder: Path, artifact: Path) -> Path:
    return save_student(module, folder, result=evaluation(student), location=LocalFolder(artifact))


@pytest.fixture
def saved(finished: Path, tmp_path: Path) -> Path:
    return save(trained("timm/resnet10_narrow"), "timm/resnet10_narrow", tmp_path / "student", finished)


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_alice")


@pytest.mark.usefixtures("logged_in")
def test_every_reader_gives_the_logits_of_the_trained_network(finished: Path, tmp_path: Path, hub: TestHub) -> None:
    students = {
        "known": "timm/mobilenetv3_small_050",
        "narrow": "timm/resnet10_narrow",
        "twin": "timm/shufflenet_v2_x0_5",
    }
    networks = {name: trained(student) for name, student in students.items()}
    folders = {name: str(save(networks[name], students[name], tmp_path / name, finished)) for name in students}
    for name, folder in folders.items():
        push_student(Path(folder), f"alice/{name}")
    pixels = torch.randint(0, 256, (SIZE, SIZE, 3), dtype=torch.uint8, generator=generator(0, "image"))
    Image.fromarray(pixels.numpy()).save(tmp_path / "image.png")
    ours = ("narrow", "twin")
    names = [folders["known"], "alice/known", "--", *(folders[n] for n in ours), *(f"alice/{n}" for n in ours)]
    done = subprocess.run(
        [sys.executable, "-c", READERS, str(tmp_path / "image.png"), *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    constants = read_manifest(finished).pixels
    normalised = ((pixels / 255 - torch.tensor(constants.mean)) / torch.tensor(constants.std)).permute(2, 0, 1)[None]
    for name, network in networks.items():
        with torch.no_grad():
            expected = network.eval()(normalised)[0]
        for place in (folders[name], f"alice/{name}"):
            for reader in ("timm", "transformers"):
                torch.testing.assert_close(torch.tensor(found[place][reader]), expected, rtol=1e-5, atol=1e-5)
            scores = torch.tensor([found[place]["pipeline"][str(digit)] for digit in range(CLASSES)])
            torch.testing.assert_close(scores, expected.softmax(0), rtol=1e-5, atol=1e-5)


def test_only_safetensors_are_written_and_the_weights_are_the_networks(finished: Path, tmp_path: Path) -> None:
    network = trained("timm/resnet10_narrow")
    folder = save(network, "timm/resnet10_narrow", tmp_path / "student", finished)
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    assert network.training


def test_classes_of_one_name_are_told_apart(finished: Path, tmp_path: Path) -> None:
    artifact = copy_artifact(finished, tmp_path)
    manifest = json.loads((artifact / "fadrm.json").read_text())
    manifest["classes"]["names"] = ["crane", "crane", *(f"digit, {digit}" for digit in range(2, CLASSES))]
    (artifact / "fadrm.json").write_text(json.dumps(manifest))
    folder = save(trained("timm/resnet10_narrow"), "timm/resnet10_narrow", tmp_path / "student", artifact)
    labels = json.loads((folder / "config.json").read_text())["label_names"]
    assert labels == ["crane (0)", "crane (1)", *(f"digit, {digit}" for digit in range(2, CLASSES))]


def test_the_card_says_what_was_measured_and_on_what(finished: Path, tmp_path: Path, hub: TestHub) -> None:
    commit = hub.put("org/digits", files_of(finished))
    result = evaluation("timm/resnet10_narrow")
    folder = save_student(
        trained("timm/resnet10_narrow"), tmp_path / "student", result=result, location=open_artifact("org/digits")
    )
    card = ModelCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("timm", "image-classification")
    assert card.data.datasets == ["org/digits"]
    assert {"dataset-distillation", "fadrm_hf"} <= set(card.data.tags)
    first, second = card.data.eval_results
    assert (first.task_type, first.dataset_type, first.verified) == ("image-classification", "digits", False)
    assert [first.metric_value, second.metric_value] == [0.2, 0.7]  # of the first seed, not of the best
    assert first.source_url == f"{hub.url}/datasets/org/digits"
    assert "| 0 (this model) | 20.00 | 70.00 |" in card.text
    assert "| 1 | 40.00 | 70.00 |" in card.text
    assert "| mean ± standard deviation | 30.00 ± 14.14 | 70.00 ± 0.00 |" in card.text
    assert card.text.count("import fadrm_hf.networks\n") == 3
    assert f"commit `{commit}`" in card.text
    assert "```bash\nfadrm-hf train-student org/digits --work here\n```" in card.text
    if not hub_version.startswith("1."):  # 1.x asks huggingface.co, whatever the endpoint is
        assert card.validate() is None


def test_the_licence_is_the_artifacts(finished: Path, tmp_path: Path) -> None:
    artifact = copy_artifact(finished, tmp_path)
    manifest = json.loads((artifact / "fadrm.json").read_text())
    terms = {"licence": "other", "licence_link": "https://example.org/terms"}
    manifest["source"] |= terms
    (artifact / "fadrm.json").write_text(json.dumps(manifest))
    folder = save(trained("timm/resnet10_narrow"), "timm/resnet10_narrow", tmp_path / "student", artifact)
    data = ModelCard.load(folder / "README.md").data
    assert (data.license, data.license_name, data.license_link) == ("other", "terms-of-digits", terms["licence_link"])
    assert data.datasets is None  # an artifact of this machine has no page


def test_a_card_for_a_network_of_timm_needs_no_import(finished: Path, tmp_path: Path) -> None:
    folder = save(trained("timm/mobilenetv3_small_050"), "timm/mobilenetv3_small_050", tmp_path / "s", finished)
    assert "import fadrm_hf" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("student", ["torchvision/shufflenet_v2_x0_5", "torchvision/resnet18"])
def test_a_student_of_torchvision_is_saved_as_its_twin_in_timm(student: str, finished: Path, tmp_path: Path) -> None:
    """At 96 pixels there is no small stem, so these are torchvision's own networks."""
    artifact = copy_artifact(finished, tmp_path)
    manifest = json.loads((artifact / "fadrm.json").read_text())
    manifest["pixels"]["size"] = manifest["config"]["source"]["size"] = 96
    (artifact / "fadrm.json").write_text(json.dumps(manifest))
    network = trained(student, 96)
    folder = save(network, student, tmp_path / "student", artifact)
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, 3, 96, 96, generator=generator(0, "images"))
    with torch.no_grad():
        torch.testing.assert_close(again(images), network.eval()(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("student", ["torchvision/squeezenet1_1", "torchvision/mobilenet_v2"])
def test_a_student_that_no_reader_could_load_is_refused_before_training(student: str) -> None:
    with pytest.raises(StudentError, match=rf"'{student}' can be trained, but not saved.*--save_student"):
        check_savable(student, 224)
    check_savable("torchvision/mobilenet_v2", 32)  # where it is timm's, with a small stem


def test_weights_that_are_not_finite_are_not_saved(finished: Path, tmp_path: Path) -> None:
    network: Any = trained("timm/resnet10_narrow")
    network.fc.bias.data[3] = torch.nan
    with pytest.raises(StudentError, match=r"not finite \(fc\.bias\)"):
        save(network, "timm/resnet10_narrow", tmp_path / "student", finished)
    assert list(tmp_path.iterdir()) == []


def test_a_student_replaces_a_student_and_nothing_else(saved: Path, finished: Path, tmp_path: Path) -> None:
    other = trained("timm/resnet18_narrow")
    assert save(other, "timm/resnet18_narrow", saved, finished) == saved
    assert json.loads((saved / "config.json").read_text())["architecture"] == "resnet18_narrow"
    (saved / "notes.txt").write_text("mine")
    before = files_of(saved)
    with pytest.raises(RunFolderError, match="holds something else than a student"):
        save(other, "timm/resnet18_narrow", saved, finished)
    assert files_of(saved) == before


@pytest.mark.usefixtures("logged_in")
def test_a_push_is_one_commit_and_the_same_push_none(saved: Path, hub: TestHub) -> None:
    assert push_student(saved, MODEL) == f"{hub.url}/{MODEL}"
    pushed = hub.files(MODEL, kind="models")
    assert set(pushed) == {"README.md", "config.json", "model.safetensors"}
    assert pushed["model.safetensors"] == (saved / "model.safetensors").read_bytes()
    assert f"hf-hub:{MODEL}" in pushed["README.md"].decode()
    assert "ORG/MODEL" not in pushed["README.md"].decode()
    assert len(hub.commits(MODEL, kind="models")) == 2
    push_student(saved, MODEL)
    assert len(hub.commits(MODEL, kind="models")) == 2


@pytest.mark.usefixtures("logged_in")
def test_a_new_student_is_the_next_commit(saved: Path, finished: Path, hub: TestHub) -> None:
    push_student(saved, MODEL)
    save(trained("timm/resnet18_narrow"), "timm/resnet18_narrow", saved, finished)
    push_student(saved, MODEL)
    assert len(hub.commits(MODEL, kind="models")) == 3
    assert json.loads(hub.files(MODEL, kind="models")["config.json"])["architecture"] == "resnet18_narrow"


@pytest.mark.usefixtures("logged_in")
@pytest.mark.parametrize("path", ["/preupload/", "/_lfs/", "/commit/"])
@pytest.mark.parametrize("fault", ["503", "reset", "lost"])
def test_a_push_survives_trouble_with_one_commit(fault: str, path: str, saved: Path, hub: TestHub) -> None:
    hub.fail("*", path, fault)
    push_student(saved, MODEL)
    assert len(hub.commits(MODEL, kind="models")) == 2
    assert hub.files(MODEL, kind="models")["model.safetensors"] == (saved / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("logged_in")
def test_a_push_that_failed_shows_nothing_and_is_finished_by_the_next(saved: Path, hub: TestHub) -> None:
    hub.fail("POST", "/commit/", "403")
    with pytest.raises(HubError, match=r"committing to alice/student: status 403.*write access"):
        push_student(saved, MODEL)
    assert hub.files(MODEL, kind="models") == {}
    push_student(saved, MODEL)
    assert len(hub.commits(MODEL, kind="models")) == 2


@pytest.mark.usefixtures("logged_in")
def test_a_private_student_is_seen_by_its_owner_only(saved: Path, hub: TestHub) -> None:
    assert (
        push_student_command(
            Call(
                "push-student",
                (
                    str(saved),
                    MODEL,
                    "--private",
                ),
            )
        ).code
        == ExitCode.DONE
    )
    assert hub.settings(MODEL, "models")["private"]


@pytest.mark.usefixtures("logged_in")
def test_another_model_is_not_overwritten(saved: Path, hub: TestHub) -> None:
    hub.put(MODEL, {"pytorch_model.bin": b"theirs"}, kind="models")
    with pytest.raises(HubError, match=r"holds pytorch_model\.bin.*choose another name"):
        push_student(saved, MODEL)
    assert len(hub.commits(MODEL, kind="models")) == 2


def test_without_a_token_nothing_is_asked(saved: Path, hub: TestHub) -> None:
    with pytest.raises(HubError, match=r"not logged in.*hf auth login"):
        push_student_command(
            Call(
                "push-student",
                (
                    str(saved),
                    MODEL,
                ),
            )
        )
    assert hub.requests == []


@pytest.mark.usefixtures("logged_in")
def test_a_folder_that_is_no_student_is_refused(finished: Path, tmp_path: Path, hub: TestHub) -> None:
    for folder in (finished, tmp_path, tmp_path / "absent"):
        with pytest.raises(RunFolderError, match=r"is no saved student.*--save_student"):
            push_student(folder, MODEL)
    assert not hub.exists(MODEL, "models")


@pytest.mark.parametrize("name", ["student", "a/b/c", "a/../b", "/b", "a/", "a b/c"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(HubError, match="expected ORG/MODEL"):
        check_model_name(name)
