"""Whether weights go with a config: read the way that they were trained, for the network that they are of."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from detectron2.modeling.backbone import ResNet
from omegaconf import DictConfig, ListConfig, OmegaConf

from ..conversion.families import CONVNEXT, RESNET, VIT, family_of, stated_architecture
from ..conversion.reading import provenance_of, read_checkpoint
from ..errors import InputError, format_name
from ..lazy import target_of
from ..modeling.convnext import build_convnext
from ..modeling.resnet import build_resnet
from ..modeling.vit import build_vit
from ..weights.resolution import resolve

_ORDER_READERS = ("dataloader.train.mapper.image_format", "dataloader.test.mapper.image_format")
"""What must say the order of `model.input_format` too."""


def check_weights(cfg: DictConfig, eval_only: bool) -> dict[str, Any]:
    given = cfg.train.init_checkpoint or ""
    key = f"{resnet_key(cfg)}.freeze_at"
    frozen = OmegaConf.select(cfg, key, default=0)
    if not given:
        if eval_only:
            raise InputError("--eval-only needs weights: add train.init_checkpoint=FILE")
        if frozen:
            raise InputError(
                f"train.init_checkpoint is empty and {key}={frozen} would freeze random weights; training "
                f"from scratch needs {key}=0"
            )
        return {}
    cfg.train.init_checkpoint = resolve(given)
    provenance = provenance_of(read_checkpoint(cfg.train.init_checkpoint))
    check_provenance(provenance, cfg)
    return provenance


def resnet_key(cfg: DictConfig) -> str:
    """Where a config has its ResNet: inside an FPN, or as the whole backbone, as in C4 models."""
    in_fpn = "model.backbone.bottom_up"
    return in_fpn if OmegaConf.select(cfg, in_fpn) is not None else "model.backbone"


def check_provenance(provenance: Mapping[str, Any], cfg: DictConfig) -> None:
    """Refuse weights that were trained on other inputs, or for another network, than the config says.

    Raises:
        InputError: naming both sides of the disagreement.
    """
    source = format_name(str(provenance.get("source", "the checkpoint")))
    trained = provenance.get("input") or {}
    resnet = resnet_key(cfg)
    _check_channels(provenance, source, OmegaConf.select(cfg, resnet))
    block = f"{resnet}.stages" if OmegaConf.select(cfg, f"{resnet}.stages") else resnet
    # Both constructors put it into the 3x3 unless they are told.
    unsaid = (
        {f"{block}.stride_in_1x1": False} if _architecture(OmegaConf.select(cfg, resnet)) else {}
    )
    pairs = (
        ("channel order", trained.get("format"), "model.input_format"),
        ("pixel mean", trained.get("pixel_mean"), "model.pixel_mean"),
        ("pixel standard deviation", trained.get("pixel_std"), "model.pixel_std"),
        ("stride in the 1x1 convolution", trained.get("stride_in_1x1"), f"{block}.stride_in_1x1"),
        # Of C4 models, whose last stage is in the heads.
        (
            "stride in the 1x1 convolution",
            trained.get("stride_in_1x1"),
            "model.roi_heads.res5.stride_in_1x1",
        ),
    )
    disagreements, mends = [], []
    for what, theirs, key in pairs:
        ours = OmegaConf.select(cfg, key, default=unsaid.get(key))
        ours = list(ours) if isinstance(ours, ListConfig) else ours
        if theirs is not None and ours is not None and theirs != ours:
            disagreements.append(
                f"{what} disagrees: {source} was trained with {theirs}, the config has {key}={ours}"
            )
            readers = _ORDER_READERS if key == "model.input_format" else ()
            for place in (key, *(one for one in readers if OmegaConf.select(cfg, one))):
                mends.append(f"{place}={theirs}".replace(", ", ","))  # one word of a shell's each
    if mends:
        raise InputError(f"{'; '.join(disagreements)}; use {' '.join(mends)} or other weights")
    _check_architecture(provenance, source, OmegaConf.select(cfg, resnet))


def _check_channels(provenance: Mapping[str, Any], source: str, bottom_up: Any) -> None:
    """Refuse weights for images of another number of channels than the model reads."""
    theirs = (provenance.get("architecture") or {}).get("in_channels", 3)
    ours = _architecture(bottom_up).get("in_channels", theirs)
    if provenance.get("architecture") and theirs != ours:
        raise InputError(
            f"channels disagree: {source} was pretrained on images of {theirs} channels, the config's model "
            f"reads images of {ours}; give weights that were pretrained on {ours} channels"
        )


def _check_architecture(provenance: Mapping[str, Any], source: str, bottom_up: Any) -> None:
    """Refuse weights of another ResNet than the config builds, with the values of both."""
    theirs = stated_architecture(provenance.get("architecture"))
    ours = _architecture(bottom_up)
    if theirs and ours and family_of(theirs) is not family_of(ours):
        raise InputError(
            f"architecture disagrees: {source} holds a {theirs.get('name')}, the config builds a "
            f"{family_of(ours).title}; write {family_of(theirs).config_line(theirs)} into a config "
            f"{'with an FPN' if family_of(ours) is VIT else 'of yours'}, or use other weights"
        )
    differing = {
        name: theirs[name]
        for name in family_of(theirs).arguments
        if name in theirs and name in ours and theirs[name] != ours[name]
    }
    if not differing:
        return
    built = ", ".join(f"{name}={ours[name]}" for name in differing)
    held = ", ".join(f"{name}={value}" for name, value in differing.items())
    raise InputError(
        f"architecture disagrees: {source} holds a {theirs.get('name', 'ResNet')} with {held}, the config "
        f"builds one with {built}; write {family_of(theirs).config_line(theirs)} into the config "
        f"(build_{family_of(theirs).name} of ssl_backbones.modeling.{family_of(theirs).name}), or use other "
        "weights"
    )


def _architecture(bottom_up: Any) -> dict[str, Any]:
    """What a config's backbone is, if one of our constructors makes it or Detectron2's own parts; else {}."""
    if not isinstance(bottom_up, DictConfig):
        return {}
    for build, family in ((build_resnet, RESNET), (build_convnext, CONVNEXT), (build_vit, VIT)):
        if target_of(bottom_up) is build:
            defaults = inspect.signature(build).parameters
            given = {name: bottom_up.get(name, defaults[name].default) for name in family.arguments}
            plain = {
                n: list(v) if isinstance(v, tuple | ListConfig) else v for n, v in given.items()
            }
            return plain if family is RESNET else {"family": family.name, **plain}
    stages = bottom_up.get("stages")
    if not isinstance(stages, DictConfig) or target_of(stages) is not ResNet.make_default_stages:
        return {}
    # make_default_stages fixes all but the depth and what it hands on to the blocks.
    return {
        "depth": stages.get("depth"),
        "stem_channels": OmegaConf.select(bottom_up, "stem.out_channels", default=64),
        "res2_channels": 64 if stages.get("depth") < 50 else 256,
        "bottleneck_channels": 64,
        "groups": stages.get("num_groups", 1),
        "in_channels": OmegaConf.select(bottom_up, "stem.in_channels", default=3),
    }
