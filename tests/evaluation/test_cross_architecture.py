"""One artifact and several students: the table, what is made again, what is refused; published numbers beside ours."""

import csv
import json
import statistics
import uuid
from pathlib import Path

import pytest
from fixtures.mistakes import names_all, refused
from fixtures.runs import EPOCHS, STUDENT, copy_artifact, files_of, run_and_die, work_of

from fadrm_hf.cli import main
from fadrm_hf.evaluation.published import published_accuracies
from fadrm_hf.evaluation.student_study import StudentRow, student_table

OTHER = "timm/convnet3_narrow"
WORDS = ("--students=[resnet10_narrow,convnet3_narrow]", "--num_seeds=2")


def command(artifact: Path, *words: str) -> list[str]:
    return ["cross-architecture", str(artifact), *WORDS, *words]


def table(place: Path, protocol: str = "fadrm") -> Path:
    return place / f"cross-architecture-run-{protocol}"


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with open(f"{path}.csv", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def result_of(artifact: Path, student: str, protocol: str = "fadrm") -> dict:
    path = artifact / f"results/distilled-soft-{protocol}-{student.replace('/', '_')}.json"
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def examined(finished, tmp_path_factory):
    """The artifact after a command that was killed in the second student, and the same command again."""
    artifact = copy_artifact(finished, tmp_path_factory.mktemp("examined"))
    assert run_and_die(command(artifact), "*convnet3_narrow-soft-seed1.safetensors", 2) == -9
    before = result_of(artifact, STUDENT)
    kept = sorted(path.name for path in work_of(artifact).glob("*.safetensors"))
    assert kept == [f"fadrm-timm_convnet3_narrow-soft-seed{seed}.safetensors" for seed in range(2)]
    assert list(rows_of(table(artifact.parent))) == [STUDENT], "the table has those that are done"
    assert main(command(artifact)) == 0
    assert result_of(artifact, STUDENT) == before, "what was finished is not trained again"
    return artifact


def test_each_student_is_what_train_student_trains(examined, finished, tmp_path):
    alone = copy_artifact(finished, tmp_path)
    for student in (STUDENT, OTHER):
        assert main(["train-student", str(alone), "--student", student, "--num_seeds=2"]) == 0
        ours, expected = result_of(examined, student), result_of(alone, student)
        assert ours["top1"] == expected["top1"] and ours["settings"] == expected["settings"]
    assert [path.name for path in work_of(examined).iterdir()] == ["log.jsonl"], "no checkpoint is left"
    assert main(["verify", str(examined)]) == 0


def test_the_table_holds_what_the_results_say(examined):
    rows = rows_of(table(examined.parent))
    assert list(rows) == [STUDENT, OTHER]
    parameters = {STUDENT: "308826", OTHER: "20874"}  # less than at 32 px: 32 x (4 x 4 - 2 x 2) x 10
    for student, row in rows.items():
        values = result_of(examined, student)["top1"]["values"]
        assert float(row["top1_mean"]) == pytest.approx(statistics.fmean(values), abs=1e-6)
        assert float(row["top1_std"]) == pytest.approx(statistics.stdev(values), abs=1e-5)
        assert (row["epochs"], row["num_seeds"], row["setting"]) == (str(EPOCHS), "2", "S2")
        assert row["parameters"] == parameters[student]
    text = Path(f"{table(examined.parent)}.md").read_text()
    first = next(line for line in text.splitlines() if line.startswith("| ResNet-10, narrow |"))
    top1 = result_of(examined, STUDENT)["top1"]
    assert f"| 0.309 M | S2 | {EPOCHS} | 2 | {100 * top1['mean']:.1f} ± {100 * top1['std']:.1f} |" in first
    assert "# Students on digits, 2 images per class by fadrm, under fadrm" in text
    assert "fadrm-hf cross-architecture run" in text and "published |" not in text and "No table of the papers" in text
    document = json.loads(Path(f"{table(examined.parent)}.json").read_text())
    assert [entry["result"] for entry in document["students"]] == [result_of(examined, name) for name in rows]


def test_what_is_on_file_under_the_same_settings_is_not_trained_again(examined, tmp_path, capsys):
    artifact = copy_artifact(examined, tmp_path)
    before = files_of(artifact)
    assert main(command(artifact)) == 0
    assert files_of(artifact) == before
    assert capsys.readouterr().out == f"{table(tmp_path)}.md\n"
    assert main(["cross-architecture", str(artifact), "--students=[convnet3_narrow]", "--num_seeds=1"]) == 0
    assert result_of(artifact, OTHER)["num_seeds"] == 1
    assert result_of(artifact, STUDENT)["num_seeds"] == 2


def test_a_protocol_by_name_and_by_file_is_the_same(finished, tmp_path):
    """EDC's has another loss, batch and schedule; a value on the command line wins over both."""
    found = []
    file = Path(__file__).parent.parent.parent / "recipes/configs/protocols/edc.yaml"
    for place, protocol in (("name", "edc"), ("file", str(file))):
        artifact = copy_artifact(finished, tmp_path / place)
        words = ["--students=[convnet3_narrow]", "--protocol", protocol, "--epochs=2", "--num_seeds=1", "--lr=0.002"]
        assert main(["cross-architecture", str(artifact), *words, f"--table={tmp_path / place / 'here'}"]) == 0
        found.append(result_of(artifact, OTHER, "edc"))
        assert rows_of(tmp_path / place / "here")[OTHER]["setting"] == "lr 0.002, η 2"
    assert found[0]["settings"] == found[1]["settings"] and found[0]["top1"] == found[1]["top1"]
    assert (found[0]["settings"]["loss"], found[0]["settings"]["batch_size"]) == ("mse", 25)


def test_published_numbers_stand_beside_ours(examined, tmp_path):
    rows = [
        StudentRow(result_of(examined, STUDENT) | {"student": f"timm/{name}"}, 28_288_354, "S2", published)
        for name, published in (
            ("swin_tiny_patch4_window7_224", published_accuracies("imagenet1k", "swin_tiny", 10)),
            ("resnet18", published_accuracies("imagenet1k", "resnet18", 10)),
            ("vgg19", published_accuracies("imagenet1k", "timm/vgg19", 10)),
        )
    ]
    student_table(rows, "Title").write(tmp_path / "table", "command")
    lines = (tmp_path / "table.md").read_text().splitlines()
    head = next(line for line in lines if line.startswith("| student"))
    methods = [cell.strip() for cell in head.strip("|").split("|")][9:]
    assert sorted(methods) == sorted(f"{name}, published" for name in ("RDED", "EDC", "CV-DD", "FADRM", "FADRM+"))
    printed = {line.split("|")[1].strip(): dict(zip(methods, [c.strip() for c in line.split("|")[10:-1]], strict=True))
               for line in lines if line.startswith(("| Swin", "| ResNet-18", "| timm/vgg19"))}  # fmt: skip
    assert printed["Swin-Tiny"]["EDC, published"] == "38.3" and printed["Swin-Tiny"]["FADRM, published"] == "–"
    assert printed["ResNet-18"]["FADRM+, published"] == "50.9"
    assert set(printed["timm/vgg19"].values()) == {"–"}
    assert "Published: FADRM, Table 1; FADRM, Table 2; top-1 in percent as printed" in "\n".join(lines)
    assert rows_of(tmp_path / "table")["timm/resnet18"]["published_fadrm_plus"] == "0.509"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--students=[]"], ["students must be a list of students", "--students"]),
        (["--students=[resnet10_narrow,timm/resnet10_narrow]"], ["timm/resnet10_narrow more than once"]),
        (["--students=[resnet19,convnet3]"], ["resnet19: student 'resnet19' must be", "set --students"]),
        (["--students=[timm/resnet19,convnext_tiny]"], ["timm/resnet19: unknown", "convnext_tiny: ", "it takes 32"]),
        (["--student=resnet18"], ["--student names one student", "--students"]),
        (["--protocol=none.yaml"], ["none.yaml"]),
        (["--students=[convnet3]", "--epochs=9"], ["timm/convnet3: 9 epochs were requested", "--epochs"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(finished, place, capsys, words, expected):
    copy_artifact(finished, place)
    names_all(refused(capsys, place, "cross-architecture", "run", *words), *expected)


def test_results_of_an_artifact_on_the_hub_are_of_one_commit(hub, finished, place):
    name = f"alice/digits-{uuid.uuid4().hex[:12]}"
    words = ["cross-architecture", name, "--students=[resnet10_narrow]", "--num_seeds=1", "--epochs=1"]
    folder = place / "runs" / name.replace("/", "--")
    seen = []
    for note, num_runs in ((b"first", 2), (b"second", 1)):
        commit = hub.put(name, files_of(finished) | {"note.txt": note})
        for _ in range(num_runs):
            assert main(words) == 0
            (path,) = (folder / "results").glob("*.json")
            seen.append(path.stat().st_ino)
            assert json.loads(path.read_text())["artifact"] == {"repository": name, "revision": commit}
    assert seen[0] == seen[1] != seen[2]
    assert rows_of(folder.parent / f"cross-architecture-{folder.name}-fadrm")[STUDENT]["epochs"] == "1"
