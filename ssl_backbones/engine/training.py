"""Training, once all is settled: what is built, what it starts from, and which hooks it has."""

from __future__ import annotations

import logging
import signal
import weakref
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import instantiate
from detectron2.engine import HookBase, create_ddp_model, hooks
from detectron2.utils import comm
from torch import nn

from ..conversion.reading import read_checkpoint
from ..data.loading import build_train_loader
from . import preflight, record
from .card import run_card, show
from .checkpoints.checkpointer import StrictCheckpointer
from .dry_run import dry_run
from .hooks.ema import EMA, WeightAverage
from .hooks.evaluations import EvaluationsHook
from .hooks.health import Health
from .hooks.metrics_log import MetricsLog
from .hooks.precise_bn import PreciseBN
from .hooks.progress_lines import Progress
from .hooks.saving import Checkpoints
from .hooks.training_batches import TrainingBatches
from .launching.failures import PREEMPTED
from .schedule import lr_multiplier
from .settling import Setting
from .trainer import NonFiniteError, Preempted, Trainer

logger = logging.getLogger("detectron2")


def train(setting: Setting, model: nn.Module, args: Namespace) -> int:
    """Build what trains, load what it starts from, and train; returns the exit status."""
    cfg, options = setting.cfg, setting.cfg.train
    preflight.check_disk(options.output_dir, model)
    cfg.optimizer.params.model = model
    trainer = Trainer(
        distributed(setting, model),
        build_train_loader(cfg.dataloader.train, seed=options.seed, accumulate=options.accumulate),
        instantiate(cfg.optimizer),
        accumulate=options.accumulate,
        amp_dtype=preflight.AMP_DTYPES[options.amp.get("dtype", "fp16")]
        if options.amp.enabled
        else None,
        clip_norm=options.clip.norm,
        clip_value=options.clip.value,
        seed=options.seed,
    )
    average = WeightAverage(model, options.ema.decay) if options.ema.enabled else None
    checkpointer = StrictCheckpointer(
        model,
        options.output_dir,
        strict=options.strict_init,
        # Not the trainer itself: its hooks hold the checkpointer, which would keep it alive.
        trainer=weakref.proxy(trainer),
        **({"ema": average} if average else {}),
    )
    trainer.register_hooks(_hooks_of_a_step(setting, average))
    # Made in a dry run as well: each refuses options that it cannot serve.
    of_a_run = _hooks_of_a_run(setting, trainer, checkpointer, average)
    if not args.dry_run:
        trainer.register_hooks(of_a_run)
    start, weights = _load(setting, checkpointer, trainer, average)
    show("This run", run_card(setting, model, weights))
    if args.dry_run:
        show("All of it would take", dry_run(cfg, trainer, args.planned_folder))
        return 0
    if comm.is_main_process():
        record.start(
            options.output_dir,
            cfg,
            provenance=setting.provenance,
            slots=setting.slots,
            iteration=start,
            resumed=start > 0,
        )
    try:
        with _told_to_end(trainer):
            trainer.train(start, options.max_iter)
    except Preempted:
        logger.warning(f"asked to end: saved, and ending with status {PREEMPTED}")
        return PREEMPTED
    except NonFiniteError as error:
        logger.error(f"{error}. The weights are those from before it.")
        return 1
    return 0


@contextmanager
def _told_to_end(trainer: Trainer) -> Iterator[None]:
    """Inside the `with` block SIGTERM and SIGUSR1 ask the trainer to end."""
    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(n, lambda *_: trainer.ask_to_end()) for n in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def distributed(setting: Setting, model: nn.Module) -> nn.Module:
    """Wrap for several processes; DDP refuses `device_ids` on the CPU, and Detectron2 always gives them."""
    arguments = dict(setting.cfg.train.get("ddp", {}))
    if setting.world.device == "cpu":
        arguments["device_ids"] = None
    return create_ddp_model(model, **arguments)


def _load(setting: Setting, checkpointer, trainer: Trainer, average) -> tuple[int, str]:
    """Load what the run starts from; returns the first iteration and the weights in words."""
    if setting.checkpoint:
        return _resume(setting.checkpoint, checkpointer, trainer, average)
    words = "none: every layer starts from scratch, at random"
    path = setting.cfg.train.init_checkpoint
    if path:
        checkpointer.load_backbone(path)
        for key in checkpointer.new_keys:
            logger.info(f"new, at random on purpose: {key}")
        new = len(checkpointer.new_keys)
        words = f"{path}, every backbone tensor; {new} tensors outside it are new"
    if average:
        average.restart()
    return 0, words


def _resume(path: str, checkpointer, trainer: Trainer, average) -> tuple[int, str]:
    """Go on from a checkpoint; where the config has changed meanwhile, it is the config that holds."""
    groups = trainer.optimizer.param_groups
    given = [{key: value for key, value in g.items() if key != "params"} for g in groups]
    held = read_checkpoint(path).content
    checkpointer.load(path)
    for group, options in zip(trainer.optimizer.param_groups, given, strict=True):
        group.update(options, initial_lr=options["lr"])
    if average and "ema" not in held:
        logger.warning(f"{path} holds no averaged weights: the average starts here")
        average.restart()
    if "data" not in held["trainer"]:
        logger.warning(f"{path} does not say where the order of the images stood: it starts anew")
    # The checkpoint holds the iteration that had just been finished.
    start = trainer.iter + 1
    return start, f"resumed from {path} at iteration {start:,}"


def _hooks_of_a_step(setting: Setting, average) -> list[HookBase]:
    return [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=lr_multiplier(setting.cfg)),
        *([EMA(average)] if average else []),
    ]


def _hooks_of_a_run(setting: Setting, trainer, checkpointer, average) -> list[HookBase]:
    """What follows the checkpoint is done again by a run that goes on from it."""
    cfg, options = setting.cfg, setting.cfg.train
    images = setting.slots * (trainer.data_loader.batch_size or 0)
    return [
        *([PreciseBN(cfg, trainer.model)] if options.precise_bn.enabled else []),
        Checkpoints(checkpointer, eval_period=options.eval_period, **options.checkpointer),
        EvaluationsHook(cfg, trainer.model, checkpointer, average),
        Health(checkpointer.model, options.warmup_iters),
        MetricsLog(
            options.output_dir,
            options.log_period,
            images=images,
            eval_period=options.eval_period,
            recipe=setting.fingerprint,
        ),
        Progress(options.log_period, images=images),
        TrainingBatches(cfg, options.draw_batches),
    ]
