"""`fadrm-hf score`, on a real run: every number against one that was come by in another way."""

import io
import json
import math
import shlex
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from fixtures.runs import IMAGES, LABELS, STUDENT, copy_artifact, copy_run, distill, files_of, lasting, work_of
from PIL import Image

import fadrm_hf.networks.small_images  # noqa: F401 (registers the teacher's architecture)
from fadrm_hf.artifact.location import LocalFolder
from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.cli import main
from fadrm_hf.evaluation.results import record_result
from fadrm_hf.publishing.reproduce import choose_result
from fadrm_hf.report.card.results import read_results
from fadrm_hf.report.card.scores import KINDS, read_scores
from fadrm_hf.runtime.tensor_files import load_tensors

pytestmark = pytest.mark.numerical


def stored(artifact: Path) -> dict:
    return json.loads((artifact / "results/scores.json").read_text())


@pytest.fixture(scope="module")
def scored(finished, tmp_path_factory):
    """The run, scored before any student was trained."""
    run = copy_run(finished, tmp_path_factory.mktemp("scored"))
    assert main(["score", str(run)]) == 0
    return run


def pictures(artifact):
    """(N, S, S, 3) uint8, decoded without the library."""
    encoded = pq.read_table(artifact / IMAGES)["image"].to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in encoded])


def test_sizes_are_those_of_the_files(scored):
    from sklearn.datasets import load_digits

    source = load_digits()
    found = {name: score["value"] for name, score in stored(scored)["scores"].items()}
    assert len(source.images) - 500 == 1297 == found["compression_images"] * 20
    images, labels = ((scored / name).stat().st_size for name in (IMAGES, LABELS))
    whole = found["compression_image_bytes"] * images
    assert whole == pytest.approx(found["compression_bytes"] * (images + labels))
    assert 1297 * 100 < whole < 1297 * 1000  # encoded digits of 8 px
    assert found["test_copies"] == 0


def test_entropies_and_diversity_by_numpy_and_timm(scored):
    """Features through timm's own door, entropies and kernels written out."""
    images, found = pictures(scored), stored(scored)["scores"]
    greys = [np.asarray(Image.fromarray(image).convert("L")) for image in images]
    shares = [np.bincount(grey.flatten(), minlength=256) / grey.size for grey in greys]
    entropies = [-sum(share * math.log2(share) for share in row if share) for row in shares]
    assert found["pixel_entropy"] == {
        "value": pytest.approx(np.mean(entropies)),
        "std": pytest.approx(np.std(entropies, ddof=1)),
    }
    (teacher,) = (scored / "teachers").iterdir()
    network, pixels = timm.create_model(f"local-dir:{teacher}", pretrained=True).eval(), read_manifest(scored).pixels
    shown = ((images / 255 - np.array(pixels.mean)) / np.array(pixels.std)).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        maps = network.forward_features(torch.from_numpy(shown).float())
        features = network.forward_head(maps, pre_logits=True).double().numpy()
    p = features / features.sum(1, keepdims=True)
    assert (features >= 0).all()
    expected = -np.where(p > 0, p * np.log2(np.where(p > 0, p, 1)), 0).sum(1)
    assert found["feature_entropy"]["value"] == pytest.approx(expected.mean(), rel=1e-5)
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = [directions[label] @ directions[label + 10] for label in range(10)]  # two images of a class
    assert found["cosine_distance"]["value"] == pytest.approx(1 - np.mean(cosines), rel=1e-4)
    spectra = [np.array([1 - cosine, 1 + cosine]) / 2 for cosine in cosines]
    numbers = [math.exp(-sum(value * math.log(value) for value in spectrum)) for spectrum in spectra]
    assert found["effective_number"]["value"] == pytest.approx(np.mean(numbers), rel=1e-4)


def test_without_snapshots_the_course_has_a_beginning_and_an_end(scored):
    start, end = stored(scored)["course"]
    assert (start["iteration"], end["iteration"], start["num_images"]) == (0, 8, 20)
    scores = stored(scored)["scores"]
    assert all(end[name] == pytest.approx(scores[name]["value"]) for name in ("pixel_entropy", "feature_entropy"))
    assert start["pixel_entropy"] != end["pixel_entropy"]


def evaluation(images, labels, top1, protocol="fadrm"):
    """As students would have left it, of three seeds."""
    summary = {"mean": top1, "std": 0.01, "values": [top1 - 0.01, top1, top1 + 0.01]}
    return {"protocol": protocol, "student": STUDENT, "images": images, "labels": labels, "epochs": 4, "num_seeds": 3,
            "top1": summary, "top5": summary, "best_epoch_top1": None, "settings": {},
            "num_images": 20, "seconds": 1.0, "num_test_images": 500, "machine": {}, "versions": {},
            "command": ""}  # fmt: skip


