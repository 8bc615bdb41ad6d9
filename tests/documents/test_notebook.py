"""The notebook: stored without what a run of it shows, and run from its first cell to its last."""

import nbformat
import pytest
from fixtures.runs import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "notebooks/quickstart.ipynb"
# What stands in the notebook, and what stands there when it is tested.
SMALLER = {
    "ITERATIONS, EPOCHS = 60, 40": "ITERATIONS, EPOCHS = 4, 2",
    '"--squeeze.epochs=12",': '"--squeeze.epochs=1", "--teachers.min_accuracy=0", "--ipc=5", "--patches.pool=20",',
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after it was run, small, in an empty folder by a kernel of its own."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    text = "".join(cell.source for cell in notebook.cells)
    assert all(text.count(printed) == 1 for printed in SMALLER)
    for cell in notebook.cells:
        for printed, smaller in SMALLER.items():
            cell.source = cell.source.replace(printed, smaller)
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # else a warning says that it will be so
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "jupyter"))
        place = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=None, startup_timeout=600, kernel_name="python3", resources=place)
        client.execute()
    return notebook


def shown(notebook):
    """What each cell of code ends with, by its form."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output.data for cell in cells for output in cell.outputs if output.output_type == "execute_result"]


def test_what_a_run_shows_is_not_stored():
    """Seconds and progress differ from run to run: stored, they would make every change a change of all cells."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_an_artifact_shows_itself_and_later_its_number(executed):
    before, batch, after, tables, image = shown(executed)
    assert "data:image/png;base64," in before["text/html"]
    assert before["text/plain"].startswith(
        "<Distilled runs/notebook: digits distilled by FADRM, 5 images per class; 50 images"
    )
    row = "distilled images + soft labels"
    assert row not in before["text/html"] and row in after["text/html"]
    assert batch["text/plain"].startswith("(torch.Size([16, 3, 16, 16])")
    assert "num_rows: 50" in tables["text/plain"] and "num_rows: 100" in tables["text/plain"]
    assert "image/png" in image
