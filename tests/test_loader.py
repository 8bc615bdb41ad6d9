"""Training batches against what was labelled, bit for bit."""

import pytest
import torch
from fixtures.runs import BATCH, EPOCHS, work_of

from fadrm_hf.artifact import read_manifest
from fadrm_hf.artifact.recorded_teachers import recorded_labeller
from fadrm_hf.errors import ArtifactError, StudentError
from fadrm_hf.files import load_tensors
from fadrm_hf.loader import load_distilled
from fadrm_hf.sources.images import normalise
from fadrm_hf.views import LabelViews, render_views


@pytest.fixture(scope="module")
def distilled(finished):
    return load_distilled(finished)


@pytest.fixture(scope="module")
def labelled(finished):
    """What relabelling left behind: the pixels it saw, and the columns of every step, epoch by epoch."""
    work = work_of(finished)
    images = torch.cat([load_tensors(file)["images"] for file in sorted((work / "recovered").glob("*"))])
    steps = []
    for file in sorted((work / "soft_labels").glob("*")):
        columns = load_tensors(file)
        steps += [{name: column[columns["step"] == step] for name, column in columns.items()} for step in range(2)]
    return images, steps


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_student_sees_the_labelled_views_bit_for_bit(distilled, labelled, num_workers):
    images, steps = labelled
    batches = list(distilled.batches(range(EPOCHS), num_workers=num_workers))
    assert [len(batch.labels) for batch in batches] == [BATCH, 20 - BATCH] * EPOCHS
    for batch, columns in zip(batches, steps, strict=True):
        shown = render_views(images, LabelViews.from_columns(columns))
        assert torch.equal(batch.images, normalise(shown, *distilled.normalisation))
        assert torch.equal(batch.logits, columns["logits"].float())
        assert torch.equal(batch.labels, columns["image"].long() % 10)


def test_the_recorded_teachers_give_the_stored_labels_bit_for_bit(finished, labelled):
    images, steps = labelled
    labeller = recorded_labeller(finished, read_manifest(finished), torch.device("cpu"))
    for columns in steps:
        again = labeller.label(images, LabelViews.from_columns(columns))
        assert torch.equal(again.half(), columns["logits"])


def test_some_epochs_are_the_same_as_among_all(distilled):
    everything = list(distilled.batches(range(EPOCHS)))
    part = list(distilled.batches(range(2, EPOCHS)))
    assert all(torch.equal(a.images, b.images) for a, b in zip(everything[4:], part, strict=True))


def test_unmixed_batches_show_each_image_alone(distilled, labelled):
    images, steps = labelled
    mixed, alone = (next(distilled.batches(range(1), mixed=choice)) for choice in (True, False))
    nothing_mixed = steps[0] | {"mix_image": torch.full_like(steps[0]["mix_image"], -1)}
    shown = render_views(images, LabelViews.from_columns(nothing_mixed))
    assert torch.equal(alone.images, normalise(shown, *distilled.normalisation))
    assert not torch.equal(alone.images, mixed.images)
    assert torch.equal(alone.labels, mixed.labels)


def test_more_epochs_than_labels_are_refused_with_the_remedy(distilled):
    with pytest.raises(StudentError, match=r"5 epochs are asked for.*labels for 4.*--relabel\.epochs 5"):
        distilled.batches(range(EPOCHS + 1))


def test_a_folder_that_is_no_artifact_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="it is no artifact, or an unfinished one"):
        load_distilled(tmp_path)
