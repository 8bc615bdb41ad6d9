"""Training batches against what was labelled, bit for bit, from wherever and however often they are read."""

import gc
import subprocess
import sys
import threading
import weakref
from dataclasses import replace

import pytest
import torch
from fixtures import artifacts
from fixtures.runs import BATCH, EPOCHS, copy_artifact, copy_run, work_of
from fixtures.tables import LABELS, groups_of, rehash, split_labels, train_longer, write_groups

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.artifact.reading import read_soft_labels
from fadrm_hf.artifact.recorded_teachers import load_recorded_teachers, recorded_labeller
from fadrm_hf.config import RelabelConfig
from fadrm_hf.data.pixels import normalise
from fadrm_hf.data.views import LabelViews, render_views
from fadrm_hf.errors import ArtifactError, StudentError
from fadrm_hf.labels.relabel import Labeller, label_epoch
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.runtime.number_format import rounding_products
from fadrm_hf.runtime.shards import join_world
from fadrm_hf.runtime.tensor_files import load_tensors
from fadrm_hf.training.label_stream import read_ahead
from fadrm_hf.training.loader import load_distilled
from fadrm_hf.training.reuse import stored_epoch_of

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
REUSED = 7  # epochs of training that three stored ones serve


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


@pytest.fixture(scope="module")
def reused(tmp_path_factory):
    """Three stored epochs of two steps, in two files, for seven epochs of training."""
    folder = artifacts.make_artifact(tmp_path_factory.mktemp("reused") / "run")
    return load_distilled(train_longer(split_labels(folder, 2), REUSED))


@pytest.fixture
def artifact(tmp_path):
    return artifacts.make_artifact(tmp_path / "run")


def same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(("read-labels", "fetch-labels"))]


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


def test_labels_made_while_training_are_the_stored_ones(finished, distilled):
    online = load_distilled(finished, online=True).batches(range(EPOCHS), num_workers=1)
    for made, stored in zip(online, distilled.batches(range(EPOCHS)), strict=True):
        assert torch.equal(made.logits.half(), stored.logits.half())
        assert not made.logits.is_inference()  # so that a loss may keep it
        assert torch.equal(made.images, stored.images)


def test_a_program_that_has_labels_made_keeps_its_number_formats(finished):
    """Teachers label as the artifact says; what the program itself trains in is its own affair."""
    with rounding_products("tf32"):
        with load_distilled(finished, online=True).batches(range(1)) as batches:
            next(batches)
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
        join_world()
        assert not torch.backends.cudnn.allow_tf32, "a command is all ours"


def test_an_artifact_without_labels_has_them_made(finished, distilled, tmp_path):
    run = copy_run(finished, tmp_path)
    recode(run, tmp_path / "views", "none", None)
    views = load_distilled(tmp_path / "views")
    for made, stored in zip(views.batches(range(1, 3)), distilled.batches(range(1, 3)), strict=True):
        assert torch.equal(made.logits.half(), stored.logits.half())
    with pytest.raises(ArtifactError, match="stores no labels"):
        views.batches(range(1), labels="stored")
    assert next(views.batches(range(1), mixed=False)).logits.shape == (BATCH, 0)


def test_a_codec_is_decoded_as_it_says(finished, distilled, tmp_path):
    run = copy_run(finished, tmp_path)
    recode(run, tmp_path / "int8", "int8", None)
    coded = load_distilled(tmp_path / "int8")
    stored = torch.from_numpy(read_soft_labels(tmp_path / "int8", 0)["logits"])
    assert torch.equal(torch.cat([batch.logits for batch in coded.batches(range(1))]), stored)
    exact = torch.cat([batch.logits for batch in distilled.batches(range(1))])
    assert 0 < (stored - exact).abs().max() < 0.01 * exact.abs().max()


def test_some_epochs_are_the_same_as_among_all(distilled):
    everything = list(distilled.batches(range(EPOCHS)))
    same(list(distilled.batches(range(2, EPOCHS))), everything[4:])


def test_unmixed_batches_show_each_image_alone(distilled, labelled):
    images, steps = labelled
    mixed, alone = (next(distilled.batches(range(1), mixed=choice)) for choice in (True, False))
    nothing_mixed = steps[0] | {"mix_image": torch.full_like(steps[0]["mix_image"], -1)}
    shown = render_views(images, LabelViews.from_columns(nothing_mixed))
    assert torch.equal(alone.images, normalise(shown, *distilled.normalisation))
    assert not torch.equal(alone.images, mixed.images)
    assert torch.equal(alone.labels, mixed.labels)
    assert alone.logits.shape == (BATCH, 0)


def test_mixed_views_without_labels(distilled):
    stored, bare = (next(distilled.batches(range(1), labels=labels)) for labels in ("stored", "none"))
    assert bare.logits.shape == (BATCH, 0)
    assert torch.equal(bare.images, stored.images) and torch.equal(bare.mix_labels, stored.mix_labels)


