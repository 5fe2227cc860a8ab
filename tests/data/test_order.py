"""The global order of a run, without images: against Detectron2's own sampler and by counting."""

import itertools

import numpy as np
import pytest
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import TrainingSampler

from ssl_backbones.data.order import GlobalOrder, Progress

SIZE = 23
LANDSCAPE = np.random.default_rng(0).random(SIZE) < 0.6


def an_order(batch_size, slots, *, grouped=True, size=SIZE):
    return GlobalOrder(
        TrainingSampler(size, seed=5)._infinite_indices,
        batch_size=batch_size,
        slots=slots,
        is_landscape=LANDSCAPE if grouped else None,
    )


def take(order, num, start=None, **place):
    """The next `num` micro-batches of a process, and the last progress that came with them."""
    place = {"rank": 0, "accumulate": order.slots} | place
    taken = list(itertools.islice(order.of_process(start or Progress(), **place), num))
    return [group for group, _ in taken], [p for _, p in taken if p is not None][-1]


def test_without_grouping_the_order_is_the_stock_samplers_stream():
    groups, progress = take(an_order(4, 3, grouped=False), 15)
    samples = list(itertools.chain(*groups))
    assert [position for position, _ in samples] == list(range(60))
    stock = itertools.islice(iter(TrainingSampler(SIZE, seed=5)), 60)
    assert [index for _, index in samples] == list(stock)
    assert progress == Progress(60, ())


def test_grouping_is_stock_grouping_of_that_stream():
    stream = TrainingSampler(SIZE, seed=5)._infinite_indices()
    records = ({"width": 1 + LANDSCAPE[i], "height": 1, "index": i} for i in stream)
    stock = itertools.islice(AspectRatioGroupedDataset(records, 3), 40)
    groups, _ = take(an_order(3, 2), 40)
    assert [[i for _, i in group] for group in groups] == [
        [record["index"] for record in group] for group in stock
    ]
    # That images of both shapes are there, or this would show nothing.
    assert {bool(LANDSCAPE[group[0][1]]) for group in groups} == {True, False}


@pytest.mark.parametrize("processes, accumulate", [(1, 4), (2, 2), (4, 1)])
def test_slots_do_not_depend_on_how_processes_share_them(processes, accumulate):
    whole, end = take(an_order(2, 4), 32)
    for rank in range(processes):
        mine, my_end = take(an_order(2, 4), 8 * accumulate, rank=rank, accumulate=accumulate)
        first = rank * accumulate
        theirs = [whole[i + first : i + first + accumulate] for i in range(0, 32, 4)]
        assert mine == list(itertools.chain(*theirs))
        assert my_end == end


@pytest.mark.parametrize("at", [1, 5, 12, 23])
def test_an_order_goes_on_where_it_was_left(at):
    order = an_order(3, 2)
    whole, _ = take(order, 60)
    _, progress = take(order, 2 * at)
    rest, _ = take(order, 60 - 2 * at, progress)
    assert rest == whole[2 * at :]


@pytest.mark.parametrize("batch_size, slots", [(1, 8), (2, 4), (8, 1), (3, 2)])
def test_another_number_of_processes_uses_every_position_once(batch_size, slots):
    """Four processes of 4 images become others; after each change some samples still wait."""
    before, progress = take(an_order(4, 4), 24)
    assert len(progress.waiting) > 1
    after, end = take(an_order(batch_size, slots), 10 * slots, progress)
    used = [sample for group in before + after for sample in group]
    expected = list(
        itertools.islice(enumerate(TrainingSampler(SIZE, seed=5)._infinite_indices()), end.position)
    )
    assert sorted(used + list(end.waiting)) == expected
    for group in after:
        assert len({bool(LANDSCAPE[index]) for _, index in group}) == 1


def test_a_change_back_and_forth_loses_nothing_either():
    progress, used = Progress(), []
    for batch_size, slots in [(8, 1), (1, 3), (4, 2), (2, 2), (8, 2)]:
        groups, progress = take(an_order(batch_size, slots), 3 * slots, progress)
        used += itertools.chain(*groups)
    assert sorted(position for position, _ in [*used, *progress.waiting]) == list(
        range(progress.position)
    )


def test_a_stop_amid_those_that_waited_loses_none():
    """Smaller micro-batches take what waited for a larger one, and are stopped before all is taken."""
    groups, progress = take(an_order(12, 1), 5)
    assert len(progress.waiting) == 9
    for _ in range(8):
        more, progress = take(an_order(2, 1), 1, progress)
        groups += more
    assert sorted(p for p, _ in [*itertools.chain(*groups), *progress.waiting]) == list(
        range(progress.position)
    )


def test_skipping_equals_walking():
    order = an_order(2, 1, grouped=False)
    groups, _ = take(order, 500)
    assert take(order, 1, Progress(998))[0] == groups[499:]
