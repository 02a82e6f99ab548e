"""Properties of the sample order."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.training.order import SampleOrder, seed_from
from jobs.training.process_group import Group

shards = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(sum)
seeds = st.integers(0, 2**40)
blocks = st.integers(1, 5)


def epoch_of(order, number):
    return order.take(number * order.num_windows, (number + 1) * order.num_windows)


@given(shards, seeds, blocks, st.integers(0, 5))
def test_each_epoch_is_a_permutation_of_all_windows(counts, seed, block, epoch):
    order = SampleOrder(counts, seed, block)
    assert sorted(epoch_of(order, epoch)) == list(range(sum(counts)))


@given(shards, seeds, blocks, st.data())
def test_random_access_equals_sequential_reading(counts, seed, block, data):
    total = sum(counts)
    order = SampleOrder(counts, seed, block)
    sequential = np.concatenate([epoch_of(order, number) for number in range(3)])
    start = data.draw(st.integers(0, 3 * total))
    stop = data.draw(st.integers(start, 3 * total))
    assert np.array_equal(SampleOrder(counts, seed, block).take(start, stop), sequential[start:stop])
    assert np.array_equal(order.take(start, stop), sequential[start:stop])


@given(shards, seeds, blocks)
def test_the_order_depends_on_seed_and_epoch_alone(counts, seed, block):
    order = SampleOrder(counts, seed, block)
    third = epoch_of(order, 3)
    epoch_of(order, 0)
    assert np.array_equal(epoch_of(order, 3), third)
    assert np.array_equal(epoch_of(SampleOrder(counts, seed, block), 3), third)


def test_epochs_and_seeds_differ():
    orders = [epoch_of(SampleOrder([50, 50, 7], seed), epoch).tolist() for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == len(orders)


@given(shards, seeds, st.integers(1, 20), st.data())
def test_batches_do_not_depend_on_the_number_of_workers(counts, seed, batch_size, data):
    workers = data.draw(st.integers(1, batch_size))
    order = SampleOrder(counts, seed)
    for step in range(3):
        batch = order.take(step * batch_size, (step + 1) * batch_size)
        slices = [batch[Group(rank, workers).share(batch_size)] for rank in range(workers)]
        assert all(len(part) for part in slices)
        assert np.array_equal(np.concatenate(slices), batch)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 30), min_size=6, max_size=12), seeds)
def test_a_block_touches_few_shards_at_a_time(counts, seed):
    order = SampleOrder(counts, seed, block_shards=2)
    owners = np.searchsorted(np.cumsum(counts), epoch_of(order, 0), side="right")
    first_seen = list(dict.fromkeys(owners.tolist()))
    for first in range(0, len(first_seen), 2):
        pair = first_seen[first : first + 2]
        positions = np.flatnonzero(np.isin(owners, pair))
        assert np.array_equal(positions, np.arange(positions[0], positions[0] + len(positions)))


@given(shards, seeds, blocks, st.floats(0.01, 1))
def test_an_epoch_of_a_share_has_windows_of_every_shard(counts, seed, block, share):
    order = SampleOrder(counts, seed, block, share)
    first, second = epoch_of(order, 0), epoch_of(order, 1)
    for drawn in (first, second):
        assert len(set(drawn.tolist())) == len(drawn) == order.num_windows
        owners = np.searchsorted(np.cumsum(counts), drawn, side="right")
        assert np.bincount(owners, minlength=len(counts)).tolist() == [math.ceil(count * share) for count in counts]


def test_epochs_of_a_share_draw_other_windows():
    order = SampleOrder([1000, 1000], 0, share=0.1)
    assert len(set(epoch_of(order, 0).tolist()) & set(epoch_of(order, 1).tolist())) < 50


def test_each_model_to_start_from_has_an_order_of_its_own():
    assert seed_from(7, "") == 7
    assert len({seed_from(7, "a"), seed_from(7, "b"), seed_from(8, "a"), 7}) == 4
    assert seed_from(7, "a") == 9200829425988378282


def test_the_order_is_the_same_on_every_machine_and_version():
    assert SampleOrder([4, 0, 5], seed=7).take(0, 12).tolist() == [7, 1, 0, 4, 5, 8, 6, 2, 3, 3, 2, 5]
