"""Batch and learning rate, against Detectron2's own auto_scale_workers."""

import pytest
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer

from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.schedule import check_batch, scale_to_batch
from ssl_backbones.errors import InputError


def load(*overrides):
    return load_config("moco_1x", overrides)


@pytest.mark.parametrize("batch", [8, 32, 12])
def test_linear_scaling_is_that_of_auto_scale_workers(batch):
    cfg = load(
        f"dataloader.train.total_batch_size={batch}",
        "train.scale_lr=linear",
        "train.max_iter=90001",
        "train.eval_period=4999",
    )
    stock = get_cfg()
    stock.SOLVER.IMS_PER_BATCH, stock.SOLVER.REFERENCE_WORLD_SIZE = 16, 16
    stock.SOLVER.BASE_LR, stock.SOLVER.MAX_ITER, stock.SOLVER.WARMUP_ITERS = 0.02, 90001, 500
    stock.TEST.EVAL_PERIOD, stock.SOLVER.CHECKPOINT_PERIOD = 4999, 5000
    stock = DefaultTrainer.auto_scale_workers(stock, batch)
    check_batch(cfg, 1)
    scale_to_batch(cfg)
    assert cfg.optimizer.lr == pytest.approx(stock.SOLVER.BASE_LR)
    assert cfg.train.max_iter == stock.SOLVER.MAX_ITER
    assert cfg.train.warmup_iters == stock.SOLVER.WARMUP_ITERS
    assert cfg.train.eval_period == stock.TEST.EVAL_PERIOD
    assert cfg.train.checkpointer.period == stock.SOLVER.CHECKPOINT_PERIOD


def test_none_leaves_all_as_it_is():
    cfg = load("dataloader.train.total_batch_size=8", "train.scale_lr=none")
    check_batch(cfg, 8)
    assert scale_to_batch(cfg)[1] == "0.02, as requested (train.scale_lr=none)"
    assert (cfg.optimizer.lr, cfg.train.max_iter) == (0.02, 90_000)


def test_the_reference_needs_no_word():
    cfg = load()
    check_batch(cfg, 8)
    assert scale_to_batch(cfg) == ("16 images a step, as the reference", "0.02")


@pytest.mark.parametrize(
    ("overrides", "processes", "message"),
    [
        (
            ["dataloader.train.total_batch_size=4"],
            1,
            r"say train\.scale_lr=linear \(learning rate x 0\.25, 360,000 iterations\) or",
        ),
        (["train.accumulate=3"], 2, r"does not divide among 2 processes x train\.accumulate=3"),
        ([], 3, "does not divide among 3 processes"),
        (["train.accumulate=0"], 1, "train.accumulate=0: must be at least 1"),
        (["train.scale_lr=sqrt"], 1, "train.scale_lr=sqrt: is linear or none"),
    ],
)
def test_what_does_not_fit_is_refused(overrides, processes, message):
    with pytest.raises(InputError, match=message):
        check_batch(load(*overrides), processes)
