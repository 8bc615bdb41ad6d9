"""The house rules that a reader would otherwise have to check by eye."""

import ast
import importlib.metadata
import re
import subprocess
from dataclasses import fields, replace
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from fadrm_hf.artifact.manifest import parse_settings
from fadrm_hf.config import RelabelConfig, RunConfig, StudentConfig
from fadrm_hf.config.datasets import PRESETS, resolve
from fadrm_hf.methods import find_method
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.settings import SECTIONS

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("fadrm_hf", "builders", "cards", "recipes")
CONFIGS = ROOT / "recipes/configs"
APART = ("ablations", "compare", "protocols", "small")
RUNS = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name not in APART)

# The rooms in the order in which data flows. A module may import from its own room and from those before it.
ORDER = (
    "errors", "config", "runtime", "data", "networks", "recovery", "methods", "labels", "builders", "artifact",
    "cards", "report", "hub", "training", "pipeline", "evaluation", "publishing", "commands", "cli",
)  # fmt: skip
METHODS_THAT_EXTEND = {
    ("methods.cda", "methods.sre2l"),
    ("methods.lpld", "methods.sre2l"),
    ("methods.delt", "methods.cda"),
    ("methods.sre2l_pp", "methods.sre2l"),
    ("methods.cv_dd", "methods.sre2l_pp"),
    ("methods.edc", "methods.g_vbsm"),
    ("methods.fadrm_plus", "methods.fadrm"),
    ("methods.psm", "methods.fadrm"),
}


def library() -> dict[str, Path]:
    """Every module of the library by its name below `fadrm_hf`; packages carry the name of their folder."""
    found = {}
    for base, prefix in ((ROOT / "fadrm_hf", ()), (ROOT / "builders", ("builders",)), (ROOT / "cards", ("cards",))):
        for path in base.rglob("*.py"):
            parts = (*prefix, *path.relative_to(base).with_suffix("").parts)
            name = ".".join(part for part in parts if part != "__init__")
            if name:
                found[name] = path
    return found


def imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """The library modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import; write it out"
            imported = {f"{node.module}.{alias.name}" for alias in node.names}
            parts = {name for name in imported if name.removeprefix("fadrm_hf.") in modules}
            names |= (
                parts if parts == imported else imported | {str(node.module)}
            )  # parts of a package, or the package
    below = {name.removeprefix("fadrm_hf.") for name in names if name.startswith("fadrm_hf.")}
    return below & set(modules)


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def test_the_top_level_is_the_house_that_the_design_draws():
    folders = ("fadrm_hf", "builders", "recipes", "cards", "docs", "tests", "benchmarks", "results")
    files = ("pyproject.toml", "README.md", "Makefile", "LICENSE", "CONTRIBUTING.md", "constraints.txt")
    hidden = (".pre-commit-config.yaml", ".ci/run", ".gitignore")
    assert [name for name in folders if not (ROOT / name).is_dir()] == []
    assert [name for name in files + hidden if not (ROOT / name).is_file()] == []
    assert not list(ROOT.glob("*.py")), "programs live in recipes/"


def test_the_wheel_holds_every_package():
    section = (ROOT / "pyproject.toml").read_text().partition("\npackages = [")[2].partition("]")[0]
    listed = re.findall(r'"([\w.]+)"', section)
    inside = (path.parent.relative_to(ROOT) for path in (ROOT / "fadrm_hf").rglob("__init__.py"))
    expected = {".".join(path.parts) for path in inside} | {"fadrm_hf.builders", "fadrm_hf.cards", "fadrm_hf.recipes"}
    assert sorted(listed) == sorted(expected)


def test_no_file_is_longer_than_400_lines():
    lengths = {path: len(path.read_text().splitlines()) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > 400} == {}


def test_no_function_is_longer_than_60_lines():
    functions = [
        (f"{path.relative_to(ROOT)}: {node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    assert len(functions) > 1000
    assert [name for name, lines in functions if lines > 60] == []


def test_no_module_is_named_after_nothing():
    assert {"utils", "common", "helpers", "misc"}.isdisjoint(path.stem for path in library().values())


def test_there_is_no_loose_module_and_every_room_says_what_it_is():
    """A metric's script is read by `evaluate.load`, and so lies in a folder that is no package."""
    modules = library()
    assert {name.split(".")[0] for name in modules} == set(ORDER)
    loose = {path.stem for path in (ROOT / "fadrm_hf").glob("*.py")}
    assert loose == {"__init__", "errors", "cli"}
    for name in ORDER:
        assert len((ast.get_docstring(ast.parse(modules[name].read_text())) or "").split(".")[0]) > 20, name