def test_more_epochs_than_labels_are_refused_with_the_remedy(distilled):
    with pytest.raises(StudentError, match=r"5 epochs were requested.*labels for 4.*--relabel\.epochs 5"):
        distilled.batches(range(EPOCHS + 1))


def test_a_folder_that_is_no_artifact_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="it is no artifact, or an unfinished one"):
        load_distilled(tmp_path)


def test_stored_epochs_are_reused_batch_by_batch(reused):
    assert (reused.num_epochs, reused.num_stored_epochs) == (REUSED, 3)
    batches = list(reused.batches(range(REUSED)))
    stored = {epoch: batches[2 * epoch : 2 * epoch + 2] for epoch in range(3)}
    for epoch in range(REUSED):
        index, steps = stored_epoch_of(epoch, 3, 2, reused.manifest.seeds["run"])
        same(batches[2 * epoch : 2 * epoch + 2], [stored[index][step] for step in steps])
    seen = [stored_epoch_of(epoch, 3, 2, 0) for epoch in range(REUSED)]
    assert len(set(seen)) > 3, "the test reuses nothing in another order"


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("taken", [3, 4, 9, 14])
def test_a_pass_goes_on_where_it_was(reused, num_workers, taken):
    """In the middle of a stored epoch, at an epoch's end, in a reused epoch, and at the end of everything."""
    undisturbed = list(reused.batches(range(REUSED)))
    with reused.batches(range(REUSED), num_workers=num_workers) as batches:
        same([next(batches) for _ in range(taken)], undisturbed[:taken])
        state = batches.state_dict()
    assert state == {"epoch": taken // 2, "step": taken % 2}
    rest = reused.batches(range(REUSED), num_workers=num_workers, state=state)
    same(list(rest), undisturbed[taken:])
    assert rest.state_dict() == {"epoch": REUSED, "step": 0}


def test_a_state_of_other_epochs_is_refused(reused):
    for state in ({"epoch": 5, "step": 0}, {"epoch": 2, "step": 2}, {"epoch": 2, "step": -1}, {"epoch": 4, "step": 1}):
        with pytest.raises(StudentError, match="expected a step below 2 of epochs 2 to 3"):
            reused.batches(range(2, 4), state=state)


def test_reading_leaves_the_global_random_state_alone(reused):
    before = torch.get_rng_state()
    list(reused.batches(range(2), num_workers=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_no_thread_outlives_its_iterator(reused, num_workers):
    batches = reused.batches(range(REUSED), num_workers=num_workers)
    next(batches)
    assert reading_threads()
    batches.close()
    assert reading_threads() == []
    assert list(batches) == []
    batches = reused.batches(range(REUSED), num_workers=num_workers)
    next(batches)
    del batches
    gc.collect()
    assert reading_threads() == []
    list(reused.batches(range(2), num_workers=num_workers))
    assert reading_threads() == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_epoch_is_named_when_it_is_reached(artifact, num_workers):
    groups = groups_of(artifact / LABELS)
    column = groups[2].schema.get_field_index("image")
    groups[2] = groups[2].set_column(column, groups[2].field(column), groups[1]["image"].take([0] * 8))
    write_groups(artifact / LABELS, groups)
    batches = load_distilled(rehash(artifact)).batches(range(3), num_workers=num_workers)
    with pytest.raises(ArtifactError, match=rf"{LABELS}, epoch 2, row 0: image is "):
        list(batches)
    # Workers are handed steps a little ahead, so the error may come that much before the epoch does.
    assert batches.state_dict()["epoch"] == (2 if num_workers == 0 else 0)
    del batches
    gc.collect()
    assert reading_threads() == []


def test_one_result_waits_and_no_more():
    alive = []

    class Table(dict):
        pass

    def read(item):
        alive[:] = [reference for reference in alive if reference() is not None]
        table = Table(item=item)
        alive.append(weakref.ref(table))
        assert len(alive) <= 2, "an epoch in use and the next: no third one"
        return table

    for item, table in read_ahead(read, range(20), 1):
        assert table["item"] == item
        del table
    assert len(alive) >= 1


def test_what_reading_raises_is_raised_where_it_is_due():
    def read(item):
        if item == 3:
            raise OSError("the disk is gone")
        return item

    found = read_ahead(read, range(9), 4)
    assert [next(found)[1] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    assert reading_threads() == []


def test_the_package_is_imported_without_its_libraries():
    code = "import fadrm_hf, sys; assert not {'torch', 'datasets', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_top_level_name():
    import fadrm_hf

    assert fadrm_hf.load_distilled is load_distilled
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        assert fadrm_hf.load_everything


def rows_of(batches, name):
    return torch.cat([getattr(batch, name) for batch in batches])


@pytest.mark.parametrize(("batch_size", "sizes"), [(3, [3, 3, 2]), (7, [8]), (8, [8]), (5, [5, 3])])
def test_an_epochs_rows_are_cut_into_other_batches_in_the_order_of_training(reused, batch_size, sizes):
    """Also those of epochs that are read again, whose stored batches come in another order."""
    stored = list(reused.batches(range(REUSED)))
    other = reused.regrouped(batch_size, None)
    assert (other.step_sizes, other.relabel.accumulation) == (sizes, 1)
    with other.batches(range(REUSED), num_workers=1) as batches:
        found = [next(batches) for _ in range(2 * len(sizes) + 1)]
        state = batches.state_dict()
    assert state == {"epoch": 2 + 1 // len(sizes), "step": 1 % len(sizes)}
    found += list(other.batches(range(REUSED), state=state))
    assert [len(batch.labels) for batch in found] == sizes * REUSED
    for name in ("images", "labels", "logits", "mix_labels", "mix_shares"):
        assert torch.equal(rows_of(found, name), rows_of(stored, name))


def test_batches_of_unequal_size_stay_whole_when_they_are_read_again(finished, distilled, tmp_path):
    """Steps of 12 and 8 views: which of them comes first changes, what is in them does not."""
    longer = load_distilled(train_longer(copy_artifact(finished, tmp_path), 3 * EPOCHS))
    stored, found = list(distilled.batches(range(EPOCHS))), list(longer.batches(range(3 * EPOCHS)))
    for epoch in range(3 * EPOCHS):
        index, steps = stored_epoch_of(epoch, EPOCHS, 2, longer.manifest.seeds["run"])
        same(found[2 * epoch : 2 * epoch + 2], [stored[2 * index + step] for step in steps])
    assert {len(batch.labels) for batch in found[::2]} == {12, 8}, "the test reuses nothing in another order"


def test_batches_as_labelled_are_not_regrouped(distilled):
    same(list(distilled.regrouped(BATCH, None).batches(range(2))), list(distilled.batches(range(2))))
    assert distilled.regrouped(None, None).relabel == distilled.relabel
    assert distilled.regrouped(None, 3).relabel == replace(distilled.relabel, accumulation=3)


def test_labels_on_the_fly_are_made_for_the_batches_that_are_shown(finished):
    """BatchNorm of the teachers sees the micro-batches of the student, here 10 and 10 views in halves."""
    regrouped = load_distilled(finished, online=True).regrouped(10, 2)
    (teacher,) = load_recorded_teachers(finished, read_manifest(finished), CPU)
    labeller = Labeller([teacher], regrouped.relabel, *regrouped.normalisation, CPU)
    for batch in regrouped.batches(range(1)):
        halves = [labeller.label_rendered(half) for half in batch.images.split(5)]
        torch.testing.assert_close(batch.logits, torch.cat(halves), rtol=1e-4, atol=1e-4)


OWN_VIEWS = RelabelConfig(
    epochs=9, batch_size=6, accumulation=1, batch_statistics=False, crop_area=(0.5, 1.0), flip_probability=0.5
)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_views_of_a_protocol_are_those_that_labelling_by_it_would_store(finished, distilled, num_workers):
    (teacher,) = load_recorded_teachers(finished, read_manifest(finished), CPU)
    labeller = Labeller([teacher], OWN_VIEWS, *distilled.normalisation, CPU)
    batches = list(distilled.redrawn(OWN_VIEWS).batches(range(7, 9), num_workers=num_workers))
    assert [len(batch.labels) for batch in batches] == [6, 6, 6, 2] * 2
    for epoch, found in zip((7, 8), (batches[:4], batches[4:]), strict=True):
        columns = label_epoch(distilled.images, labeller, OWN_VIEWS, distilled.manifest.seeds["run"], epoch)
        shown = normalise(render_views(distilled.images, LabelViews.from_columns(columns)), *distilled.normalisation)
        assert torch.equal(rows_of(found, "images"), shown)
        # Teachers see other numbers of views at once, for which a convolution may choose another order of sums.
        torch.testing.assert_close(rows_of(found, "logits"), columns["logits"], rtol=1e-5, atol=1e-5)
        assert torch.equal(rows_of(found, "labels"), distilled.labels[columns["image"].long()])


def test_a_pass_over_drawn_views_goes_on_where_it_was(distilled):
    redrawn = distilled.redrawn(OWN_VIEWS)
    undisturbed = list(redrawn.batches(range(3), labels="none"))
    rest = redrawn.batches(range(3), labels="none", state={"epoch": 1, "step": 2})
    same(list(rest), undisturbed[6:])
    assert rest.state_dict() == {"epoch": 3, "step": 0}
    assert reading_threads() == []


def test_drawn_views_have_no_stored_labels(distilled):
    with pytest.raises(ArtifactError, match=r"stores no labels of these views.*'online'"):
        distilled.redrawn(OWN_VIEWS).batches(range(1), labels="stored")
    with pytest.raises(StudentError, match="10 epochs were requested"):
        distilled.redrawn(OWN_VIEWS).batches(range(10))
    alone = next(distilled.redrawn(OWN_VIEWS).batches(range(1), mixed=False))
    assert alone.logits.shape == (6, 0) and not alone.mix_shares.any()
