"""A whole run, the same in every process: settle, build, train or evaluate."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import shlex
from argparse import Namespace
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from fractions import Fraction

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .. import tool_command
from ..data.own_data import is_of_own_data
from ..data.preparing import prepare
from ..errors import InputError
from ..evaluation.coco import evaluate_all
from ..lazy import stock_name
from ..modeling.paired import build_paired
from .card import run_card, show
from .checkpoints.checkpointer import StrictCheckpointer
from .config import (
    DEFAULT_CONFIG,
    apply_overrides,
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
from .preflight import check_dataset
from .schedule import check_batch, lengths_for
from .settling import Setting, Start, set_up, settle, take_effect
from .training import distributed, train

logger = logging.getLogger("ssl_backbones")

IMAGES_A_PROCESS = 2

_BATCH = "dataloader.train.total_batch_size"


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
        if args.epochs is not None:
            _check_epochs(args)
        args.config_file = find_config(args.config_file or (DEFAULT_CONFIG if args.data else ""))
        named = data_overrides(args.data, args.classes, args.init, args.val_share)
        args.opts = [*named, *args.opts]
        cfg = load_config(args.config_file, args.opts, eval_only=args.eval_only)
        # A job chooses where it runs.
        chooses = args.data and not args.slurm
        if chooses:
            _choose_device(args, cfg)
        processes = world(args, cfg.train.device)
        # As they are asked for, before a batch is chosen.
        asked = cfg.train.reference_batch_size, OmegaConf.select(cfg, "optimizer.lr")
        if chooses and not args.eval_only:
            _choose_batch(args, cfg, processes)
        if args.epochs is not None and not args.slurm:
            _choose_length(args, cfg, processes, *asked)
        elif chooses and not args.eval_only and not (args.resume or processes.restarts):
            _say_length(args, cfg)
    if args.slurm:
        folder = cfg.train.output_dir
        job = slurm.submit(args, run, device=cfg.train.device, output_dir=folder)
        return slurm.status_of(job, args.slurm)
    with temporary_run_folder(args, cfg) if args.dry_run else nullcontext():
        return launch(_in_process, processes, args, processes)


def _check_epochs(args: Namespace) -> None:
    """Refuse an --epochs that is no length, or beside what contradicts it."""
    if not 0 < args.epochs < 1e9:
        raise InputError(f"--epochs {args.epochs:g}: give a number above 0 and below a billion")
    if args.eval_only:
        raise InputError("--epochs with --eval-only, which trains nothing: leave one of them out")
    if "train.max_iter" in given_keys(args.opts):
        raise InputError(
            f"--epochs {args.epochs:g} and train.max_iter both say how long to train: leave one of them out"
        )


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
    given = given_keys(args.opts)
    if _BATCH in given or OmegaConf.select(cfg, _BATCH) is None:
        return
    saved = os.path.join(cfg.train.output_dir, "config.yaml")
    if (args.resume or world.restarts) and os.path.isfile(saved):
        # Whatever the number of processes is now.
        words = _batch_of(LazyConfig.load(saved), given)
    else:
        words = _new_batch(cfg, world, given)
        said = f"No batch is named: {IMAGES_A_PROCESS} images a process, {' '.join(words)}"
        args.said.append(said)
    args.opts[:0] = words
    apply_overrides(cfg, words)


def _new_batch(cfg: DictConfig, world: World, given: Collection[str]) -> list[str]:
    """Batch and learning rate of a run that begins, as overrides."""
    batch, reference = (
        IMAGES_A_PROCESS * world.size * cfg.train.accumulate,
        cfg.train.reference_batch_size,
    )
    words = [f"{_BATCH}={batch}"]
    if not given & {"train.scale_lr", "train.reference_batch_size"}:
        # Not train.scale_lr=linear: train.max_iter is to count the iterations that there will be.
        words.append(f"train.reference_batch_size={batch}")
        if "optimizer.lr" not in given and OmegaConf.select(cfg, "optimizer.lr") is not None:
            words.append(f"optimizer.lr={cfg.optimizer.lr * batch / reference!r}")
    return words


def _batch_of(saved: DictConfig, given: Collection[str]) -> list[str]:
    """Batch and learning rate of a run that goes on, as overrides."""
    keys = (_BATCH, "train.reference_batch_size", "optimizer.lr")
    values = {key: OmegaConf.select(saved, key) for key in keys if key not in given}
    return [f"{key}={value!r}" for key, value in values.items() if value is not None]


def _choose_length(
    args: Namespace, cfg: DictConfig, world: World, reference: int, lr: float | None
) -> None:
    """Turn --epochs into iterations, and `train.scale_lr` into a learning rate alone.

    Args:
        reference, lr: the batch that the learning rate `lr` was asked for with.
    """
    check_batch(cfg, world.size, in_epochs=True)
    images, batch = _training_images(cfg), OmegaConf.select(cfg, _BATCH)
    # As a fraction of what was written, which a float is not: 0.07 epochs of 100 images are 7.
    iterations = math.ceil(Fraction(repr(args.epochs)) * images / batch)
    words = lengths_for(cfg, iterations, given_keys(args.opts))
    args.opts[:0] = words
    args.said.append(
        f"{args.epochs:g} epoch{'' if args.epochs == 1 else 's'} of {images:,} images, {batch} a step: "
        f"{' '.join(words)}"
    )
    if cfg.train.scale_lr == "linear" and lr is not None and batch != reference:
        words = [f"optimizer.lr={lr * batch / reference!r}", f"train.reference_batch_size={batch}"]
        # Behind what the user has given, which this is made from.
        args.opts += words
        args.said.append(f"train.scale_lr=linear, of the learning rate alone: {' '.join(words)}")


def _say_length(args: Namespace, cfg: DictConfig) -> None:
    """Say how many epochs of the user's data the recipe's iterations are."""
    if "train.max_iter" in given_keys(args.opts):
        return
    try:
        images = _training_images(cfg)
    except InputError:
        # What is wrong is said in its turn, by the checks of any run.
        return
    linear = cfg.train.scale_lr == "linear"
    batch = cfg.train.reference_batch_size if linear else OmegaConf.select(cfg, _BATCH)
    epochs = round(cfg.train.max_iter * batch / images, 1)
    args.said.append(
        f"train.max_iter={cfg.train.max_iter:,} is {epochs:,g} epochs of these {images:,} images; "
        "--epochs E sets another length"
    )


def _training_images(cfg: DictConfig) -> int:
    """How many images are trained on; `cfg` is prepared for that.

    Raises:
        InputError: the first thing found wrong with them, or that nobody knows how many.
    """
    dataset = OmegaConf.select(cfg, "dataloader.train.dataset")
    if dataset is None or OmegaConf.select(cfg, _BATCH) is None:
        raise InputError(
            "dataloader.train has no dataset and total_batch_size to count epochs by: give train.max_iter"
        )
    check_dataset(cfg, "train")
    prepare(cfg, ("train",))
    if stock_name(dataset.get("_target_")).endswith(".get_detection_dataset_dicts"):
        # Detectron2 shows its table of the objects once, which is for the run's own log.
        dataset.check_consistency = False
    try:
        # Of COCO's size a second, once the run's own annotations are packed.
        return len(instantiate(dataset))
    except (AssertionError, TypeError) as error:
        raise InputError(
            f"the images of dataloader.train.dataset cannot be counted ({error}): give train.max_iter"
        ) from error


def _in_process(args: Namespace, world: World) -> int:
    """What each process does; returns the exit status."""
    cfg = load_config(args.config_file, args.opts, eval_only=args.eval_only)
    start = settle(cfg, world, args)
    alone = comm.is_main_process() and not args.eval_only
    with alone_in_run(cfg.train.output_dir) if alone else nullcontext():
        return _settled_run(args, cfg, world, start)


@contextmanager
def alone_in_run(folder: str) -> Iterator[None]:
    """Keep a second training out of a run folder, where both would write one log and one set of checkpoints.

    Raises:
        InputError: another one is at work there.
    """
    os.makedirs(folder, exist_ok=True)
    place = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run is at work in {folder}: wait for it or end it, or give another train.output_dir"
            ) from None
        except OSError as error:  # of a network disk that locks nothing
            logger.warning(f"cannot lock {folder}: {error.strerror}")
        yield
    finally:
        # Not by closing alone: a loader's worker may have the folder open for a while yet.
        with suppress(OSError):
            fcntl.flock(place, fcntl.LOCK_UN)
        os.close(place)


def _settled_run(args: Namespace, cfg: DictConfig, world: World, start: Start) -> int:
    set_up(cfg, args, start)
    setting = take_effect(cfg, world, start)
    if cfg.train.get("paired_init"):
        model = build_paired(cfg.model, cfg.train.seed)
    else:
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