def test_modules_import_only_from_rooms_before_their_own():
    modules = library()
    place = {name: ORDER.index(name.split(".")[0]) for name in modules}
    backwards = {
        f"{name} imports {other}"
        for name, path in modules.items()
        for other in imports(path, modules)
        if place[other] > place[name]
    }
    assert backwards == set()


def test_tests_mirror_the_rooms():
    """Beside the rooms: what attacks, what is written about the library, and what a GPU would do."""
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders <= set(ORDER) | {"robustness", "documents", "no_op_device"}


def test_imports_form_no_cycle():
    modules = library()
    graph = {name: imports(path, modules) - {name} for name, path in modules.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


def test_no_method_imports_another_unless_it_extends_it():
    modules = library()
    shared = {"methods.method"}
    methods = {name: path for name, path in modules.items() if name.startswith("methods.") and name not in shared}
    pairs = {(name, other) for name, path in methods.items() for other in imports(path, modules) & set(methods)}
    assert pairs <= METHODS_THAT_EXTEND


def test_recipes_are_programs_that_nothing_imports():
    for path in (ROOT / "recipes").glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 120, path.name
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(text))), path.name
    importing = re.compile(r"^\s*(from|import) recipes\b", re.MULTILINE)
    assert not [path for path in library().values() if importing.search(path.read_text())]


@pytest.mark.parametrize("name", sorted(library()))
def test_the_library_reads_no_pickle_runs_no_remote_code_and_prints_nothing(name: str):
    path = library()[name]
    imported = {alias.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)
                for alias in node.names}  # fmt: skip
    assert imported.isdisjoint({"pickle", "cloudpickle", "dill", "joblib"})
    for call in calls(path):
        function = ast.unparse(call.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert function != "print"
        assert given.get("trust_remote_code", "False") == "False"
        assert given.get("allow_pickle", "False") == "False"
        if function == "torch.load" or function.endswith("load_state_dict_from_url"):
            assert given.get("weights_only") == "True", f"{function} at line {call.lineno}"


CLOCKS = {f"time.{name}{unit}" for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")
          for unit in ("", "_ns")}  # fmt: skip


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_no_test_decides_by_a_clock(path: Path):
    """A machine may be busy: benchmarks measure what must be quick, and pytest-timeout ends what hangs."""

    def read(node: ast.AST) -> set[str]:
        return {ast.unparse(part) for part in ast.walk(node) if isinstance(part, ast.Name | ast.Attribute)}

    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef):
            continue
        measured, nodes = set(CLOCKS), list(ast.walk(function))
        for assigned in sorted((node for node in nodes if isinstance(node, ast.Assign)), key=lambda node: node.lineno):
            if read(assigned.value) & measured:
                parts = (part for target in assigned.targets for part in ast.walk(target))
                measured |= {ast.unparse(part) for part in parts if isinstance(getattr(part, "ctx", None), ast.Store)}
        for node in nodes:
            asked = node.test if isinstance(node, ast.Assert | ast.If | ast.IfExp | ast.While) else None
            assert asked is None or not read(asked) & measured, f"line {node.lineno}: {ast.unparse(asked)}"


def test_constraints_hold_a_tested_version_of_every_dependency():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {pin.name.lower().replace("_", "-"): pin.specifier for pin in map(Requirement, lines)}
    for text in importlib.metadata.requires("fadrm-hf") or []:
        needed = Requirement(text)
        (exact,) = pinned[needed.name.lower().replace("_", "-")]
        assert exact.operator == "=="
        assert needed.specifier.contains(exact.version), f"{needed} is tested with {exact.version}"


def test_every_lower_bound_is_the_version_that_is_tried():
    """`make test-lowest` installs them all, on the lowest Python."""
    lines = [line for line in (ROOT / "constraints-lowest.txt").read_text().splitlines() if not line.startswith("#")]
    tried = {pin.name: Version(next(iter(pin.specifier)).version) for pin in map(Requirement, lines)}
    needed = [Requirement(text) for text in importlib.metadata.requires("fadrm-hf") or []]
    bounds = {each.name: Version(next(iter(each.specifier)).version) for each in needed if each.marker is None}
    assert bounds == {name: tried[name] for name in bounds}


