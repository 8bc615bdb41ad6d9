"""Stored epochs read again: everything equally often, in new orders, no batch changed."""

from collections import Counter

import pytest

from fadrm_hf.training.reuse import stored_epoch_of

NUM_STORED, NUM_STEPS = 6, 9


def passes(seed=0, num_stored=NUM_STORED, epochs=24):
    """What each epoch of training reads, pass by pass."""
    read = [stored_epoch_of(epoch, num_stored, NUM_STEPS, seed) for epoch in range(epochs)]
    return [read[first : first + num_stored] for first in range(0, epochs, num_stored)]


def test_the_first_pass_reads_the_labels_as_they_were_made():
    first = passes()[0]
    assert [stored.epoch for stored in first] == list(range(NUM_STORED))
    assert all(stored.steps == tuple(range(NUM_STEPS)) for stored in first)


def test_every_pass_reads_every_epoch_and_every_step_once():
    for read in passes():
        assert sorted(stored.epoch for stored in read) == list(range(NUM_STORED))
        assert all(sorted(stored.steps) == list(range(NUM_STEPS)) for stored in read)


def test_a_part_of_a_pass_repeats_nothing():
    counts = Counter(stored_epoch_of(epoch, NUM_STORED, NUM_STEPS, 0).epoch for epoch in range(15))
    assert set(counts.values()) == {2, 3}


def test_later_passes_have_orders_of_their_own():
    later = passes()[1:]
    assert len({tuple(stored.epoch for stored in read) for read in later}) == 3
    orders = [stored.steps for read in later for stored in read]
    assert len(set(orders)) == len(orders)
    assert tuple(range(NUM_STEPS)) not in orders


def test_the_order_depends_on_the_seed_and_on_nothing_else():
    assert passes() == passes()
    assert passes(seed=1)[0] == passes()[0]
    assert passes(seed=1)[1:] != passes()[1:]


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_a_single_stored_epoch_serves_all(epoch):
    stored = stored_epoch_of(epoch, 1, NUM_STEPS, 0)
    assert stored.epoch == 0
    assert sorted(stored.steps) == list(range(NUM_STEPS))
