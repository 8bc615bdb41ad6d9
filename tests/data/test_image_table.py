"""Image tables in parts and on disk hold the same rows as one tensor in memory."""

from pathlib import Path

import pytest
import torch

from fadrm_hf.config import RelabelConfig
from fadrm_hf.data.image_table import ImageTable, empty_images
from fadrm_hf.data.views import LabelViews, render_views
from fadrm_hf.labels.relabel import label_epoch
from fadrm_hf.runtime import tensor_files
from fadrm_hf.runtime.randomness import generator

pytestmark = pytest.mark.numerical


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (37, 3, 8, 8), dtype=torch.uint8, generator=generator(0, "table"))


@pytest.fixture(scope="module")
def table(images, tmp_path_factory):
    """The same images in files of several sizes, one of them with a single image."""
    folder, parts = tmp_path_factory.mktemp("parts"), []
    for index, part in enumerate(images.split([10, 1, 20, 6])):
        tensor_files.save_tensors(folder / f"{index}.safetensors", {"images": part})
        parts.append(tensor_files.load_tensors(folder / f"{index}.safetensors")["images"])
    return ImageTable(parts)


@pytest.mark.parametrize("rows", [[0], [36, 10, 9, 11, 10, 0], [], list(range(37))], ids=len)
def test_rows_come_in_the_order_asked_for(images, table, rows):
    rows = torch.tensor(rows, dtype=torch.int64)
    assert torch.equal(table[rows], images[rows])
    assert table.shape == images.shape and len(table) == len(images)


def test_views_of_a_table_are_those_of_a_tensor(images, table):
    views = LabelViews.draw(torch.randperm(37), 8, (0.1, 1.0), 0.5, True, generator(1, "views"))
    assert torch.equal(render_views(table, views), render_views(images, views))


def test_the_views_that_are_drawn_do_not_depend_on_where_images_are(images, table):
    config = RelabelConfig(epochs=1, batch_size=8, flip_probability=0.5)
    drawn, expected = (label_epoch(where, None, config, 0, 0) for where in (table, images))
    assert drawn.keys() == expected.keys()
    assert all(torch.equal(drawn[name], expected[name]) for name in expected)


def test_images_beyond_the_limit_lie_in_a_file_without_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    on_disk, in_memory = empty_images(5, 16, in_memory_bytes=0), empty_images(5, 16)
    assert list(tmp_path.iterdir()) == []
    for at in range(5):
        on_disk[at] = in_memory[at] = torch.full((3, 16, 16), at)
    assert torch.equal(on_disk, in_memory)
    assert str(tmp_path) in Path("/proc/self/maps").read_text()


@pytest.mark.gpu
def test_a_table_too_large_for_a_gpu_gives_it_rows(images, table, monkeypatch):
    device = torch.device("cuda")
    whole = table.to(device)
    assert isinstance(whole, torch.Tensor) and torch.equal(whole.cpu(), images)
    monkeypatch.setattr("fadrm_hf.data.image_table._SHARE_OF_GPU", 0.0)
    rows = torch.tensor([3, 30], device=device)
    assert torch.equal(table.to(device)[rows].cpu(), images[[3, 30]])
