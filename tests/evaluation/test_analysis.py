"""`fadrm-hf analyse`, on a real run with snapshots: its terms against numpy, timm and the files of the run."""

import io
import json
import math
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from fixtures.mistakes import names_all, refused
from fixtures.runs import IMAGES, copy_artifact, copy_run, distill, files_of, work_of
from PIL import Image
from safetensors.numpy import load_file
from scipy import special, stats

import fadrm_hf.networks.small_images  # noqa: F401 (registers the teacher's architecture)
from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.cli import main
from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import resolve_source
from fadrm_hf.data.sources import load_source
from fadrm_hf.report.card.results import read_results

pytestmark = pytest.mark.numerical

WORDS = ("--draws=400",)


def stored(artifact) -> dict:
    return json.loads((artifact / "results/analysis.json").read_text())


@pytest.fixture(scope="module")
def analysed(finished, tmp_path_factory):
    """The run made again with snapshots, by the same teacher, and analysed."""
    folder = tmp_path_factory.mktemp("analysed")
    shutil.copytree(finished.with_name("teachers"), folder / "teachers")
    run = distill(folder / finished.name, "--snapshots")
    assert main(["analyse", str(run), *WORDS]) == 0
    return run


@pytest.fixture(scope="module")
def network(analysed):
    (teacher,) = (analysed / "teachers").iterdir()
    return timm.create_model(f"local-dir:{teacher}", pretrained=True).eval()


def normalised(artifact, pixels: np.ndarray) -> np.ndarray:
    """(n, S, S, 3) uint8 -> (n, 3, S, S) float64, without the library."""
    record = read_manifest(artifact).pixels
    return ((pixels / 255 - np.array(record.mean)) / np.array(record.std)).transpose(0, 3, 1, 2)


def pictures(artifact) -> np.ndarray:
    encoded = pq.read_table(artifact / IMAGES)["image"].to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in encoded])


def starts(artifact) -> np.ndarray:
    """(20, S, S, 3): the patches in the order of the artifact's rows, index by index and class by class."""
    parts = [load_file(file) for file in sorted((work_of(artifact) / "patches").glob("*.safetensors"))]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in ("images", "label", "ipc_index")}
    return columns["images"][np.lexsort((columns["label"], columns["ipc_index"]))].transpose(0, 2, 3, 1)


