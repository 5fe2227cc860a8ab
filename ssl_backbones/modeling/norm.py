"""SyncBN where it works, and by rule something equal to it where it does not."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig, ListConfig


@dataclass(frozen=True)
class NormChoice:
    """The norm that stands for "SyncBN" in this run, and why."""

    name: str
    reason: str


def choose_norm(world_size: int, device: str, accumulate: int = 1) -> NormChoice:
    """What "SyncBN" in a config becomes with `world_size` processes on `device` ("cuda" or "cpu").

    Each of `accumulate` micro-batches is normalised by itself, which changes the reason and not the norm.

    `nn.SyncBatchNorm` raises on the CPU as soon as a process group exists; Detectron2's naiveSyncBN works
    with gloo.
    """
    alone = f"each of {accumulate} micro-batches is normalised by itself" if accumulate > 1 else ""
    if world_size == 1:
        return NormChoice("BN", f"one process: {alone or 'its batch is the whole batch'}")
    remark = f"; {alone}" if alone else ""
    if device == "cpu":
        return NormChoice(
            "naiveSyncBN",
            f"{world_size} CPU processes: nn.SyncBatchNorm needs GPUs. It weights the processes equally "
            "and keeps a biased running variance, so unequal image sizes give other statistics"
            f"{remark}",
        )
    return NormChoice("SyncBN", f"statistics over all {world_size} GPUs{remark}")


def apply_norm(model_cfg: DictConfig, choice: NormChoice) -> list[str]:
    """Write `choice` wherever `model_cfg` asks for SyncBN, in place; returns the keys that asked for it."""
    keys = list(_sync_bn_keys(model_cfg))
    for node, name, _ in keys:
        node[name] = choice.name
    return [key for _, _, key in keys]


def _sync_bn_keys(node: DictConfig | ListConfig, prefix: str = ""):
    names = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for name in list(names):
        child = node._get_node(name)
        if child._is_none() or child._is_interpolation():
            continue
        if isinstance(child, DictConfig | ListConfig):
            yield from _sync_bn_keys(child, f"{prefix}{name}.")
        elif child._value() == "SyncBN":
            yield node, name, f"{prefix}{name}"
