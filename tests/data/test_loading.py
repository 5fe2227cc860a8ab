"""The training loader: what comes out depends on the seed and on the position, and on nothing else."""

import itertools
import json
import logging
import multiprocessing
import os
import random

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetFromList
from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from omegaconf import OmegaConf
from torch.utils.data import IterableDataset

from ssl_backbones.data.loading import ForeignLoader, TrainLoader, build_train_loader
from ssl_backbones.errors import InputError


def take(loader, num):
    return list(itertools.islice(loader, num))


def content(batches):
    """All that the model sees of micro-batches, in a form that compares exactly."""
    return [
        [
            (
                image["position"],
                image["index"],
                image["image"].numpy().tobytes(),
                image["instances"].gt_boxes.tensor.tolist(),
            )
            for image in batch
        ]
        for batch in batches
    ]


def by_position(batches):
    return {image[0]: image for batch in content(batches) for image in batch}


def test_the_order_is_that_of_stock_detectron2(loader_cfg):
    loader = build_train_loader(loader_cfg, seed=7)
    assert isinstance(loader, TrainLoader) and loader.batch_size == 4
    ours = take(loader, 20)
    loader_cfg.sampler = TrainingSampler(17, seed=7)
    stock = take(instantiate(loader_cfg), 20)
    names = [
        [[image["file_name"] for image in batch] for batch in batches] for batches in (ours, stock)
    ]
    assert names[0] == names[1]


def test_workers_change_nothing(loader_cfg):
    batches = []
    for workers in (0, 2):
        loader_cfg.num_workers = workers
        loader = build_train_loader(loader_cfg, seed=7)
        batches.append(content(take(loader, 15)))
        # What workers had fetched ahead does not count.
        assert loader.state_dict()["position"] - len(loader.state_dict()["waiting"]) == 60
    assert batches[0] == batches[1]


def test_two_processes_are_one_that_accumulates(loader_cfg):
    """Slot by slot, pixels and boxes, with landscape images apart from others."""
    one = content(take(build_train_loader(loader_cfg, seed=7, accumulate=2), 20))
    two = [
        content(take(build_train_loader(loader_cfg, seed=7, rank=rank, world_size=2), 10))
        for rank in range(2)
    ]
    assert one == list(itertools.chain(*zip(*two, strict=True)))
    for batch in one:
        assert len({index < 10 for _, index, *_ in batch}) == 1


def test_positions_look_the_same_in_any_number_of_processes(loader_cfg):
    one = by_position(take(build_train_loader(loader_cfg, seed=7), 12))
    four = {}
    for rank in range(4):
        four |= by_position(
            take(build_train_loader(loader_cfg, seed=7, rank=rank, world_size=4), 12)
        )
    common = one.keys() & four.keys()
    assert len(common) > 40
    assert all(one[position] == four[position] for position in common)


def test_another_seed_or_position_looks_different(loader_cfg):
    loader_cfg.aspect_ratio_grouping = False
    loaders = [build_train_loader(loader_cfg, seed=seed) for seed in (7, 8)]
    assert content(take(loaders[0], 1)) != content(take(loaders[1], 1))
    samples = [loaders[0]._dataset[position, 3] for position in (0, 1)]
    same_image = content([loaders[0]._collate(samples)[0]])[0]
    assert same_image[0][2:] != same_image[1][2:]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at", [1, 9])
def test_a_loader_goes_on_where_another_was_left(loader_cfg, at, workers):
    loader_cfg.num_workers = workers
    loader = build_train_loader(loader_cfg, seed=7)
    batches = iter(loader)
    take(batches, at)
    # As in a checkpoint: plain values only.
    state = json.loads(json.dumps(loader.state_dict()))
    rest = content(take(batches, 12))
    resumed = build_train_loader(loader_cfg, seed=7)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert content(take(resumed, 12)) == rest


def test_a_change_of_processes_uses_each_position_once(loader_cfg):
    loader = build_train_loader(loader_cfg, seed=7)
    used = list(by_position(take(loader, 9)))
    for rank in range(2):
        loader_of_two = build_train_loader(loader_cfg, seed=7, rank=rank, world_size=2)
        loader_of_two.load_state_dict(loader.state_dict())
        used += by_position(take(loader_of_two, 6))
    state = loader_of_two.state_dict()
    used += [position for position, _ in state["waiting"]]
    assert sorted(used) == list(range(state["position"]))