def seen(network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits through timm's own door."""
    with torch.inference_mode():
        features = network.forward_head(network.forward_features(torch.from_numpy(images).float()), pre_logits=True)
        return features.double().numpy(), network.get_classifier()(features).double().numpy()


def test_theorem_1_by_timm_and_scipy(analysed, network):
    source = load_source(resolve_source(SourceConfig(name="digits", size=16)))
    pixels = source.pixels("train", range(len(source.train))).permute(0, 2, 3, 1).numpy()
    entropies = stats.entropy(special.softmax(seen(network, normalised(analysed, pixels))[1], axis=1), base=2, axis=1)
    found = stored(analysed)["theorem1"]
    assert found["max_entropy"] == pytest.approx(entropies.max(), abs=1e-4)
    assert found["mean_entropy"] == pytest.approx(entropies.mean(), abs=1e-4)
    assert found["bound_bits"] == pytest.approx(20 * entropies.max(), abs=1e-2)
    assert found["pixel_bits"] == 20 * 16 * 16 * 3 * 8
    assert (found["num_images"], found["num_training_images"]) == (1297, 1297)
    assert found["largest_possible"] == pytest.approx(math.log2(10))


def test_the_terms_of_a_residual_into_the_finished_images_by_numpy(analysed, network):
    last = stored(analysed)["theorem2"][-1]
    assert (last["iteration"], last["num_images"], last["alpha"]) == (None, 20, 0.5)
    before, patches = (normalised(analysed, each) for each in (pictures(analysed), starts(analysed)))
    after, labels = 0.5 * before + 0.5 * patches, np.arange(20) % 10
    delta = np.linalg.norm((before - patches).reshape(20, -1), axis=1).mean()
    sets = {"before": before, "after": after, "patches": patches}
    features = {name: seen(network, each)[0] for name, each in sets.items()}
    for name in ("before", "after"):
        tempered = special.log_softmax(seen(network, sets[name])[1] / 20, axis=1)
        assert last["risks"][name] == pytest.approx(-tempered[range(20), labels].mean(), rel=1e-5)
    head = network.get_classifier()
    norm = head.weight.norm(dim=1).max().item()
    spaces = {"pixels": (sets, 1.0), "features": (features, norm)}
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (4000, 20))
    for space, (points, bound) in spaces.items():
        terms = last[space]
        assert terms["setting"]["discrepancy"] == pytest.approx(delta, rel=1e-5)
        assert terms["setting"]["norm_bound"] == pytest.approx(bound, rel=1e-5)
        flat = {name: each.reshape(20, -1) for name, each in points.items()}
        for name, each in flat.items():
            mean = bound / 20 * np.linalg.norm(signs @ each, axis=1).mean()
            measured = terms["complexities"][name]
            assert abs(measured["value"] - mean) < 5 * measured["error"]
            ceiling = bound / 20 * np.sqrt((each**2).sum())
            assert terms["complexities"]["ceilings"][name] == pytest.approx(ceiling, rel=1e-5)
        largest = bound * max(np.linalg.norm(each, axis=1).max() for each in flat.values())
        constant = head.bias.abs().max().item() if space == "features" else 0.0
        loss_range = math.log(10) + 2 * (largest + constant) / 20
        assert terms["setting"]["loss_range"] == pytest.approx(loss_range, rel=1e-5)
        lipschitz = terms["setting"]["lipschitz"]
        needed = -lipschitz * delta * (2 / 20 + loss_range) / (2 * loss_range)
        assert terms["needed_gap"] == pytest.approx(needed, rel=1e-4)
        assert terms["condition"] == "fails"
        assert terms["complexities"]["after"]["value"] <= terms["after_ceiling"]
    for name, bound_of in last["features"]["bounds"].items():
        complexity = last["features"]["complexities"][name]["value"]
        expected = last["risks"][name] + 2 * last["features"]["setting"]["loss_range"] * complexity
        assert bound_of == pytest.approx(expected)
    moved = {pair: np.linalg.norm(features[pair[0]] - features[pair[1]], axis=1) for pair in
             (("before", "after"), ("after", "patches"), ("before", "patches"))}  # fmt: skip
    apart = {(one, other): np.linalg.norm((sets[one] - sets[other]).reshape(20, -1), axis=1) for one, other in moved}
    stretch = max((moved[pair] / apart[pair]).max() for pair in moved)
    assert last["features"]["setting"]["lipschitz"] == pytest.approx(norm * stretch, rel=1e-3)


def test_every_residual_of_the_run_is_measured_where_it_was(analysed):
    residuals = stored(analysed)["theorem2"]
    assert [each["iteration"] for each in residuals] == [2, 4, 6, None]
    assert {each["num_images"] for each in residuals[:-1]} == {4}
    looks = [load_file(file)["images"] for file in sorted((work_of(analysed) / "snapshots").glob("*.safetensors"))]
    patches = normalised(analysed, starts(analysed)[:4])
    for number, each in enumerate(residuals[:-1]):
        before = normalised(analysed, looks[2 * number + 1].transpose(0, 2, 3, 1))
        delta = np.linalg.norm((before - patches).reshape(4, -1), axis=1).mean()
        assert each["pixels"]["setting"]["discrepancy"] == pytest.approx(delta, rel=1e-5)


