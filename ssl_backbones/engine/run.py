"""A whole run, the same in every process: settle, build, train or evaluate."""

from __future__ import annotations

import os
import shlex
from argparse import Namespace
from contextlib import nullcontext

from detectron2.config import instantiate
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from ..evaluation.coco import evaluate_all
from .card import run_card, show
from .checkpoints.checkpointer import StrictCheckpointer
from .config import find_config, load_config
from .dry_run import temporary_run_folder
from .hooks.ema import WeightAverage
from .launching import slurm
from .launching.failures import PREEMPTED
from .launching.launch import launch
from .launching.world import World, one_voice, world
from .settling import Setting, set_up, settle, take_effect
from .training import distributed, train


def run(args: Namespace) -> int:
    """Train or evaluate as tools/train_net.py was asked to; returns the exit status.

    Args:
        args: the command line, as tools/train_net.py parses it.

    Raises:
        InputError: the run would not do what the config says.
    """
    # What happens on the way to the weights (download, conversion) is told from the first line on.
    setup_logger(name="ssl_backbones")
    with one_voice():
        args.config_file = find_config(args.config_file)
        cfg = load_config(args.config_file, args.opts)
        processes = world(args, cfg.train.device)
    if args.slurm:
        slurm.submit(args, run, device=cfg.train.device, output_dir=cfg.train.output_dir)
        return 0
    with temporary_run_folder(args, cfg) if args.dry_run else nullcontext():
        return launch(_in_process, processes, args, processes)


def _in_process(args: Namespace, world: World) -> int:
    """What each process does; returns the exit status."""
    cfg = load_config(args.config_file, args.opts)
    start = settle(cfg, world, args)
    set_up(cfg, args)
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
    weights = os.path.join(output_dir, "model_final.pth")
    given = [word for word in args.opts if not word.startswith("train.init_checkpoint=")]
    command = ["tools/train_net.py", "--config-file", args.config_file, "--eval-only", *given]
    command.append(f"train.init_checkpoint={weights}")
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
