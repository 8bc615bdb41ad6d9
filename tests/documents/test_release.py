"""What is released: complete, described, and at work where there is nothing but what it installs."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
import yaml
from fixtures.runs import ROOT
from packaging.version import Version

import fadrm_hf
from fadrm_hf.methods.fadrm import PAPER
from fadrm_hf.training.loader import load_distilled

PLACES = {  # where folders of the repository are in the installed library
    "fadrm_hf/": "fadrm_hf/",
    "builders/": "fadrm_hf/builders/",
    "cards/": "fadrm_hf/cards/",
    "recipes/configs/": "fadrm_hf/recipes/",
}
SMALL = (
    "--squeeze.epochs=1", "--teachers.min_accuracy=0", "--teachers.gate_images=20", "--patches.pool=20",
    "--patches.crops_per_image=1", "--method.iterations=4", "--relabel.epochs=1", "--student.epochs=1",
)  # fmt: skip


def of_the_repository():
    """Every file that is or would be committed."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution and the wheel that is built from it, from a copy of the repository without leftovers."""
    folder = tmp_path_factory.mktemp("release")
    for name in of_the_repository():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "source" / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(folder / "source")]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


def test_the_source_distribution_is_the_repository(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert of_the_repository() - names == set()


def test_the_wheel_is_the_library_with_its_recipes_and_nothing_else(built):
    files = {
        f"{place}{name.removeprefix(folder)}"
        for folder, place in PLACES.items()
        for name in of_the_repository()
        if name.startswith(folder)
    }
    about = f"fadrm_hf-{fadrm_hf.__version__}.dist-info/"
    names = zipfile.ZipFile(built[1]).namelist()
    assert {name for name in names if not name.startswith(about)} == files
    assert {"fadrm_hf/py.typed", "fadrm_hf/recipes/digits/fadrm_ipc10.yaml"} <= files


def test_what_an_index_would_show_is_in_order(built):
    check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(built[1]) as wheel:
        about = HeaderParser().parsestr(wheel.read(f"fadrm_hf-{fadrm_hf.__version__}.dist-info/METADATA").decode())
    assert about["License-Expression"] == "Apache-2.0" and about["Requires-Python"] == ">=3.10"


def test_the_installed_wheel_distils_where_there_is_nothing_else(built, tmp_path):
    """Dependencies are seen through a .pth, which runs none of theirs: neither this checkout nor its editable self."""
    home, desk = tmp_path / "installed", tmp_path / "desk"
    desk.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--disable-pip-version-check", str(built[1])], check=True)
    (packages,) = home.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    where = "import fadrm_hf, fadrm_hf.recipes as r; print(fadrm_hf.__file__, r.__file__)"
    found = subprocess.run([python, "-c", where], cwd=desk, env=alone, capture_output=True, text=True, check=True)
    assert [Path(path).is_relative_to(home) for path in found.stdout.split()] == [True, True]

    command = [str(home / "bin/fadrm-hf"), "distill", "--config", "digits/fadrm_ipc1", *SMALL]
    done = subprocess.run(command, cwd=desk, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert load_distilled(desk / "runs/fadrm-digits-ipc1").images.shape == (10, 3, 16, 16)


def test_the_version_is_semantic_and_its_changes_are_told():
    version, text = fadrm_hf.__version__, (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version) and str(Version(version)) == version
    releases = re.findall(r"^## \[(.+?)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert releases == re.findall(r"^## \[(.+?)\]", text, re.MULTILINE), "a release has a date"
    assert releases[0] == "Unreleased" and (version in releases or f"Will be {version}." in text)
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_complete_and_true():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"authors", "cff-version", "message", "title"} <= set(citation)  # what the format requires
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", fadrm_hf.__version__)
    paper = citation["preferred-citation"]
    assert {"authors", "title", "type"} <= set(paper)
    assert (paper["title"], paper["url"]) == (PAPER.title, PAPER.url)
    names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert names in PAPER.bibtex and f"year = {{{paper['year']}}}" in PAPER.bibtex