def test_the_numbers_lie_with_the_artifact_and_are_no_evaluation(analysed, tmp_path, capsys):
    run = copy_run(analysed, tmp_path)
    before = files_of(run)
    assert main(["analyse", str(run), "--json", *WORDS, "--alpha=0.8", "--num_images=7", "--source_images=50"]) == 0
    printed = json.loads(capsys.readouterr().out)["result"]
    assert printed == stored(run)
    assert str(run) not in printed["command"]
    assert [(each["alpha"], each["num_images"]) for each in printed["theorem2"]] == [(0.5, 4)] * 3 + [(0.8, 7)]
    assert printed["theorem1"]["num_images"] == 50
    assert printed["theorem1"]["max_entropy"] <= stored(analysed)["theorem1"]["max_entropy"]
    assert {name for name, content in files_of(run).items() if content != before[name]} <= {
        "results/analysis.json", "README.md", "fadrm.json",
    }  # fmt: skip
    assert read_results(run) == [] and "results/analysis.json" in read_manifest(run).files
    assert main(["verify", str(run)]) == 0
    assert main(["reproduce", str(run), "--result", "analysis"]) == 2


def test_a_trained_student_is_looked_at_too(analysed, tmp_path, capsys):
    run = copy_run(analysed, tmp_path)
    assert main(["train-student", str(run), "--num_seeds=1", "--save_student", str(tmp_path / "student")]) == 0
    capsys.readouterr()
    assert main(["analyse", str(run), *WORDS, "--network", f"timm/local-dir:{tmp_path / 'student'}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    names_all(shown, "as timm/local-dir:student sees it", "Theorem 2: the bound of the error", "docs/theory.md")
    assert not stored(run)["settings"]["has_taught"] and str(tmp_path) not in json.dumps(stored(run))
    assert stored(run)["theorem2"][0]["risks"] != stored(analysed)["theorem2"][0]["risks"]


def change(artifact, **method) -> None:
    manifest = json.loads((artifact / "fadrm.json").read_text())
    manifest["config"]["method"] |= method
    (artifact / "fadrm.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("situation", "lacks", "said"),
    [
        ("no work", "theorem2", "the folder RUN.work beside the artifact"),
        ("from noise", "theorem2", "a method that starts from real images"),
        ("retrieved", "residuals", "distill --snapshots from the beginning"),
        ("no source", "theorem1", "fadrm-hf analyse {run} --source.name PATH"),
    ],
)
def test_what_lacks_is_named_with_what_gives_it(analysed, tmp_path, capsys, situation, lacks, said):
    run = (copy_artifact if situation == "no work" else copy_run)(analysed, tmp_path)
    if situation == "from noise":
        change(run, init="noise")
    elif situation == "retrieved":
        change(run, retrieval=0.1)
    elif situation == "no source":
        manifest = json.loads((run / "fadrm.json").read_text())
        manifest["config"]["source"] |= {"name": "gone/for-good", "preset": None}
        (run / "fadrm.json").write_text(json.dumps(manifest))
    assert main(["analyse", str(run), *WORDS, "--source_images=50"]) == 0
    shown = capsys.readouterr().out
    names_all(" ".join(shown.split()), "not measured:", said.format(run=run))
    found = stored(run)
    assert set(found["missing"]) == {lacks}
    assert (found["theorem1"] is None) == (lacks == "theorem1")
    assert len(found["theorem2"]) == {"theorem2": 0, "residuals": 1, "theorem1": 4}[lacks]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--alpha=1.5"], ["alpha must be a merge ratio in [0, 1], got 1.5"]),
        (["--temperature=0"], ["temperature must be positive, got 0"]),
        (["--draws=1"], ["draws must be at least 2, got 1"]),
        (["--num_images=0"], ["num_images must be at least 1, got 0"]),
        (["--network=squeeze/resnet18"], ["'squeeze/resnet18' is trained on a source", "--network"]),
    ],
)
def test_mistakes_are_named_before_anything_is_written(analysed, place, capsys, words, expected):
    copy_artifact(analysed, place)
    names_all(refused(capsys, place, "analyse", "run", *words), *expected)
