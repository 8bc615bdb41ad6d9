"""Batches that are rendered together with those after them: the same as one by one, bit for bit."""

import numpy as np
import pytest
import torch

from fadrm_hf.artifact.reading import read_soft_labels
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.runtime.transfer import send
from fadrm_hf.training import rendering
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.rendering import Rendering, render_blocks

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def distilled(finished):
    return load_distilled(finished)


@pytest.mark.parametrize("is_mixed", [True, False])
@pytest.mark.parametrize("most", [1, 40, 10**6])  # views in a block: less than a step has, two steps, all
def test_blocks_are_handed_out_step_by_step(distilled, most, is_mixed, monkeypatch):
    monkeypatch.setattr(rendering, "_BLOCK_PIXELS", most * distilled.images.shape[-1] ** 2)
    codec, columns = find_codec(distilled.manifest.label_codec), read_soft_labels(distilled.folder, 0)
    ends = np.cumsum(distilled.step_sizes)[:-1]
    steps = [
        dict(zip(columns, parts, strict=True))
        for parts in zip(*(np.split(c, ends) for c in columns.values()), strict=True)
    ]
    drawn = Rendering(distilled.images, distilled.labels, distilled.normalisation, is_mixed, codec, 10, CPU)
    blocks = list(render_blocks(drawn, iter(steps), None))
    assert len(blocks) == len(steps)
    for found, expected in zip(blocks, distilled.batches(range(1), is_mixed, labels="stored"), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))
        assert found.images.is_contiguous(memory_format=torch.channels_last)


def test_labels_made_for_a_block_are_those_of_its_steps(finished):
    online = load_distilled(finished, online=True)
    columns = read_soft_labels(online.folder, 0)
    ends = np.cumsum(online.step_sizes)[:-1]
    steps = [
        dict(zip(columns, parts, strict=True))
        for parts in zip(*(np.split(c, ends) for c in columns.values()), strict=True)
    ]
    drawn = Rendering(online.images, online.labels, online.normalisation, True, None, 10, CPU)
    together = list(render_blocks(drawn, iter(steps), online._labeller(CPU)))
    for found, expected in zip(together, online.batches(range(1)), strict=True):
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
        assert not found.logits.is_inference()  # so that a loss may keep it


def test_tensors_of_any_kind_arrive_as_they_are():
    tensors = [torch.arange(5), torch.rand(3, 2), torch.tensor([True]), torch.empty((4, 0)), torch.tensor(2.0)]
    assert all(torch.equal(x, y) for x, y in zip(send(tensors, CPU), tensors, strict=True))