def test_the_commands_that_are_named_give_what_lacks(finished, tmp_path, capsys):
    """They are run as they are printed; evaluations renew the scores, and the card follows."""
    run = copy_run(finished, tmp_path)
    assert main(["score", str(run), "--label_weight=0.3"]) == 0
    assert len(stored(run)["missing"]) == 6
    for given in (("distilled", "soft", 0.7), ("distilled", "hard", 0.4), ("random_real", "hard", 0.45),
                  ("random_real", "soft", 0.6), ("whole", "hard", 0.9, "squeeze")):  # fmt: skip
        record_result(run, evaluation(*given))
    ((name, remedy),) = stored(run)["missing"].items()
    assert f"What gives it: {remedy.replace('ARTIFACT', str(run))}".split(" --")[0] in capsys.readouterr().out
    for command in remedy.split("; "):
        _, *words = shlex.split(command.replace("ARTIFACT", str(run)))
        assert main([*words, "--num_seeds=1"]) == 0
    after = stored(run)
    assert name == "augmentation_robust_score" and after["missing"] == {} and set(after["scores"]) == set(KINDS)
    top1 = {(r["images"], r["labels"], r["protocol"]): r["top1"]["mean"] for r in read_results(run)}
    plain = top1["distilled", "soft", "unaugmented"] - top1["random_real", "soft", "unaugmented"]
    for name, balance in (
        ("label_robust_score", 0.3 * 0.1 - 0.7 * 0.5),
        ("augmentation_robust_score", 0.5 * 0.1 + 0.5 * plain),
    ):
        squashed = (math.exp(balance) - math.exp(-1)) / (math.e - math.exp(-1))
        assert after["scores"][name]["value"] == pytest.approx(squashed)
        assert f"| {KINDS[name].title} | {squashed:.3f} | more |" in (run / "README.md").read_text()
    assert main(["verify", str(run)]) == 0
    assert choose_result(LocalFolder(run))[0] == f"results/distilled-soft-fadrm-{STUDENT.replace('/', '_')}.json"


def test_scores_are_for_machines_too(scored, capsys):
    before = files_of(scored)
    assert main(["score", str(scored), "--json", "--bins=10", "--source.name=digits"]) == 0
    document = json.loads(capsys.readouterr().out)
    printed = document["result"]
    assert printed == stored(scored)
    assert document["paths"] == {"scores": str(scored / "results/scores.json")}
    assert printed["settings"]["bins"] == 10 and printed["scores"]["pixel_entropy"]["value"] <= math.log2(10)
    assert printed["command"].startswith("fadrm-hf score ") and str(scored) not in printed["command"]
    changed = {name for name, content in files_of(scored).items() if content != before[name]}
    assert changed == {"results/scores.json", "README.md", "fadrm.json", "gallery/data.js"}


def test_another_network_looks_at_the_same_images(scored, finished, tmp_path, capsys):
    (teacher,) = (finished / "teachers").iterdir()
    artifact = copy_artifact(scored, tmp_path)
    assert main(["score", str(artifact), "--network", f"timm/local-dir:{teacher}"]) == 0
    again = stored(artifact)
    assert again["settings"]["has_taught"]  # by its weights, whatever its name
    assert str(finished.parent) not in json.dumps(again) + (artifact / "README.md").read_text()
    assert again["scores"]["feature_entropy"] == pytest.approx(stored(scored)["scores"]["feature_entropy"])
    assert again["course"] == []  # the shards are not here
    assert "which these images were made for" in capsys.readouterr().out


