"""What the documents say: their code runs, where only what they ask for can be imported."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures.alone import run_without_the_library
from fixtures.runs import copy_artifact, distill

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.training.loader import load_distilled

PAGE = (Path(__file__).parent.parent.parent / "docs/any_framework.md").read_text("utf-8")
PROGRAM, _, DECODERS = PAGE.partition("## JAX")
NAME = "runs/fadrm-digits-ipc10"  # as the page calls its artifact

SAVE = """
epoch = [np.concatenate(parts) for parts in zip(*steps(0))]
np.savez("epoch.npz", views=epoch[0], classes=epoch[1], logits=epoch[2], outputs=outputs, last=logits, loss=loss)
"""


def code(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def decoder(codec: str) -> str:
    """What the page gives for a codec."""
    return code(DECODERS.partition(f"\n`{re.sub('[0-9]+$', '<k>', codec) if codec.startswith('top') else codec}`")[2])[
        0
    ]


@pytest.fixture(scope="module")
def flipped(finished):
    """Digits are neither mirrored nor mosaics; here half of them are mirrored, and all are shuffled as mosaics are."""
    options = ("--relabel.flip_probability=0.5", "--relabel.shuffle_tiles=2")
    return distill(finished.with_name("flipped"), "--method=random_real", *options)


@pytest.mark.parametrize("codec", ["float16", "int4", "top3"])
def test_the_page_reads_views_and_labels_without_torch(codec, flipped, tmp_path):
    folder = tmp_path / NAME
    folder.parent.mkdir()
    if codec == "float16":
        copy_artifact(flipped, folder.parent).rename(folder)
    else:
        recode(flipped, folder, codec, None)
    program = "\n".join(code(PROGRAM)).replace(code(PROGRAM)[2], decoder(codec))
    run_without_the_library(program + SAVE, tmp_path)

    found = np.load(tmp_path / "epoch.npz")
    batches = list(load_distilled(folder).batches(range(1)))
    views = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    one_level = 1 / 255 / min(read_manifest(folder).pixels.std)
    np.testing.assert_allclose(found["views"], views, rtol=0, atol=1e-3 * one_level)
    assert np.array_equal(found["classes"], torch.cat([batch.labels for batch in batches]).numpy())
    assert np.array_equal(found["logits"], torch.cat([batch.logits for batch in batches]).numpy())
    output, target = torch.from_numpy(found["outputs"]) / 20, torch.from_numpy(found["last"]).double() / 20
    expected = F.kl_div(output.log_softmax(1), target.softmax(1), reduction="batchmean")
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-3)


def test_the_page_has_the_decoder_of_every_codec():
    assert code(PROGRAM)[2] == decoder("float16")
    for codec in ("float16", "int8", "int4", "top10"):
        assert decoder(codec) == find_codec(codec).decode_snippet
