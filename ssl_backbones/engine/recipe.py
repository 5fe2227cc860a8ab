"""The fields of a config that the result depends on, and a fingerprint of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ..hashing import fingerprint_of, sha256_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

ABSENT = "(absent)"

WITHOUT_EFFECT = {
    "train.output_dir": "says where, not what",
    "dataloader.evaluator.output_dir": "says where, not what",
    "train.data": "a path; content and classes stand for the names of its datasets",
    "train.val_share": "stands with the content of what was divided",
    "train.classes": "stand with the content, for the names of its datasets",
    "train.init_checkpoint": "a path; the weights' own hash stands in its place, as `weights`",
    "train.strict_init": "refuses weights and changes none",
    "train.accumulate": "counted with the processes, as `slots`; of SyncBN by itself as well",
    "train.device": "changes rounding alone",
    "train.cudnn_benchmark": "changes rounding alone",
    "train.log_period": "only looks on",
    "train.draw_batches": "only looks on",
    "train.eval_at_start": "only looks on",
    "train.checkpointer.*": "saves and changes nothing",
    "dataloader.*.num_workers": "samples are seeded by position, not by worker",
    "optimizer.params.model": "the built model, put there to make its optimizer",
}
"""Fields of a config (patterns of fnmatch) that the result does not depend on, each with its reason."""


def recipe(
    cfg: DictConfig, provenance: Mapping[str, Any] | None = None, slots: int = 1
) -> dict[str, Any]:
    """Every field that affects the result of a run, by its dotted key.

    Beside the config's own fields, less those of `WITHOUT_EFFECT`, these are `weights` (what the run starts
    from, by hash) and `slots`.

    Args:
        provenance: what preflight found in the weights.
        slots: processes times `train.accumulate`: as many micro-batches make an iteration, and each
            normalises its own losses.
    """
    from ..lazy import stock_name

    own = _own_datasets(cfg)
    found = {
        key: stock_name(value)
        if key.endswith("_target_")
        else own.get(value, value)
        if isinstance(value, str)
        else _same_if_equal(value)
        for key, value in flat(plain(cfg))
        if not any(fnmatchcase(key, pattern) for pattern in WITHOUT_EFFECT)
    }
    if not found.get("train.paired_init"):
        # As every run before there was the choice.
        found.pop("train.paired_init", None)
    if found.get("train.warmup_iters") is not None:
        # It follows from these iterations, and is set when the schedule is built.
        found.pop("lr_multiplier.warmup_length", None)
    accumulate = cfg.train.get("accumulate", 1)
    if accumulate > 1 and any(str(value).endswith("SyncBN") for value in found.values()):
        # Its statistics are those of all processes, and of one micro-batch of each.
        found["train.accumulate"] = accumulate
    return {**found, "weights": _weights(cfg, provenance or {}), "slots": slots}


def _own_datasets(cfg: DictConfig) -> dict[str, str]:
    """By name of each dataset that was named by its path: the hash of its content, and its classes."""
    from ..data.own_data import identity
    from ..data.preparing import dataset_names

    names = {name for role in ("train", "test") for name in dataset_names(cfg, role)}
    return {name: found for name in names if (found := identity(name))}


def everything_but_paths(cfg: DictConfig) -> dict[str, Any]:
    """Every field that all processes of a run must have alike, by its dotted key."""
    own = ("train.output_dir", "train.init_checkpoint", "train.data")
    return {key: value for key, value in flat(plain(cfg)) if key not in own}


def fingerprint(
    cfg: DictConfig, provenance: Mapping[str, Any] | None = None, slots: int = 1
) -> str:
    """SHA-256 (hexadecimal) of the `recipe`: two runs have the same exactly if no field of it differs."""
    return fingerprint_of(recipe(cfg, provenance, slots))


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, value in `a`, value in `b`) of each that differs, by name; `ABSENT` where one has it not."""
    pairs = ((key, a.get(key, ABSENT), b.get(key, ABSENT)) for key in {**a, **b})
    return sorted((pair for pair in pairs if pair[1] != pair[2]), key=lambda pair: pair[0])


def plain(value: Any) -> Any:
    """A config as JSON has it: what it calls by dotted name, other objects as they print themselves.

    Records (dataclasses and named tuples, such as Detectron2's ShapeSpec) become lazy calls of their type.
    """
    from omegaconf import DictConfig, ListConfig, OmegaConf, SCMode
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(value, DictConfig | ListConfig):
        keep = {"structured_config_mode": SCMode.INSTANTIATE}
        try:
            value = OmegaConf.to_container(value, resolve=True, **keep)
        except OmegaConfBaseException:
            # Some part refers to what is not there, and is not used either: it stays as it is written.
            value = OmegaConf.to_container(value, resolve=False, **keep)
    if is_dataclass(value) and not isinstance(value, type):
        value = {"_target_": type(value), **{f.name: getattr(value, f.name) for f in fields(value)}}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = {"_target_": type(value), **value._asdict()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    # Less its address in memory, which no other run has.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, leaf) of nested mappings and lists; an empty one is a leaf itself."""
    if not isinstance(value, dict | list) or not value:
        yield prefix, value
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield from flat(item, f"{prefix}.{key}" if prefix else str(key))


def _same_if_equal(value: Any) -> Any:
    """1 and 1.0 are the same to a config and not the same in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _weights(cfg: DictConfig, provenance: Mapping[str, Any]) -> str:
    """What the run starts from, whatever the file is called and whenever it was converted."""
    path = cfg.train.get("init_checkpoint") or ""
    if provenance.get("source_sha256"):
        words = (provenance.get(name) for name in ("source_sha256", "method", "branch"))
        return " ".join(str(word) for word in words if word)
    if not path:
        return "random"
    return sha256_of(path) if os.path.isfile(path) else path
