"""What is settled before anything is built: that the run can do what its config says, everywhere alike."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import detectron2
import torch
from detectron2.config import LazyConfig
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from ..conversion.reading import read_checkpoint
from ..data import own_data
from ..errors import InputError
from ..hashing import fingerprint_of, sha256_of
from ..modeling.norm import NormChoice, apply_norm, choose_norm
from ..seeding import seed_everything
from ..weights.resolution import resolve
from . import preflight
from .checkpoints import checkpoint_folder
from .launching import agreement
from .launching.world import World
from .recipe import everything_but_paths, fingerprint
from .schedule import scale_to_batch

logger = logging.getLogger("detectron2")


@dataclass(frozen=True)
class Setting:
    """The same in every process of a run, but for `world`'s rank.

    Attributes:
        cfg: as it takes effect: weights resolved, seed drawn, norm chosen, learning rate scaled.
        norm: what stands for SyncBN, and why.
        provenance: of the weights; {} where there is none.
        checkpoint: what a resumed run goes on from.
        batch: batch and learning rate, in words.
        fingerprint: of everything that affects the result.
    """

    cfg: DictConfig
    world: World
    norm: NormChoice
    provenance: Mapping[str, Any]
    checkpoint: str | None
    batch: tuple[str, str]
    fingerprint: str

    @property
    def slots(self) -> int:
        """Micro-batches of an iteration, all processes together."""
        return self.world.size * self.cfg.train.accumulate


class Start(NamedTuple):
    """What one process finds out for all; `said` is how it reads the data, for the log."""

    provenance: Mapping[str, Any]
    said: list[str]
    checkpoint: str | None
    seed: int


def settle(cfg: DictConfig, world: World, args: Namespace) -> Start:
    """Check the run in one process, and that all of them run the same; fills in weights and seed.

    Raises:
        InputError: the first thing found wrong.
    """
    given = cfg.train.init_checkpoint or ""
    start = agreement.on_main_process(lambda: _start(cfg, world, args))
    # The main process has just read the annotations. On another machine the first one does, and leaves to
    # the others what it found out.
    agreement.on_each_machine(
        lambda: None if comm.is_main_process() else preflight.prepare_data(cfg, args.eval_only)
    )
    if comm.get_local_rank() > 0:
        preflight.prepare_data(cfg, args.eval_only)
    # The main process has just resolved them: the same file is not hashed twice.
    cfg.train.init_checkpoint = agreement.on_each_machine(
        lambda: resolve(given) if not comm.is_main_process() else cfg.train.init_checkpoint or ""
    )
    cfg.train.seed = start.seed
    if world.size > 1:
        _check_agreement(cfg, start)
    return start


def _check_agreement(cfg: DictConfig, start: Start) -> None:
    """That all ranks run the same; a single process need not hash what it loads."""
    # Files lie on a machine's disk: one process reads them for all of its own.
    weights, checkpoint = agreement.on_each_machine(
        lambda: (_hash(cfg.train.init_checkpoint), _hash(start.checkpoint))
    )
    agreement.check_agreement(
        {
            "config": fingerprint_of(everything_but_paths(cfg)),
            "code": agreement.code_version(),
            "annotations": own_data.content_hashes(cfg),
            "weights": weights,
            "checkpoint to resume from": checkpoint,
            "version of torch": torch.__version__,
            "version of detectron2": detectron2.__version__,
        }
    )


def _start(cfg: DictConfig, world: World, args: Namespace) -> Start:
    provenance, said = preflight.check(cfg, world, eval_only=args.eval_only)
    # What was chosen because nobody asked for anything else.
    said = [*getattr(args, "said", ()), *said]
    folder, trains = cfg.train.output_dir, not args.eval_only
    resume = trains and (args.resume or world.restarts > 0)
    checkpoint = checkpoint_folder.newest(folder) if resume else None
    if trains and not resume:
        preflight.check_no_other_run(folder)
    seed = cfg.train.seed if cfg.train.seed >= 0 else secrets.randbelow(2**31)
    changed = own_data.changed_since(folder, cfg)
    if checkpoint and changed:
        raise InputError(
            f"{changed[0]}: a run goes on with the data that it began with; give that, or another "
            "train.output_dir"
        )
    if checkpoint:
        trainer = read_checkpoint(checkpoint).content.get("trainer")
        if not trainer:
            raise InputError(
                f"{checkpoint} holds weights alone, and no run goes on from them: give it as "
                "train.init_checkpoint, with another train.output_dir"
            )
        seed = trainer.get("seed", seed)
    if args.eval_only:
        said += own_data.changed_since(os.path.dirname(args.config_file), cfg)
    return Start(provenance, said, checkpoint, seed)


def set_up(cfg: DictConfig, args: Namespace, start: Start) -> None:
    """Loggers, seeds of what is drawn while building, and RUN/config.yaml: as it was given."""
    folder, rank = cfg.train.output_dir, comm.get_rank()
    logging.getLogger("ssl_backbones").handlers.clear()
    for name in ("fvcore", "detectron2", "ssl_backbones"):
        setup_logger(folder, distributed_rank=rank, name=name)
    logger.info(f"Environment:\n{collect_env_info()}")
    logger.info(f"Command line: {shlex.join(sys.argv)}")
    for sentence in start.said:
        logger.warning(sentence)
    if comm.is_main_process():
        if not args.eval_only:
            LazyConfig.save(cfg, os.path.join(folder, "config.yaml"))
        own_data.write_record(cfg, folder, eval_only=args.eval_only)
    seed_everything(cfg.train.seed, rank)
    torch.backends.cudnn.benchmark = cfg.train.cudnn_benchmark


def take_effect(cfg: DictConfig, world: World, start: Start) -> Setting:
    """Change `cfg` by the rules that depend on processes and batch."""
    norm = choose_norm(world.size, world.device, cfg.train.accumulate)
    apply_norm(cfg.model, norm)
    batch = scale_to_batch(cfg)
    slots = world.size * cfg.train.accumulate
    of_the_run = fingerprint(cfg, start.provenance, slots)
    return Setting(cfg, world, norm, start.provenance, start.checkpoint, batch, of_the_run)


def _hash(path: str | None) -> str:
    return sha256_of(path) if path else "none"