def test_the_state_is_that_of_whole_iterations(loader_cfg):
    loader = build_train_loader(loader_cfg, seed=7, accumulate=2)
    batches, states = iter(loader), []
    for _ in range(6):
        take(batches, 1)
        states.append(loader.state_dict())
    assert states[1] == states[2] != states[0]
    assert states[3] == states[4] != states[5]


def test_a_state_of_another_order_is_refused(loader_cfg):
    state = build_train_loader(loader_cfg, seed=7).state_dict()
    with pytest.raises(InputError, match="seed 7, this run has 8"):
        build_train_loader(loader_cfg, seed=8).load_state_dict(state)
    with pytest.raises(InputError, match="images 16, this run has 17"):
        build_train_loader(loader_cfg, seed=7).load_state_dict({**state, "images": 16})


def test_the_models_random_numbers_are_left_alone(loader_cfg):
    def draw():
        return random.random(), np.random.random(), torch.rand(1).item()

    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = draw()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    take(build_train_loader(loader_cfg, seed=7), 3)
    assert draw() == expected


SAMPLERS = {
    "TrainingSampler": L(TrainingSampler)(size=17),
    "no shuffling": L(TrainingSampler)(size=17, shuffle=False),
    "RandomSubset": L(RandomSubsetTrainingSampler)(size=17, subset_ratio=0.5),
    "RepeatFactor": L(RepeatFactorTrainingSampler)(
        repeat_factors=L(torch.linspace)(start=1, end=2, steps=17)
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_stock_sampler_gives_the_order(loader_cfg, name):
    """Its seeds, where the config leaves them out, are the run's; the config itself is not changed."""
    loader_cfg.sampler = SAMPLERS[name]
    loader_cfg.aspect_ratio_grouping = False
    before = str(loader_cfg)
    order = list(by_position(take(build_train_loader(loader_cfg, seed=7), 10)).values())
    assert str(loader_cfg) == before
    seeds = {"seed_shuffle": 7, "seed_subset": 7} if name == "RandomSubset" else {"seed": 7}
    stock = instantiate(L(SAMPLERS[name]["_target_"])(**{**SAMPLERS[name], **seeds}))
    assert [index for _, index, *_ in order] == take(stock, 40)


def test_a_sampler_made_from_the_dataset_itself(loader_cfg):
    """As Detectron2's LVIS configs write it: by an interpolation across the config."""
    loader_cfg.sampler = L(RepeatFactorTrainingSampler)(
        repeat_factors=L(RepeatFactorTrainingSampler.repeat_factors_from_category_frequency)(
            dataset_dicts="${dataloader.train.dataset}", repeat_thresh=0.9
        )
    )
    cfg = OmegaConf.create({"dataloader": {"train": loader_cfg}}, flags={"allow_objects": True})
    cfg.dataloader.train.aspect_ratio_grouping = False
    order = by_position(take(build_train_loader(cfg.dataloader.train, seed=7), 20)).values()
    records = instantiate(loader_cfg.dataset)
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 0.9)
    assert (factors > 1.2).all()
    stock = RepeatFactorTrainingSampler(factors, seed=7)
    assert [index for _, index, *_ in order] == take(stock, 80)


def test_a_samplers_own_seed_is_kept(loader_cfg):
    loader_cfg.sampler = L(TrainingSampler)(size=17, seed=99)
    loader_cfg.aspect_ratio_grouping = False
    order = by_position(take(build_train_loader(loader_cfg, seed=7), 5)).values()
    assert [index for _, index, *_ in order] == take(TrainingSampler(17, seed=99), 20)


class EveryOther(torch.utils.data.Sampler):
    def __init__(self, size):
        self.size = size

    def __iter__(self):
        return itertools.cycle(range(0, self.size, 2))


class Stream(IterableDataset):
    def __iter__(self):
        return itertools.cycle({"n": n} for n in range(5))


def batches_of_numbers(total_batch_size):
    return [[{"n": n} for n in range(total_batch_size)]] * 3


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda cfg: cfg.update(sampler=L(EveryOther)(size=17)), "EveryOther does not tell"),
        (lambda cfg: cfg.update(sampler=L(InferenceSampler)(size=17)), "InferenceSampler does not"),
        (
            lambda cfg: cfg.update(dataset=L(Stream)(), mapper=None, aspect_ratio_grouping=False),
            "only be iterated over",
        ),
    ],
)  # fmt: skip
def test_an_order_that_cannot_be_resumed_is_used_as_it_is(loader_cfg, caplog, change, reason):
    change(loader_cfg)
    with caplog.at_level(logging.WARNING):
        loader = build_train_loader(loader_cfg, seed=7, accumulate=2)
    assert isinstance(loader, ForeignLoader)
    warnings = [r.message for r in caplog.records if "cannot be resumed" in r.message]
    assert len(warnings) == 1 and reason in warnings[0]
    batch = take(loader, 1)[0]
    # A micro-batch of a single process that accumulates two.
    assert len(batch) == 2
    assert [(image["position"], image["index"]) for image in batch] == [(None, None)] * 2
    loader.load_state_dict(loader.state_dict())


