"""Train and evaluate what a checked config describes: the same few steps in every process."""

from __future__ import annotations

import logging
import os
import weakref
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from detectron2.config import instantiate
from detectron2.engine import (
    AMPTrainer,
    HookBase,
    SimpleTrainer,
    create_ddp_model,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from tabulate import tabulate
from torch import nn

from ..errors import InputError
from ..evaluation.coco import evaluate
from ..modeling.norm import NormChoice, apply_norm, choose_norm
from . import preflight
from .checkpoint import StrictCheckpointer
from .config import find_config, load_config
from .launch import World, launch
from .schedule import lr_multiplier

logger = logging.getLogger("detectron2")


def run(args: Namespace) -> int:
    """Check the whole run in this process, then train or evaluate in every process of the world.

    Args:
        args: `config_file`, `opts`, `eval_only`, `resume` and the flags of the world, as
            tools/train_net.py parses them.

    Raises:
        InputError: the run would not do what the config says.
    """
    # What happens on the way to the weights (download, conversion) is told from the first line on.
    setup_logger(name="ssl_backbones")
    args.config_file = find_config(args.config_file)
    cfg = load_config(args.config_file, args.opts)
    world = _world(args, cfg.train.device)
    provenance = preflight.check(cfg, world, eval_only=args.eval_only)
    status = launch(_in_process, world, args, world, cfg.train.init_checkpoint, provenance)
    if status == 0 and world.machine_rank == 0:
        print(_closing_words(args, cfg.train.output_dir))
    return status


def _closing_words(args: Namespace, output_dir: str) -> str:
    """Where the results are and what to run next."""
    results = os.path.join(output_dir, "inference")
    words = (
        f"Metrics: {os.path.join(results, 'metrics.json')}\n"
        f"Detections: {os.path.join(results, 'coco_instances_results.json')}"
    )
    if args.eval_only:
        return words
    weights = os.path.join(output_dir, "model_final.pth")
    return (
        f"{words}\nWeights: {weights}\nNext, the same evaluation again: tools/train_net.py --config-file "
        f"{args.config_file} --eval-only train.init_checkpoint={weights}"
    )


def _world(args: Namespace, device: str) -> World:
    """Who takes part: --num-gpus counts on GPUs, --num-processes on the CPU."""
    on_gpu = str(device).startswith("cuda")
    flag, other = ("num_gpus", "num_processes") if on_gpu else ("num_processes", "num_gpus")
    if getattr(args, other) is not None:
        raise InputError(
            f"--{other.replace('_', '-')} with train.device={device}: use --{flag.replace('_', '-')}"
        )
    processes = getattr(args, flag)
    processes = 1 if processes is None else processes
    if processes < 1 or args.num_machines < 1:
        raise InputError(f"--{flag.replace('_', '-')} and --num-machines count from 1")
    if args.num_machines > 1 and args.dist_url == "auto":
        raise InputError(
            "--num-machines needs --dist-url tcp://HOST:PORT, the same on every machine"
        )
    return World(
        "cuda" if on_gpu else "cpu", processes, args.num_machines, args.machine_rank, args.dist_url
    )


def _in_process(args: Namespace, world: World, weights: str, provenance: Mapping[str, Any]) -> None:
    """What each process does: the config again (it holds classes that do not travel), then its flow."""
    cfg = load_config(args.config_file, args.opts)
    cfg.train.init_checkpoint = weights
    norm = choose_norm(world.size, world.device)
    apply_norm(cfg.model, norm)
    default_setup(cfg, args)
    model = instantiate(cfg.model)
    model.to(cfg.train.device)
    if args.eval_only:
        _evaluate_only(cfg, world, model, norm, provenance)
    else:
        _train(cfg, world, model, norm, provenance, resume=args.resume)


def _evaluate_only(cfg, world: World, model: nn.Module, norm: NormChoice, provenance) -> None:
    StrictCheckpointer(model, strict=cfg.train.get("strict_init", True)).load(
        cfg.train.init_checkpoint
    )
    _show(
        preflight.run_card(
            cfg, world, model, norm, provenance, f"{cfg.train.init_checkpoint}, all of it"
        )
    )
    evaluate(
        cfg.dataloader,
        _distributed(cfg, world, model),
        os.path.join(cfg.train.output_dir, "inference"),
    )


def _train(
    cfg, world: World, model: nn.Module, norm: NormChoice, provenance, *, resume: bool
) -> None:
    preflight.check_disk(cfg.train.output_dir, model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    loader = instantiate(cfg.dataloader.train)
    distributed = _distributed(cfg, world, model)
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(
        distributed, loader, optimizer
    )
    # The hook and the checkpointer would otherwise keep the trainer, and it them, alive.
    checkpointer = StrictCheckpointer(
        model,
        cfg.train.output_dir,
        strict=cfg.train.get("strict_init", True),
        trainer=weakref.proxy(trainer),
    )
    trainer.register_hooks(_hooks(cfg, distributed, checkpointer))
    start, weights = _load(cfg, checkpointer, trainer, resume)
    _show(preflight.run_card(cfg, world, model, norm, provenance, weights))
    if cfg.train.get("eval_at_start") and start == 0:
        evaluate(cfg.dataloader, distributed, os.path.join(cfg.train.output_dir, "inference_start"))
        distributed.train()
    trainer.train(start, cfg.train.max_iter)


def _distributed(cfg: DictConfig, world: World, model: nn.Module) -> nn.Module:
    """Wrap for several processes; DDP refuses `device_ids` on the CPU, and Detectron2 always gives them."""
    arguments = dict(cfg.train.get("ddp", {}))
    if world.device == "cpu":
        arguments["device_ids"] = None
    return create_ddp_model(model, **arguments)


def _load(cfg, checkpointer: StrictCheckpointer, trainer, resume: bool) -> tuple[int, str]:
    """Load what the run starts from; returns the first iteration and the weights in words."""
    if resume and checkpointer.has_checkpoint():
        path = checkpointer.get_checkpoint_file()
        checkpointer.load(path)
        # The checkpoint holds the iteration that had just been finished.
        return trainer.iter + 1, f"resumed from {path} at iteration {trainer.iter + 1:,}"
    path = cfg.train.init_checkpoint
    if not path:
        return 0, "none: every layer starts from scratch, at random"
    checkpointer.load_backbone(path)
    for key in checkpointer.new_keys:
        logger.info(f"new, at random on purpose: {key}")
    return (
        0,
        f"{path}, every backbone tensor; {len(checkpointer.new_keys)} tensors outside it are new",
    )


def _hooks(cfg, model: nn.Module, checkpointer: StrictCheckpointer) -> list[HookBase | None]:
    output_dir, is_main = cfg.train.output_dir, comm.is_main_process()
    writers = default_writers(output_dir, cfg.train.max_iter) if is_main else []
    return [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=lr_multiplier(cfg)),
        hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if is_main else None,
        hooks.EvalHook(
            cfg.train.eval_period,
            lambda: evaluate(cfg.dataloader, model, os.path.join(output_dir, "inference")),
        ),
        hooks.PeriodicWriter(writers, period=cfg.train.log_period) if is_main else None,
    ]


def _show(rows: list[tuple[str, str]]) -> None:
    """Log the run card; only the main process's logger prints."""
    logger.info("This run:\n%s", tabulate(rows, tablefmt="plain", maxcolwidths=[None, 100]))
