"""An iteration whose loss was not finite, kept in one file and run again from it."""

from __future__ import annotations

import json
import math
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from tabulate import tabulate
from torch import nn
from torch.nn.utils import get_total_norm

from ..conversion.reading import read_checkpoint
from ..data.loading import build_train_loader
from ..errors import InputError
from ..evaluation.coco import unwrapped
from ..files import write_atomically
from ..modeling.norm import apply_norm, choose_norm
from ..seeding import seed_everything
from .checkpoints.checkpointer import StrictCheckpointer
from .config import apply_overrides, find_config, load_config
from .exceptions import NonFiniteError
from .foreign_config import MEND, config_from_text
from .preflight import AMP_DTYPES
from .recipe import plain
from .trainer import Trainer

FORMAT = "ssl-backbones replay 1"


def save_replay(folder: str, trainer: Trainer, error: NonFiniteError, cfg: DictConfig) -> str:
    """Write what it takes to run the iteration again, of all ranks; on the main process alone.

    Returns:
        The path: `folder`/replay_0000123.pth.

    Raises:
        InputError: it cannot be written.
    """
    model = unwrapped(trainer.model)
    parts = plain(cfg)
    config = {
        "model": parts["model"],
        "dataloader": {"train": parts["dataloader"]["train"]},
        "train": {name: parts["train"].get(name) for name in ("device", "amp")},
    }
    content = {
        "format": FORMAT,
        "iteration": error.iteration,
        "seed": trainer.seed,
        "ranks": error.ranks,
        "grad_norm": error.grad_norm,
        "loss_scale": trainer.grad_scaler.get_scale() if trainer.grad_scaler else 1.0,
        "config": json.dumps(config),
        "model": dict(model.state_dict()),
    }
    path = os.path.join(folder, f"replay_{error.iteration:07d}.pth")
    write_atomically(path, lambda file: torch.save(content, file))
    return path


def replay(args: Namespace) -> int:
    """Run the iteration of the file `args.replay` again, slot by slot, and print what is not finite.

    The model and the loader are those of the config inside the file, or of `args.config_file` if given. As
    each slot (micro-batch of a rank) is run by itself, a norm over all processes is one over the slot here.

    Raises:
        InputError: the file is not of that kind, or its config cannot be built.
    """
    content = _read(args.replay)
    if args.config_file:
        cfg = load_config(find_config(args.config_file))
    else:
        cfg = config_from_text(content["config"], args.replay)
    apply_overrides(cfg, args.opts)
    apply_norm(cfg.model, choose_norm(1, cfg.train.device))
    model, loader = _build(cfg, content["seed"])
    StrictCheckpointer(model).load(args.replay, checkpointables=[])
    print(f"Iteration {content['iteration']} of {args.replay}, seed {content['seed']}:")
    slots = list(_run(content, cfg, model.train(), loader))
    print(tabulate(slots, headers="keys", tablefmt="simple", maxcolwidths=40, floatfmt=".6g"))
    bad = [slot for slot in slots if slot["not finite"]]
    for slot in bad:
        print(f"rank {slot['rank']}, micro-batch {slot['micro-batch']}: {slot['not finite']}")
    if not bad:
        print(
            "All losses and gradients are finite here. In the run it was "
            f"{_recorded(content)}; compare device, precision and versions with the run's run.json"
        )
    return 0


def _run(
    content: Mapping[str, Any], cfg: DictConfig, model: nn.Module, loader
) -> Iterator[dict[str, Any]]:
    """A row for each slot; slots are numbered as in training: rank by rank."""
    slot = 0
    for rank, report in enumerate(content["ranks"]):
        for micro, samples in enumerate(report["samples"]):
            batch = loader.fetch(samples)
            seed_everything(content["seed"], content["iteration"], slot)
            row = {
                "rank": rank,
                "micro-batch": micro,
                "images": "\n".join(str(image.get("file_name")) for image in batch),
            }
            yield row | _run_slot(content, cfg, model, batch)
            slot += 1


