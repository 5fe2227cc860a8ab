"""Learning rate and schedule: of a batch that is not the reference, and with a warm-up in iterations."""

from __future__ import annotations

from collections.abc import Collection

from detectron2.config import instantiate
from fvcore.common.param_scheduler import LinearParamScheduler, ParamScheduler
from omegaconf import DictConfig, OmegaConf

from ..errors import InputError

# What Detectron2's DefaultTrainer.auto_scale_workers divides by the scale; the steps of a LazyConfig's
# schedule are shares of max_iter and move with it.
_LENGTHS = (
    "train.max_iter",
    "train.warmup_iters",
    "train.eval_period",
    "train.checkpointer.period",
)
_PERIODS = _LENGTHS[2:]


def lengths_for(cfg: DictConfig, iterations: int, given: Collection[str]) -> list[str]:
    """The lengths of a run of so many iterations, as overrides.

    Periods of evaluation and checkpoints and the steps of a MultiStepParamScheduler keep their shares of the
    run, rounded; the warm-up stays, or is a tenth of the run if that is shorter. Nothing is said of what is a
    share of the run anyhow, or `given`: the keys that the user has set.
    """
    lengths = {"train.max_iter": iterations}
    if cfg.train.get("warmup_iters") is not None:
        lengths["train.warmup_iters"] = min(cfg.train.warmup_iters, iterations // 10)
    for key in _PERIODS:
        if period := OmegaConf.select(cfg, key):
            lengths[key] = max(1, round(period * iterations / cfg.train.max_iter))
    scheduler = OmegaConf.select(cfg, "lr_multiplier.scheduler") or {}
    steps, end = scheduler.get("milestones"), scheduler.get("num_updates")
    by_hand = any(key.startswith("lr_multiplier.scheduler") for key in given)
    # MultiStepParamScheduler wants an iteration before each step and after the last one.
    if steps and end and iterations > len(steps) and not by_hand:
        moved = [0]
        for latest, step in enumerate(steps, iterations - len(steps)):
            moved.append(max(moved[-1] + 1, min(round(step * iterations / end), latest)))
        lengths["lr_multiplier.scheduler.num_updates"] = iterations
        lengths["lr_multiplier.scheduler.milestones"] = f"[{','.join(map(str, moved[1:]))}]"
    return [f"{key}={length}" for key, length in lengths.items() if key not in given]


def check_batch(cfg: DictConfig, world_size: int, *, in_epochs: bool = False) -> None:
    """Refuse a batch that does not divide, or that the learning rate was not made for without a word.

    Of a run `in_epochs` no batch changes the length, and the message says none.

    Raises:
        InputError: with what to set.
    """
    batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    if batch is None:
        return
    accumulate, rule = cfg.train.accumulate, cfg.train.scale_lr
    if accumulate < 1:
        raise InputError(f"train.accumulate={accumulate}: must be at least 1")
    if batch < 1 or batch % (world_size * accumulate):
        among = f"{world_size} process{'es' if world_size > 1 else ''}"
        if accumulate > 1:
            among += f" x train.accumulate={accumulate}"
        raise InputError(
            f"dataloader.train.total_batch_size={batch} does not divide among {among}; make it a multiple, "
            "or change their number"
        )
    if rule not in (None, "linear", "none"):
        raise InputError(f"train.scale_lr={rule}: is linear or none")
    reference = cfg.train.reference_batch_size
    if batch != reference and rule is None:
        lr = OmegaConf.select(cfg, "optimizer.lr")
        iterations = f", {round(cfg.train.max_iter * reference / batch):,} iterations"
        raise InputError(
            f"dataloader.train.total_batch_size={batch}, and optimizer.lr={lr} and the schedule are for "
            f"train.reference_batch_size={reference}: say train.scale_lr=linear (learning rate x "
            f"{batch / reference:g}{'' if in_epochs else iterations}) or train.scale_lr=none (both as they "
            "are)"
        )


def scale_to_batch(cfg: DictConfig) -> tuple[str, str]:
    """Apply `train.scale_lr` to `cfg` in place.

    With the scale s = batch / reference, "linear" multiplies the learning rate by s and divides the lengths
    (iterations, warm-up, periods of evaluation and checkpoints) by it, rounded.

    Returns:
        What the batch and the learning rate are, in words.
    """
    batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    reference, lr = cfg.train.reference_batch_size, OmegaConf.select(cfg, "optimizer.lr")
    if batch is None or batch == reference:
        return f"{batch} images a step, as the reference", f"{lr}"
    of_reference = f"{batch} images a step; the reference is {reference}"
    if cfg.train.scale_lr != "linear" or lr is None:
        return of_reference, f"{lr}, as requested (train.scale_lr={cfg.train.scale_lr})"
    scale = batch / reference
    cfg.optimizer.lr = lr * scale
    lengths = []
    for key in _LENGTHS:
        length = OmegaConf.select(cfg, key)
        if length:
            OmegaConf.update(cfg, key, max(1, round(length / scale)))
            lengths.append(f"{key} {length} -> {OmegaConf.select(cfg, key)}")
    return of_reference, f"{lr} requested, {lr * scale:g} effective; {', '.join(lengths)}"


def lr_multiplier(cfg: DictConfig) -> ParamScheduler:
    """The config's schedule, its warm-up lasting `train.warmup_iters` iterations whatever `max_iter` is.

    Detectron2 counts the warm-up as a share of the run, so that another `train.max_iter` would stretch it.
    """
    iterations, max_iter = cfg.train.get("warmup_iters"), cfg.train.max_iter
    if iterations is None or "warmup_length" not in cfg.lr_multiplier:
        return instantiate(cfg.lr_multiplier)
    if iterations >= max_iter:
        # The run ends within its warm-up: the first part of the same ramp.
        start = cfg.lr_multiplier.warmup_factor
        return LinearParamScheduler(start, start + (1 - start) * max_iter / iterations)
    cfg.lr_multiplier.warmup_length = iterations / max_iter
    return instantiate(cfg.lr_multiplier)