def test_a_source_that_is_gone_is_said_and_what_is_left_is_scored(finished, tmp_path, capsys):
    artifact = copy_artifact(finished, tmp_path)
    manifest = json.loads((artifact / "fadrm.json").read_text())
    manifest["config"]["source"]["name"] = "gone/for-good"
    manifest["config"]["source"]["preset"] = None
    (artifact / "fadrm.json").write_text(json.dumps(manifest))
    assert main(["score", str(artifact)]) == 0
    remedy = "fadrm-hf score ARTIFACT --source.name PATH"
    assert stored(artifact)["missing"]["test_copies"] == stored(artifact)["missing"]["compression_bytes"] == remedy
    assert "pixel_entropy" in stored(artifact)["scores"]
    told = capsys.readouterr()
    assert "gone/for-good" in told.err and "--source.name PATH" in told.out
    assert main(["score", str(artifact), "--source.name", "also/gone"]) == 2


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--label_weight=1.2", "label_weight must be a fraction in [0, 1], got 1.2"),
        ("--augmentation_weight=-1", "augmentation_weight must be a fraction in [0, 1], got -1"),
        ("--bins=0", "bins must be 1 to 256, got 0"),
        ("--network=timm/resnet18.tv_inlk", "did you mean 'resnet18.tv_in1k'"),
        ("--network=squeeze/resnet18", "'squeeze/resnet18' is trained on a source"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(finished, option, said, capsys):
    assert main(["score", str(finished), option]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (finished / "results/scores.json").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"scores": {"pixel_entropy": {"value": NaN, "std": null}}}', "[" * 100_000]
)
def test_a_damaged_file_of_scores_is_named_by_whoever_reads_it(finished, tmp_path, content, capsys):
    artifact = copy_artifact(finished, tmp_path)
    (artifact / "results").mkdir()
    (artifact / "results/scores.json").write_text(content)
    assert main(["train-student", str(artifact), "--num_seeds=1", "--epochs=1", "--labels=hard"]) == 2
    assert "results/scores.json does not contain scores" in " ".join(capsys.readouterr().err.split())


def test_scores_of_a_newer_version_are_left_out(scored, tmp_path):
    artifact = copy_artifact(scored, tmp_path)
    held = stored(artifact)
    held["scores"]["elegance"] = {"value": 1.0, "std": None}
    (artifact / "results/scores.json").write_text(json.dumps(held))
    scores = read_scores(artifact)
    assert scores is not None and "elegance" not in scores.scores and "pixel_entropy" in scores.scores


def test_snapshots_follow_the_optimisation_and_change_nothing(finished, tmp_path):
    """Of the first shard: four images, before and after each of four segments."""
    shutil.copytree(finished.with_name("teachers"), tmp_path / "teachers")
    run = distill(tmp_path / finished.name, "--snapshots")
    assert lasting(run, "gallery/") == lasting(finished, "gallery/")
    looks = [load_tensors(file) for file in sorted((work_of(run) / "snapshots").glob("*.safetensors"))]
    assert [int(look["iteration"]) for look in looks] == [0, 2, 2, 4, 4, 6, 6, 8]
    recovered = load_tensors(work_of(run) / "recovered/ipc00000-00000-00003.safetensors")
    assert torch.equal(looks[-1]["images"], recovered["images"])
    patches = load_tensors(work_of(run) / "patches/00000-00003.safetensors")
    starts = patches["images"][patches["ipc_index"] == 0]
    apart = [(look["images"].float() - starts.float()).square().mean() for look in looks]
    assert all(mixed < alone for alone, mixed in zip(apart[1:-1:2], apart[2::2], strict=True))  # nearer to the patch
    assert main(["score", str(run)]) == 0
    course = stored(run)["course"]
    assert [look["iteration"] for look in course] == [0, 2, 2, 4, 4, 6, 6, 8]
    assert {look["num_images"] for look in course} == {4}
    card = (run / "README.md").read_text()
    assert card.count("\n| 2 | 4 | ") == 2
    assert 'src="assets/information.png"' in card
    with Image.open(run / "assets/information.png") as picture:
        assert picture.width > picture.height
    assert "assets/information.png" in read_manifest(run).files and main(["verify", str(run)]) == 0
    shutil.rmtree(work_of(run) / "snapshots")
    assert main(["score", str(run)]) == 0  # of start and end alone there is no picture
    assert not (run / "assets/information.png").exists()
    assert "information.png" not in (run / "README.md").read_text()


def test_an_artifact_on_the_hub_is_scored_beside_its_cache(hub, scored, finished, place, tmp_path_factory):
    run = copy_run(scored, tmp_path_factory.mktemp("published"))
    unscored = copy_run(finished, tmp_path_factory.mktemp("again"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_alice")
        assert main(["analyse", str(run), "--draws=2", "--source_images=10"]) == 0
        assert main(["publish", str(run), "alice/scored"]) == 0
        assert {"results/scores.json", "results/analysis.json"} <= read_manifest(run).files.keys()
        assert main(["score", "alice/scored", "--json"]) == 0
        assert main(["publish", str(unscored), "alice/scored"]) == 0  # others' evaluations are taken over, no scores
    assert not (unscored / "results").exists()
    held = json.loads((place / "runs/alice--scored/results/scores.json").read_text())
    for name, score in stored(scored)["scores"].items():
        assert held["scores"][name] == pytest.approx(score) or name == "pixel_entropy"
