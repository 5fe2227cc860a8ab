"""What a freeze really froze, counted from the built model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

from .convnext import STAGES, ConvNeXt
from .vit import ViT


def find_backbone(model: nn.Module) -> tuple[str, ResNet | ConvNeXt | ViT] | None:
    """Name and module of the (first) ResNet, ConvNeXt or ViT inside `model`; None where there is none."""
    kinds = (ResNet, ConvNeXt, ViT)
    return next(((n, m) for n, m in model.named_modules() if isinstance(m, kinds)), None)


def freeze_at_of_all(build: str, depth: int | None = None) -> int:
    """The `freeze_at` of a whole backbone, by the name of what builds it: a ViT's counts its blocks."""
    return (depth or 12) + 2 if build == "ssl_backbones.modeling.vit.build_vit" else 5


def is_pretrained(found: tuple[str, nn.Module], key: str) -> bool:
    """Whether a tensor of the model is one that a pretraining of this backbone holds."""
    name, module = found
    inside = key.removeprefix(f"{name}.") if name else key
    if name and inside == key:
        return False
    # A ConvNeXt's output norms are the detector's.
    return isinstance(module, ResNet) or inside.startswith(("convnext.", "vit."))


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
    """The parts that a reader of a recipe thinks in: stem and stages, then the model's other children."""
    found = find_backbone(model)
    if found is None:
        yield from model.named_children()
        return
    name, resnet = found
    if isinstance(resnet, ConvNeXt):
        yield "stem", resnet.convnext["stem"]
        yield from zip(STAGES, resnet.convnext["stages"], strict=True)
        yield "output norms", resnet.output_norms
    elif isinstance(resnet, ViT):
        names = dict(resnet.named_parameters())
        yield "embeddings", nn.ParameterList(p for n, p in names.items() if not resnet.layer_id(n))
        yield from ((f"block{n}", block) for n, block in enumerate(resnet.vit.blocks, 1))
        yield "norm", resnet.vit.norm
    else:
        yield from resnet.named_children()
    inside = name.split(".")[0]
    for child_name, child in model.named_children():
        if child_name != inside:
            yield child_name, child
        elif child is not resnet:
            around = {n: c for n, c in child.named_children() if c is not resnet}
            yield f"{child_name} (without the {type(resnet).__name__})", nn.ModuleDict(around)