def _run_slot(
    content: Mapping[str, Any], cfg: DictConfig, model: nn.Module, batch
) -> dict[str, Any]:
    """Losses and gradients of one micro-batch, by name, and what of them is "not finite"."""
    model.zero_grad()
    try:
        with EventStorage(content["iteration"]), _autocast(cfg):
            losses = model(batch)
    except FloatingPointError as error:
        # The model stopped before there was a loss.
        return {"not finite": str(error)}
    if isinstance(losses, torch.Tensor):
        losses = {"total_loss": losses}
    scale = float(content["loss_scale"])
    (sum(losses.values()) * scale).backward()
    gradients = {n: p.grad / scale for n, p in model.named_parameters() if p.grad is not None}
    values = {name: loss.item() for name, loss in losses.items()}
    return {
        **values,
        "grad_norm": get_total_norm(gradients.values()).item(),
        "not finite": _not_finite(values, gradients),
    }


def _autocast(cfg: DictConfig):
    amp = cfg.train.get("amp") or {}
    if not amp.get("enabled"):
        return nullcontext()
    dtype = AMP_DTYPES.get(amp.get("dtype", "fp16"))
    if dtype is None:
        raise InputError(f"train.amp.dtype={amp.dtype}: is {' or '.join(AMP_DTYPES)}")
    return torch.autocast(torch.device(cfg.train.device).type, dtype=dtype)


def _not_finite(losses: Mapping[str, float], gradients: Mapping[str, torch.Tensor]) -> str:
    """The terms, and the parameters by their gradient; "" if all is well."""
    terms = [name for name, value in losses.items() if not math.isfinite(value)]
    bad = [name for name, value in gradients.items() if not value.isfinite().all()]
    if len(bad) > 3:
        bad = [*bad[:3], f"{len(bad) - 3} more"]
    named = [f"gradient of {', '.join(bad)}"] if bad else []
    return ", ".join([*terms, *named])


def _recorded(content: Mapping[str, Any]) -> str:
    found = [
        f"{report['complaint']} on rank {rank}"
        for rank, report in enumerate(content["ranks"])
        if report.get("complaint")
    ] + [
        f"{name}={value} on rank {rank}"
        for rank, report in enumerate(content["ranks"])
        for name, value in report["losses"].items()
        if not math.isfinite(value)
    ]
    return ", ".join(found) or f"the gradient norm, {content['grad_norm']}"


def _build(cfg: DictConfig, seed: int):
    """The model, on its device, and the loader.

    Raises:
        InputError: the config cannot be built, for example because it names a dataset of the user's own.
    """
    import ssl_backbones.data  # noqa: F401  registers the embedded datasets

    if str(cfg.train.device).startswith("cuda") and not torch.cuda.is_available():
        raise InputError("the run was on a GPU and there is none here: add train.device=cpu")
    try:
        model = instantiate(cfg.model).to(cfg.train.device)
        loader_cfg = cfg.dataloader.train
        # Loaded here and now, whatever the run had.
        loader_cfg.num_workers = 0
        return model, build_train_loader(loader_cfg, seed=seed)
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"the config of the run cannot be built: {reason}; {MEND}") from error


_FIELDS = {"iteration": int, "seed": int, "ranks": list, "loss_scale": float, "config": str}


def _read(path: str) -> Mapping[str, Any]:
    """The content of a file that anybody may have written.

    Raises:
        InputError: it is not one that `save_replay` wrote.
    """
    content = read_checkpoint(path).content
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is not a replay file: give a replay_*.pth of a run folder")
    fits = all(type(content.get(name)) is kind for name, kind in _FIELDS.items())
    if not fits or not all(map(_is_report, content["ranks"])):
        raise InputError(f"{path} is damaged: its fields are not those of a replay file")
    return content


def _is_report(report: Any) -> bool:
    """Whether it is a rank's losses, and for each micro-batch [position, index] pairs."""
    if not isinstance(report, dict) or not isinstance(report.get("losses"), dict):
        return False
    batches = report.get("samples")
    return (
        isinstance(batches, list)
        and all(isinstance(batch, list) for batch in batches)
        and all(
            isinstance(pair, list)
            and len(pair) == 2
            and all(type(n) in (int, type(None)) for n in pair)
            for batch in batches
            for pair in batch
        )
        and all(type(value) is float for value in report["losses"].values())
    )
