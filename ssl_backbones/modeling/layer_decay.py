"""Parameter groups whose learning rate falls from layer to layer below the heads."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from ..errors import InputError
from .freezing import find_backbone


def layer_decayed_params(
    model: nn.Module,
    base_lr: float,
    weight_decay: float,
    decay: float,
    no_decay_names: Collection[str] = (),
    decay_biases: bool = False,
) -> list[dict[str, Any]]:
    """Groups for AdamW: base_lr * decay ** (num_layers - 1 - layer) in the backbone, base_lr outside of it.

    The backbone says by `layer_id(name)` in which of its `num_layers` layers one of its own parameters is: 0
    is the stem, num_layers - 1 what has the whole rate as all outside has. In `no_weight_decay` it may list
    names without weight decay; biases and whatever has one dimension are without it anyhow.

    Source: ConvNeXt, object_detection/mmcv_custom/layer_decay_optimizer_constructor.py (commit 048efce), and
    BEiT's before it.

    Args:
        no_decay_names: more names without weight decay: whole below the backbone, or the last part alone.
        decay_biases: leave out norms of the backbone and names alone, as ViTDet does: Detectron2's
            get_default_optimizer_params has biases decay, and takes no norm of pyramid and heads for one.

    Returns:
        Each trainable parameter once, in groups whose order follows from the model alone.

    Raises:
        InputError: the decay is not above 0 and at most 1, or the backbone has no layers to count.
    """
    if not 0 < decay <= 1:
        raise InputError(f"optimizer.params.decay={decay}: must be above 0 and at most 1")
    name, backbone = find_backbone(model) or ("", None)
    if not hasattr(backbone, "layer_id"):
        raise InputError(
            f"optimizer.params counts the layers of a backbone, and {type(backbone).__name__} has none "
            "to count: it takes Detectron2's get_default_optimizer_params"
        )
    inside = f"{name}." if name else ""
    undecayed = {*no_decay_names, *getattr(backbone, "no_weight_decay", ())}
    norms = {p for m in backbone.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for whole, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        own, last = whole.removeprefix(inside), whole.rpartition(".")[2]
        outside = not whole.startswith(inside)
        layer = backbone.num_layers - 1 if outside else backbone.layer_id(own)
        is_weight = parameter.ndim > 1 and last != "bias"
        decays = parameter not in norms if decay_biases else is_weight
        decays = decays and undecayed.isdisjoint((own, last))
        group = {
            "params": [],
            "lr": base_lr * decay ** (backbone.num_layers - 1 - layer),
            "weight_decay": weight_decay if decays else 0.0,
        }
        groups.setdefault((layer, decays), group)["params"].append(parameter)
    return list(groups.values())