def test_a_loader_of_another_kind_is_used_as_it_is(caplog):
    loader = build_train_loader(L(batches_of_numbers)(total_batch_size=6), seed=7, accumulate=3)
    assert "batches_of_numbers makes its own" in caplog.text
    assert [image["n"] for image in take(loader, 1)[0]] == [0, 1]


def test_a_batch_that_does_not_divide_is_refused(loader_cfg):
    with pytest.raises(InputError, match="=4 does not divide into 3 micro-batches"):
        build_train_loader(loader_cfg, seed=7, accumulate=3)


def test_a_dataset_that_does_not_fit_is_refused(loader_cfg):
    loader_cfg.dataset = L(list)()
    loader_cfg.mapper = None
    with pytest.raises(InputError, match="holds no image"):
        build_train_loader(loader_cfg, seed=7)
    loader_cfg.dataset = L(DatasetFromList)(lst=[{"file_name": "a.png"}])
    with pytest.raises(InputError, match="needs the width and height of every image"):
        build_train_loader(loader_cfg, seed=7)


def sizes(batch):
    return torch.tensor([image["width"] for image in batch])


def test_a_collate_function_and_options_are_kept(loader_cfg):
    loader_cfg.collate_fn = sizes
    # Detectron2 main hands what it does not know to the DataLoader.
    loader_cfg.prefetch_factor = 3
    loader_cfg.drop_last = True
    batch = take(build_train_loader(loader_cfg, seed=7), 1)[0]
    assert batch.shape == (4,)


class Picky:
    """Takes only images whose index is a multiple of 3."""

    def __call__(self, record):
        return {"id": record["image_id"]} if record["image_id"] % 3 == 0 else None


class Broken:
    def __call__(self, record):
        return record["no such key"]


def refuse(record):
    return None


def test_what_a_mapper_does_not_want_is_replaced_by_the_same_shape(loader_cfg):
    loader_cfg.mapper = Picky()
    loader = build_train_loader(loader_cfg, seed=7)
    for batch in take(loader, 20):
        assert all(image["id"] % 3 == 0 for image in batch)
        assert len({image["id"] < 10 for image in batch}) == 1
        assert len({image["index"] < 10 for image in batch}) == 1
    assert loader.skipped == 0


def test_a_mapper_that_wants_nothing_is_refused(loader_cfg):
    loader_cfg.mapper = refuse
    with pytest.raises(InputError, match="returned None for 1000 images in a row"):
        take(build_train_loader(loader_cfg, seed=7), 1)


def test_a_fault_of_the_mapper_is_not_taken_for_one_of_the_image(loader_cfg, caplog):
    loader_cfg.mapper = Broken()
    with pytest.raises(KeyError, match="no such key"):
        take(build_train_loader(loader_cfg, seed=7), 1)
    assert "the mapper failed on" in caplog.text


def test_workers_are_not_in_the_group_that_a_cluster_signals(loader_cfg):
    loader_cfg.num_workers = 2
    batches = iter(build_train_loader(loader_cfg, seed=7))
    take(batches, 4)
    groups = {os.getpgid(worker.pid) for worker in multiprocessing.active_children()}
    assert len(groups) == 2 and os.getpgid(0) not in groups
