"""A whole run, the same in every process: settle, build, train or evaluate."""

from __future__ import annotations

import logging
import os
import shlex
from argparse import Namespace
from collections.abc import Collection
from contextlib import nullcontext

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .. import tool_command
from ..data.own_data import is_of_own_data
from ..evaluation.coco import evaluate_all
from .card import run_card, show
from .checkpoints.checkpointer import StrictCheckpointer
from .config import (
    DEFAULT_CONFIG,
    data_overrides,
    find_config,
    given_keys,
    load_config,
    path_override,
)
from .dry_run import temporary_run_folder
from .hooks.ema import WeightAverage
from .launching import slurm
from .launching.failures import PREEMPTED
from .launching.launch import launch
from .launching.world import World, one_voice, world
from .settling import Setting, set_up, settle, take_effect
from .training import distributed, train

logger = logging.getLogger("ssl_backbones")

IMAGES_A_PROCESS = 2


def run(args: Namespace) -> int:
    """Train or evaluate as tools/train_net.py was asked to; returns the exit status.

    Args:
        args: the command line, as tools/train_net.py parses it.

    Raises:
        InputError: the run would not do what the config says.
    """
    # What happens on the way to the weights (download, conversion) is told from the first line on.
    setup_logger(name="ssl_backbones")
    args.said = []
    with one_voice():
        args.config_file = find_config(args.config_file or (DEFAULT_CONFIG if args.data else ""))
        args.opts = [*data_overrides(args.data, args.classes, args.init), *args.opts]
        cfg = load_config(args.config_file, args.opts, eval_only=args.eval_only)
        # A job chooses where it runs.
        chooses = args.data and not args.slurm
        if chooses:
            _choose_device(args, cfg)
        processes = world(args, cfg.train.device)
        if chooses and not args.eval_only:
            _choose_batch(args, cfg, processes)
    if args.slurm:
        slurm.submit(args, run, device=cfg.train.device, output_dir=cfg.train.output_dir)
        return 0
    with temporary_run_folder(args, cfg) if args.dry_run else nullcontext():
        return launch(_in_process, processes, args, processes)


def _choose_device(args: Namespace, cfg: DictConfig) -> None:
    """Take the CPU where there is no GPU and nobody asked for one."""
    if "train.device" in given_keys(args.opts) or torch.cuda.is_available():
        return
    if str(cfg.train.device).startswith("cuda"):
        args.opts.insert(0, "train.device=cpu")
        cfg.train.device = "cpu"
        args.said.append("There is no GPU: train.device=cpu")


def _choose_batch(args: Namespace, cfg: DictConfig, world: World) -> None:
    """Two images a process where no batch is named, with the learning rate in proportion."""
    given, key = given_keys(args.opts), "dataloader.train.total_batch_size"
    if key in given or OmegaConf.select(cfg, key) is None:
        return
    saved = os.path.join(cfg.train.output_dir, "config.yaml")
    if (args.resume or world.restarts) and os.path.isfile(saved):
        # Whatever the number of processes is now.
        args.opts[:0] = _batch_of(LazyConfig.load(saved), given)
        return
    batch, reference = (
        IMAGES_A_PROCESS * world.size * cfg.train.accumulate,
        cfg.train.reference_batch_size,
    )
    words = [f"{key}={batch}"]
    if not given & {"train.scale_lr", "train.reference_batch_size"}:
        # Not train.scale_lr=linear: train.max_iter is to count the iterations that there will be.
        words.append(f"train.reference_batch_size={batch}")
        if "optimizer.lr" not in given and OmegaConf.select(cfg, "optimizer.lr") is not None:
            words.append(f"optimizer.lr={cfg.optimizer.lr * batch / reference!r}")
    args.opts[:0] = words
    args.said.append(f"No batch is named: {IMAGES_A_PROCESS} images a process, {' '.join(words)}")


def _batch_of(saved: DictConfig, given: Collection[str]) -> list[str]:
    """Batch and learning rate of a run that goes on, as overrides."""
    keys = ("dataloader.train.total_batch_size", "train.reference_batch_size", "optimizer.lr")
    values = {key: OmegaConf.select(saved, key) for key in keys if key not in given}
    return [f"{key}={value!r}" for key, value in values.items() if value is not None]


def _in_process(args: Namespace, world: World) -> int:
    """What each process does; returns the exit status."""
    cfg = load_config(args.config_file, args.opts, eval_only=args.eval_only)
    start = settle(cfg, world, args)
    set_up(cfg, args, start)
    setting = take_effect(cfg, world, start)
    model = instantiate(cfg.model)
    model.to(cfg.train.device)
    status = _evaluate_only(setting, model) if args.eval_only else train(setting, model, args)
    if comm.is_main_process():
        print(_closing_words(args, cfg.train.output_dir, status))
    return status


def _closing_words(args: Namespace, output_dir: str, status: int) -> str:
    """Where the results are and what to run next."""
    if args.dry_run:
        return "Nothing was left behind.\nNext: the same command without --dry-run"
    if status == PREEMPTED:
        return f"Asked to end, and saved in {output_dir}.\nNext: the same command with --resume"
    if status:
        return f"Failed. The log: {os.path.join(output_dir, 'log.txt')}"
    results = os.path.join(output_dir, "inference")
    words = f"Metrics: {os.path.join(results, 'metrics.json')}"
    detections = os.path.join(results, "coco_instances_results.json")
    # Evaluators of other datasets than COCO write none.
    if os.path.exists(detections):
        words += f"\nDetections: {detections}"
    if args.eval_only:
        return words
    weights = os.path.abspath(os.path.join(output_dir, "model_final.pth"))
    if is_of_own_data(output_dir):
        config = os.path.abspath(os.path.join(output_dir, "config.yaml"))
        again = [*tool_command("train_net"), "--config-file", config, "--eval-only"]
        again.append(path_override("train.init_checkpoint", weights))
        page = [*tool_command("report"), os.path.abspath(output_dir)]
        return (
            f"{words}\nWeights: {weights}\nNext, the report: {shlex.join(page)}\n"
            f"The same evaluation again: {shlex.join(again)}"
        )
    weights = os.path.join(output_dir, "model_final.pth")
    given = [word for word in args.opts if not word.startswith("train.init_checkpoint=")]
    command = ["tools/train_net.py", "--config-file", args.config_file, "--eval-only", *given]
    command.append(path_override("train.init_checkpoint", weights))
    return f"{words}\nWeights: {weights}\nNext, the same evaluation again: {shlex.join(command)}"


def _evaluate_only(setting: Setting, model: nn.Module) -> int:
    """Evaluate the weights of a checkpoint, and their average if it holds one."""
    cfg = setting.cfg
    checkpointer = StrictCheckpointer(model, strict=cfg.train.strict_init)
    held = checkpointer.load(cfg.train.init_checkpoint)
    average = None
    if "ema" in held:
        average = WeightAverage(model, cfg.train.ema.decay)
        average.load_state_dict(held["ema"])
    show("This run", run_card(setting, model, f"{cfg.train.init_checkpoint}, all of it"))
    evaluate_all(cfg, distributed(setting, model), average)
    return 0