def test_nothing_looks_beside_the_repository():
    """Only CI knows of a folder beside it, and names it to the tests in a variable."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    programs = [
        ROOT / name for name in listed if name.endswith((".py", ".sh", ".yaml", ".toml", "Makefile", ".ipynb"))
    ]
    beside = re.compile(r"\.\./" + "shared|[\"']" + "shared[\"'/]")
    assert [path.name for path in programs if path.exists() and beside.search(path.read_text())] == []


def test_the_readme_opens_with_the_two_commands():
    opening = (ROOT / "README.md").read_text()[:400]
    assert re.search(r"```\w*\nmake demo\b.*\nmake test\b.*\n```", opening)


def test_every_dataset_of_the_issue_has_every_run():
    datasets = ("digits", "cifar10", "cifar100", "tiny_imagenet", "imagenette", "imagewoof", "imagenet1k")
    wanted = {
        f"{data}/{method}_ipc{ipc}" for data in datasets for method in ("fadrm", "fadrm_plus") for ipc in (1, 10, 50)
    }
    have = {f"{path.parent.name}/{path.stem}" for path in RUNS}
    assert wanted | {"digits/random_real_ipc10"} == have


def read_run(path: Path) -> RunConfig:
    return parse_run(["--config", str(path)])


def run_id(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", RUNS, ids=run_id)
def test_a_run_leaves_no_value_to_a_default(path: Path):
    values = yaml.safe_load(path.read_text())
    assert set(values) == {item.name for item in fields(RunConfig)}
    for name, kind in SECTIONS.items():
        assert set(values[name]) == {item.name for item in fields(kind)}, name
    method = find_method(values["method"].pop("name"))
    assert set(values["method"]) == {item.name for item in fields(method)}
    # A Hub dataset's configuration and commit may stay open: what was read is recorded in the artifact.
    open_values = {f"{name}.{key}" for name in SECTIONS for key, value in values[name].items() if value is None}
    # `null` is a value where it means that there is none, or that all are meant.
    none = {"relabel.stored_epochs", "student.hard_phase", "student.ema", "student.relabel"}
    as_labelled = {"student.batch_size", "student.accumulation"}
    every = {"source.classes", "statistics.images_per_class", "relabel.num_teachers"}
    by_size = {"statistics.patch_side", "recover.form"}
    none |= {"source.test_fraction", "source.bands", "source.value_range"}
    assert open_values <= {"source.config_name", "source.revision"} | none | as_labelled | every | by_size


@pytest.mark.parametrize("path", RUNS, ids=run_id)
def test_a_run_is_named_after_what_it_does(path: Path):
    run = read_run(path)
    assert path.stem == f"{run.method.name}_ipc{run.ipc}"
    assert run.source.preset == path.parent.name
    start, end = run.method.name.replace("_", "-"), f"-ipc{run.ipc}"
    assert run.output.startswith(f"runs/{start}-") and run.output.endswith(end)


@pytest.mark.parametrize("path", sorted((CONFIGS / "small").glob("*.yaml")), ids=run_id)
def test_a_small_run_is_complete(path: Path):
    values, run = yaml.safe_load(path.read_text()), read_run(path)
    assert set(values) == {item.name for item in fields(RunConfig)}
    assert run.output.endswith("-small") and run.recover.precision == "fp32"
    assert run.method.resolve(run.source.size) == run.method


def test_no_two_runs_share_a_folder():
    outputs = [yaml.safe_load(path.read_text())["output"] for path in [*RUNS, *(CONFIGS / "small").glob("*.yaml")]]
    assert len(set(outputs)) == len(outputs)


@pytest.mark.parametrize("path", RUNS, ids=run_id)
def test_a_run_can_run(path: Path):
    run = read_run(path)
    assert run.source.size is not None
    assert run.method.resolve(run.source.size) == run.method
    assert len(run.teachers.names) >= run.method.min_teachers
    assert run.student.epochs == run.relabel.epochs


@pytest.mark.parametrize("path", RUNS, ids=run_id)
def test_a_run_agrees_with_its_preset(path: Path):
    run = read_run(path)
    assert run.source.preset is not None
    preset = PRESETS[run.source.preset]
    opened = replace(
        run,
        source=replace(run.source, size=None, mean=None, std=None, licence=None),
        squeeze=replace(run.squeeze, epochs=None, batch_size=None, lr=None, crop=None, flip_probability=None),
        recover=replace(run.recover, max_roll=None, flip_probability=None, batch_size=None),
        relabel=replace(run.relabel, flip_probability=None),
        student=replace(run.student, lr=None, eta=None),
    )
    resolved = resolve(opened)
    assert resolved.recover.form in ("compiled", "eager")
    assert replace(resolved, recover=replace(resolved.recover, form=None)) == run
    assert run.squeeze.padding == preset.squeeze.padding
    if preset.name != "digits":  # the demo trains for fewer epochs
        assert run.relabel.epochs == preset.label_epochs[run.ipc]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("protocols/*.yaml")), ids=lambda path: path.stem)
def test_a_protocol_leaves_no_value_to_a_default(path: Path):
    values = yaml.safe_load(path.read_text())
    assert list(values) == [item.name for item in fields(StudentConfig)]
    assert values["relabel"] is None or list(values["relabel"]) == [item.name for item in fields(RelabelConfig)]
    assert parse_settings(values, StudentConfig, path.stem).name == path.stem
