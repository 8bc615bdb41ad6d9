"""Nothing from outside is executed, nothing leaves its folder, and nothing of this machine or its user is told."""

import ast
import os
import platform
import re
import shutil
from functools import lru_cache
from pathlib import Path

import pytest
import yaml
from fixtures import artifacts
from fixtures.limited import read_everything, refusal
from fixtures.runs import ROOT, distill, work_of
from fixtures.tables import edit_manifest

import fadrm_hf.config.file as settings_file
from fadrm_hf.cli import main
from fadrm_hf.errors import ArtifactError
from fadrm_hf.runtime.run_folder import inner_path

ROOMS = ("fadrm_hf", "builders", "cards", "recipes")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
UNPICKLING = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
EXECUTING = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
YAML_THAT_MAKES_OBJECTS = {"unsafe_load", "full_load", "load_all", "full_load_all", "unsafe_load_all"}


@lru_cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    found = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in found]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_executes_what_it_reads(path):
    tree = tree_of(path)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported}.isdisjoint(UNPICKLING | {"subprocess"})
    for function, call in calls(path):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert function not in EXECUTING
        assert function.rpartition(".")[2] not in YAML_THAT_MAKES_OBJECTS
        assert given.get("trust_remote_code", "False") == given.get("allow_pickle", "False") == "False"
        assert "shell" not in given and not function.endswith("read_pickle")
        if function == "yaml.load":
            loader = getattr(settings_file, ast.unparse(call.args[1]))
            assert path.name == "file.py" and issubclass(loader, yaml.SafeLoader)


def test_only_the_importer_reads_what_torch_saved_and_only_tensors_and_numbers():
    loads = [(path, call) for path in SOURCES for name, call in calls(path) if name == "torch.load"]
    assert [path.relative_to(ROOT).as_posix() for path, _ in loads] == ["fadrm_hf/pipeline/legacy/label_files.py"]
    assert {keyword.arg: ast.unparse(keyword.value) for keyword in loads[0][1].keywords}["weights_only"] == "True"


@pytest.mark.parametrize("path", sorted((ROOT / "cards").glob("*.md")), ids=lambda path: path.stem)
def test_no_card_asks_its_reader_to_run_remote_code(path):
    assert re.search(r"trust_remote_code|pickle|torch\.load|(?<![.\w])(eval|exec)\(", path.read_text()) is None


# Places


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return artifacts.make_artifact(tmp_path_factory.mktemp("made") / "run")


@pytest.mark.parametrize("name", ["a/../../x", "/x", "//x", "C:/x", "c:x", "a\\..\\x", "..", "", ".", "\0", "a\0/x"])
def test_a_name_that_leads_out_of_an_artifact_is_no_path(made, name):
    with pytest.raises(ArtifactError, match="expected a path inside the artifact"):
        inner_path(made, name)


@pytest.mark.parametrize("name", ["link", "folder/link", "link/inside"])
def test_a_link_is_no_path_wherever_it_leads(tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    run = tmp_path / "run"
    (run / "folder").mkdir(parents=True)
    for link in (run / "link", run / "folder/link"):
        link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="symbolic link"):
        inner_path(run, name)


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "fadrm.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(made, tmp_path, capsys, name):
    folder = artifacts.copy_artifact(made, tmp_path / "run")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert main(["verify", str(folder), "--leakage=false"]) == 2
    assert "no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "claim",
    [{"ipc": 10**12}, {"pixels": {"size": 4096, "mean": [0.5] * 3, "std": [1.0] * 3}}, {"label_codec": "top999999"}],
    ids=lambda claim: next(iter(claim)),
)
def test_memory_is_taken_for_what_is_there_not_for_what_has_begun(made, tmp_path, claim):
    folder = artifacts.copy_artifact(made, tmp_path / "run")
    edit_manifest(folder, **claim)
    assert refusal(96, read_everything, str(folder))


# Secrets

TOKEN, USER = "hf_" + "Zq7" * 11 + "Z", "mallory-the-user"


def test_nothing_that_is_written_tells_the_token_the_user_the_host_or_a_folder(finished, tmp_path, monkeypatch):
    """A run and students of it, with paths from the root in every argument."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for variable in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(variable, USER)
    shutil.copytree(finished.with_name("teachers"), tmp_path / "teachers")
    (teacher,) = (tmp_path / "teachers").iterdir()
    run = distill(
        tmp_path / "run", "--method=random_real", "--relabel.batch_size=32",
        f"--teachers.names=[timm/local-dir:{teacher}]",
    )  # fmt: skip
    results = tmp_path / "results of mine"
    for where in ([], [f"--output={results}"], ["--output", str(results), "--labels=hard"]):
        assert main(["train-student", str(run), "--epochs=1", "--num_seeds=1", *where]) == 0
    secrets = [re.escape(secret) for secret in (TOKEN, USER, str(tmp_path), f"{Path.home()}/", str(ROOT))]
    host = rf"\b{re.escape(platform.node())}\b"  # it may be so short that pixels spell it
    folders = [run, work_of(run), results, work_of(results)]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and "locks" not in file.parts]
    written = {file.name for file in files}
    assert {"fadrm.json", "recipe.yaml", "recipe.json", "README.md", "log.jsonl"} <= written and len(files) > 20
    texts = {file for file in files if file.suffix in (".json", ".jsonl", ".md", ".yaml")}
    told = {
        (file.name, secret)
        for file in files
        for secret in [*secrets, *([host] if file in texts else [])]
        if re.search(secret.encode(), file.read_bytes())
    }
    assert told == set()
