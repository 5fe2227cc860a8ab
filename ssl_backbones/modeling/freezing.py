"""What a freeze really froze, counted from the built model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn


def find_resnet(model: nn.Module) -> tuple[str, ResNet] | None:
    """Name and module of the (first) ResNet inside `model`; None where there is none."""
    return next(((n, m) for n, m in model.named_modules() if isinstance(m, ResNet)), None)


def find_res5(model: nn.Module) -> tuple[str, nn.Module] | None:
    """Name and module of the res5 that a C4 model's heads hold; None where the ResNet has its own."""
    heads = ((n, m) for n, m in model.named_modules() if isinstance(m, Res5ROIHeads))
    return next(((f"{name}.res5".lstrip("."), head.res5) for name, head in heads), None)


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Frozen and trainable parameters of `module`.

    The affine of a FrozenBatchNorm2d counts as frozen although Detectron2 keeps it as a buffer.
    """
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    frozen += sum(
        m.weight.numel() + m.bias.numel()
        for m in module.modules()
        if isinstance(m, FrozenBatchNorm2d)
    )
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return frozen, trainable


def norms(model: nn.Module) -> str:
    """The norm layers of a model by their classes, with how many there are of each."""
    kinds = (FrozenBatchNorm2d, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    found = Counter(type(m).__name__ for m in model.modules() if isinstance(m, kinds))
    return ", ".join(f"{count} {name}" for name, count in found.items()) or "none"


def parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts that a reader of a recipe thinks in: stem, res2..res5, then the model's other children."""
    found = find_resnet(model)
    if found is None:
        yield from model.named_children()
        return
    name, resnet = found
    yield from resnet.named_children()
    inside = name.split(".")[0]
    for child_name, child in model.named_children():
        if child_name != inside:
            yield child_name, child
        elif child is not resnet:
            around = {n: c for n, c in child.named_children() if c is not resnet}
            yield f"{child_name} (without the ResNet)", nn.ModuleDict(around)
