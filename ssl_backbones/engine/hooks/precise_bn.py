"""Running statistics of batch norm made anew before an evaluation, instead of their moving average."""

from __future__ import annotations

import logging

import numpy as np
import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from omegaconf import DictConfig
from torch import nn

from ...data.loading import build_train_loader
from ...evaluation.coco import unwrapped
from .evaluations import evaluation_due

logger = logging.getLogger(__name__)


class PreciseBN(HookBase):
    """Before each evaluation: mean and variance over `train.precise_bn.num_iter` batches of training data.

    Source: Wu and Johnson, "Rethinking Batch in BatchNorm" (arXiv:2105.07576), section 3, by fvcore's
    `update_bn_stats`. The batches are drawn by a loader of its own and depend on the run's seed and the
    iteration alone, so that training goes on as if nothing had happened. With several processes the
    statistics are those of all of them; naiveSyncBN counts its biased variance, low by 1/n of n pixels.

    Args:
        cfg: reads `dataloader.train` and `train`.
        model: may be wrapped for several processes.
    """

    def __init__(self, cfg: DictConfig, model: nn.Module):
        self._cfg, self._model = cfg, unwrapped(model)

    def after_step(self) -> None:
        if evaluation_due(self.trainer, self._cfg.train.eval_period):
            self.update()

    def update(self) -> None:
        """Make the statistics anew; nothing to do without batch norm in training mode."""
        norms = get_bn_modules(self._model)
        if not norms:
            return
        count = self._cfg.train.precise_bn.num_iter
        logger.info(f"Running statistics of {len(norms)} batch norms anew, from {count} batches")
        seed = _seed(self.trainer.seed, self.trainer.iter)
        loader = build_train_loader(
            self._cfg.dataloader.train, seed=seed, accumulate=self._cfg.train.accumulate
        )
        buffers = [(norm.running_mean, norm.running_var) for norm in norms]
        devices = [torch.cuda.current_device()] if buffers[0][0].is_cuda else []
        # Proposals are sampled on the way, and losses would go to the run's events.
        with torch.random.fork_rng(devices), EventStorage():
            torch.manual_seed(_seed(seed, comm.get_rank()))
            update_bn_stats(self._model, loader, count)
        for norm, (mean, variance) in zip(norms, buffers, strict=True):
            # fvcore puts new tensors in their place, which others who hold the buffers would not see.
            mean.copy_(norm.running_mean)
            variance.copy_(norm.running_var)
            norm.running_mean, norm.running_var = mean, variance
            _average_over_processes(mean, variance)


def _seed(*place: int) -> int:
    """A seed of its own for a place in the run, unrelated to that of training."""
    return int(np.random.SeedSequence([number % 2**64 for number in place]).generate_state(1)[0])


def _average_over_processes(mean: torch.Tensor, variance: torch.Tensor) -> None:
    """Give every process the moments of all, in place; what is equal already stays so."""
    processes = comm.get_world_size()
    if processes == 1:
        return
    moments = torch.stack([mean, variance + mean.square()])
    dist.all_reduce(moments)
    moments /= processes
    mean.copy_(moments[0])
    variance.copy_(moments[1] - mean.square())
