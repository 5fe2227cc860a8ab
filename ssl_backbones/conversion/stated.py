"""What the text in a checkpoint, or beside it, says of its network and its images and no tensor shows.

The stride of a bottleneck may lie in its 1x1 or in its 3x3 convolution, images may come as RGB or BGR, with
any mean and deviation: the tensors are the same. Where a file says it, its word goes before what its layout
states, and what no ResNet of Detectron2's can be is refused. Text that cannot be read inside a file says
nothing; the files beside it, which a user can mend, are refused then.

Sources: OpenMMLab's mmcv runner/checkpoint.py and mmengine runner/runner.py (`meta`), mmdet
models/backbones/resnet.py (`style`), mmpretrain models/utils/data_preprocessor.py; Hugging Face's
models/resnet/modeling_resnet.py, image_processing_utils.py; timm models/_hub.py (config.json),
models/resnet.py, train.py and utils/checkpoint_saver.py (`arch`, `args`); lightly-train's
_checkpoint.py and _transforms/transform.py (`normalize_args`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, format_name
from ..hashing import open_without_waiting
from .config_text import UNKNOWN, read_config
from .containers.allow_list import Foreign
from .families import stated_architecture
from .reading import Checkpoint, provenance_of

if TYPE_CHECKING:
    from ..modeling.architectures import Architecture
    from .extraction import Backbone

_LONGEST_BESIDE = 1 << 20  # bytes; honest ones have some thousands, most of them names of classes
_MOST_VALUES = 20_000  # of a config that is no text
_LARGEST = 1e6  # of a mean or deviation
_CAFFE = re.compile(r"""\bstyle['"]?\s*[=:]\s*['"]caffe['"]""")

_ALONE = "if that is not so, save its state_dict() alone and give that"
_MOVE = "put the one that belongs to this file there, or move it away"


@dataclass(frozen=True)
class Statement:
    """One field of the provenance's "input", and the text that says it."""

    field: str
    value: object
    where: str


@dataclass(frozen=True)
class Text:
    """A JSON file beside a checkpoint that belongs to it."""

    sha256: str
    content: Mapping[str, object]


@dataclass(frozen=True)
class Stated:
    """What a checkpoint's text says.

    Attributes:
        input: fields of the provenance's "input".
        by: for each of them the text that says it.
        beside: sha256 of each file that was read beside the checkpoint, by name.
    """

    input: Mapping[str, object]
    by: Mapping[str, str]
    beside: Mapping[str, str]


def network_stated(checkpoint: Checkpoint, texts: Mapping[str, Text]) -> dict[str, object]:
    """What its own provenance or a text beside it says of a ViT and no tensor shows."""
    known = dict(stated_architecture(provenance_of(checkpoint).get("architecture")))
    config = texts[_CONFIG].content if _CONFIG in texts else {}
    if _timm_config(config) is not None:
        arguments = config.get("model_args")
        # timm interpolates positions in its own way, whoever pretrained.
        known |= {"interpolate_offset": 0.0, "interpolate_antialias": True}
        known |= _renamed(arguments if isinstance(arguments, dict) else {}, num_heads="num_heads")
    elif network := _model_config(config):
        # A config.json leaves out what its class has by itself.
        kind = network["model_type"]
        eps = {"vit": 1e-12, "vit_mae": 1e-12, "dinov3_vit": 1e-5}.get(kind, 1e-6)
        heads = 6 if kind == "dinov3_vit" else 12
        usual = {"num_attention_heads": heads, "layer_norm_eps": eps}
        known |= _renamed(
            {**usual, **network}, num_heads="num_attention_heads", norm_eps="layer_norm_eps"
        )
    return known


def _renamed(config: Mapping, **names: str) -> dict[str, object]:
    return {ours: config[theirs] for ours, theirs in names.items() if theirs in config}


def stated(checkpoint: Checkpoint, backbone: Backbone, texts: Mapping[str, Text]) -> Stated:
    """What the text in a pretraining's file and beside it says of the backbone that was found in it.

    Args:
        texts: those of `texts_beside`.

    Raises:
        InputError: texts that contradict each other or the tensors, a network that Detectron2 does not
            have, or a file beside the checkpoint that cannot be read; without the checkpoint's name.
    """
    statements = [
        *_own(checkpoint),
        *_openmmlab(checkpoint.content, backbone),
        *_timm_training(checkpoint.content),
        *_lightly_train(checkpoint.content),
        *_beside(texts, backbone),
    ]
    channels = _in_channels(backbone)
    said: dict[str, Statement] = {}
    for statement in statements:
        if not _has_a_meaning(statement, backbone, channels):
            continue
        first = said.setdefault(statement.field, statement)
        if first.value != statement.value:
            raise InputError(
                f"contradicts itself on {statement.field}: {_quoted(first.value)} by {first.where}, "
                f"{_quoted(statement.value)} by {statement.where}; save the state_dict() of the right "
                "network alone and give that"
            )
    return Stated(
        input={field: statement.value for field, statement in said.items()},
        by={field: statement.where for field, statement in said.items()},
        beside={name: text.sha256 for name, text in texts.items()},
    )


def _in_channels(backbone: Backbone) -> int:
    return backbone.architecture.in_channels


def _has_a_meaning(statement: Statement, backbone: Backbone, channels: int) -> bool:
    if statement.field == "stride_in_1x1":  # blocks of two 3x3 convolutions have no other place
        return type(statement.value) is bool and backbone.architecture.has_bottlenecks
    if statement.field == "assumed":
        return statement.value is True
    if statement.field == "format":
        return statement.value in ("RGB", "BGR") and channels == 3
    return isinstance(statement.value, list) and len(statement.value) == channels


def _quoted(value: object) -> str:
    return format_name(str(value))


def _numbers(value: object, scale: float = 1.0) -> list[float] | None:
    """A mean or deviation on the scale 0-255; None where it is not one."""
    if not isinstance(value, list | tuple) or not value:
        return None
    if not all(type(number) in (int, float) and abs(number) < _LARGEST for number in value):
        return None
    # 0.485 * 255 is 123.675 only when rounded, and configs are compared with it.
    return [round(number * scale, 6) for number in value]


def _statistics(mean: object, std: object, where: str, scale: float = 1.0) -> Iterator[Statement]:
    mean, std = _numbers(mean, scale), _numbers(std, scale)
    if mean is not None and std is not None and min(std) > 0:
        yield Statement("pixel_mean", mean, where)
        yield Statement("pixel_std", std, where)


# In the file: what this converter wrote


def _own(checkpoint: Checkpoint) -> Iterator[Statement]:
    """Of a file in another format of ours, which is given as if it were a pretraining's."""
    recorded, where = provenance_of(checkpoint).get("input") or {}, "its provenance"
    yield from _statistics(recorded.get("pixel_mean"), recorded.get("pixel_std"), where)
    for field in ("format", "stride_in_1x1", "assumed"):
        yield Statement(field, recorded.get(field), where)


# In the file: what timm's training notes


def _timm_training(content: object) -> Iterator[Statement]:
    """The network's name, as PyTorch's ImageNet example notes it too, and a mean of the user's own."""
    arch = content.get("arch") if isinstance(content, dict) else None
    if not isinstance(arch, str):
        return
    _refuse_blurred(arch, "arch in it")
    arguments = content.get("args")
    if isinstance(arguments, Foreign) and arguments.attributes.get("model") == arch:
        mean, std = (arguments.attributes.get(name) for name in ("mean", "std"))
        yield from _statistics(mean, std, "args (mean, std)", 255.0)


# In the file: what lightly-train keeps of its images


def _lightly_train(content: object) -> Iterator[Statement]:
    kept = content.get("lightly_train") if isinstance(content, dict) else None
    normalised = kept.get("normalize_args") if isinstance(kept, dict) else None
    if isinstance(normalised, dict):
        where = "lightly_train (normalize_args)"
        yield from _statistics(normalised.get("mean"), normalised.get("std"), where, 255.0)


# In the file: OpenMMLab's configs


def _openmmlab(content: object, backbone: Backbone) -> Iterator[Statement]:
    meta = content.get("meta") if isinstance(content, dict) else None
    for name in ("cfg", "config") if isinstance(meta, dict) else ():
        text = meta.get(name)
        config = read_config(text) if isinstance(text, str) else text
        if isinstance(config, dict) and (isinstance(text, str) or _is_plain(config)):
            network = list(_network(config.get("model"), f"meta.{name}", backbone))
            if not network and isinstance(text, str):
                _refuse_unread_style(text, f"meta.{name}", backbone)
            yield from network
            yield from _images(config, f"meta.{name}")


def _refuse_unread_style(text: str, where: str, backbone: Backbone) -> None:
    """Refuse text of which nothing could be taken although it speaks of strides in the 1x1."""
    if backbone.architecture.has_bottlenecks and _CAFFE.search(text):
        raise InputError(
            f"says style='caffe' in {where}, hence strides in the 1x1 convolutions, but in a form that is "
            f"not read: write the config there as its pretty_text, or, {_ALONE}"
        )


def _is_plain(config: dict) -> bool:
    """Whether it is made of what a config's text can say, and of not too much: pickles can hold anything."""
    waiting = [config]
    for value in waiting:
        if type(value) is dict:
            value = list(value.values())
        if type(value) in (list, tuple):
            waiting += value[: _MOST_VALUES + 1]
        elif value is not UNKNOWN and type(value) not in (str, int, float, bool, type(None)):
            return False
        if len(waiting) > _MOST_VALUES:
            return False
    return True


def _dicts(value: object) -> Iterator[dict]:
    """Every dictionary in a plain config, the outermost first."""
    waiting = [value]
    for value in waiting:
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def _network(model: object, where: str, backbone: Backbone) -> Iterator[Statement]:
    depth = backbone.architecture.depth
    for config in _dicts(model):
        kind, style = config.get("type"), config.get("style", "pytorch")
        is_resnet = isinstance(kind, str) and any(n in kind for n in ("ResNet", "ResNeXt"))
        # Distillation has two networks, often of two depths.
        if (is_resnet or "style" in config) and config.get("depth", depth) == depth:
            _refuse_other_networks(config, where)
            if style in ("pytorch", "caffe"):
                place = f"{where} (style={style!r})"
                yield Statement("stride_in_1x1", style == "caffe", place)


def _refuse_other_networks(config: Mapping, where: str) -> None:
    """Refuse what a ResNet of OpenMMLab can be with the very same tensors, and Detectron2's cannot."""
    norm, convolution = config.get("norm_cfg"), config.get("conv_cfg")
    for name, value, ours in (
        ("strides", config.get("strides"), (1, 2, 2, 2)),
        ("dilations", config.get("dilations"), (1, 1, 1, 1)),
        ("norm_cfg.eps", norm.get("eps") if isinstance(norm, dict) else None, 1e-5),
        (
            "conv_cfg.type",
            convolution.get("type") if isinstance(convolution, dict) else None,
            "Conv2d",
        ),
    ):
        value = tuple(value) if isinstance(value, list) else value
        unknown = value is UNKNOWN or (isinstance(value, tuple) and UNKNOWN in value)
        if unknown or value in (None, ours, "Conv"):
            continue
        raise InputError(
            f"holds a ResNet with {name}={_quoted(value)}, as {where} says, which has the tensors of one "
            f"with {ours} and computes something else: give one that was pretrained so; {_ALONE}"
        )


def _images(config: Mapping, where: str) -> Iterator[Statement]:
    model = config.get("model")
    for place, holder, name in (
        ("model.", model, "data_preprocessor"),
        ("", config, "data_preprocessor"),
        ("", config, "preprocess_cfg"),  # mmcls and mmselfsup before their 1.0
    ):
        found = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(found, dict) and isinstance(found.get("data_preprocessor"), dict):
            found = found["data_preprocessor"]  # of several branches
        if isinstance(found, dict) and found.get("mean") is not None:
            yield from _preprocessor(found, f"{where} ({place}{name})")
            return
    data = config.get("data")
    trained_on = [config.get(name) for name in ("train_dataloader", "train_pipeline")]
    trained_on += [data.get("train")] if isinstance(data, dict) else []
    normalised = [found for found in _dicts(trained_on) if found.get("type") == "Normalize"]
    for found in normalised or _dicts([config.get("img_norm_cfg")]):
        yield from _normalize(found, f"{where} ({'Normalize' if normalised else 'img_norm_cfg'})")


def _preprocessor(found: Mapping, where: str) -> Iterator[Statement]:
    """mmengine's: images come as BGR, and are turned around only where it says so."""
    yield from _statistics(found["mean"], found.get("std"), where)
    turned = [found.get(name, False) for name in ("bgr_to_rgb", "to_rgb")]
    if all(type(flag) is bool for flag in turned):
        yield Statement("format", "RGB" if any(turned) else "BGR", where)


def _normalize(found: Mapping, where: str) -> Iterator[Statement]:
    """mmcv's on 0-255 with `to_rgb`, or torchvision's on 0-1 without (OpenSelfSup, mmselfsup 0.x)."""
    mean, std = found.get("mean"), found.get("std")
    numbers = _numbers(std)
    unit = numbers is not None and max(numbers) < 1 and max(_numbers(mean) or [2]) <= 1
    yield from _statistics(mean, std, where, 255.0 if unit else 1.0)
    if type(found.get("to_rgb")) is bool:
        yield Statement("format", "RGB" if found["to_rgb"] else "BGR", where)


# Beside the file: Hugging Face's and timm's

_CONFIG, _PREPROCESSOR = TEXT_NAMES = ("config.json", "preprocessor_config.json")
"""The only files beside a checkpoint that are ever read."""


def texts_beside(checkpoint: Checkpoint) -> dict[str, Text]:
    """The JSON files in a checkpoint's folder that belong to it, by name; {} in most folders.

    Raises:
        InputError: one of Hugging Face's cannot be read; without the checkpoint's name.
    """
    content = checkpoint.content if type(checkpoint.content) is dict else {}
    keys = {key for key in content if type(key) is str}
    inside = (key for value in content.values() if type(value) is dict for key in value)
    folder = Path(checkpoint.path).parent
    if any(f".{key}".endswith(_HUGGING_FACE_STEMS) for key in (*keys, *inside)):
        return _hugging_face_texts(folder)
    if any(f"{prefix}{name}" in keys for prefix in _TIMM_PREFIXES for name in _TIMM_STEMS):
        try:
            text = read_json(folder / _CONFIG)
        except InputError:  # anybody's: torchvision's names are no project's alone
            return {}
        if text is not None and _timm_config(text.content) is not None:
            return {_CONFIG: text}
    return {}


_HUGGING_FACE_STEMS = (
    ".embedder.embedder.convolution.weight",
    ".embeddings.patch_embeddings.projection.weight",
    ".embeddings.patch_embeddings.weight",
    ".stages.0.downsample_layers.0.weight",
)
_TIMM_STEMS = ("layer4.0.conv1.weight", "patch_embed.proj.weight", "stem.0.weight")
_TIMM_PREFIXES = ("", "timm_model.")
"""Of a network of timm's in timm's own files, and in those of Hugging Face's wrapper of it."""


def _timm_config(config: Mapping) -> Mapping | None:
    """What a config.json of timm's says of the images; None where it is another library's."""
    trained = config.get("pretrained_cfg")
    if isinstance(trained, dict):
        return trained
    # Its first form, which has no part for it.
    is_timm = isinstance(config.get("architecture"), str) and "mean" in config and "std" in config
    return config if is_timm else None


def _hugging_face_texts(folder: Path) -> dict[str, Text]:
    found = {name: read_json(folder / name) for name in (_CONFIG, _PREPROCESSOR)}
    texts = {name: text for name, text in found.items() if text is not None}
    if _CONFIG in texts and _model_config(texts[_CONFIG].content) is None:
        return {}  # of another model
    return texts


_FAMILIES = {
    "resnet": "resnet",
    **dict.fromkeys(("convnext", "convnextv2", "dinov3_convnext"), "convnext"),
    **dict.fromkeys(("vit", "vit_mae", "vit_msn", "dinov2", "dinov2_with_registers"), "vit"),
    "dinov3_vit": "vit",
}
"""The family of each of Hugging Face's `model_type` that is read."""


def _model_config(config: Mapping) -> Mapping | None:
    """The part of a config.json that describes a backbone: all of it, or a larger model's."""
    parts = (part for part in _dicts(config) if str(part.get("model_type")) in _FAMILIES)
    return next(parts, None)


def read_json(path: Path) -> Text | None:
    """A JSON file with a dictionary, None where there is none.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        with open(path, "rb", opener=open_without_waiting) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(_LONGEST_BESIDE + 1) if regular else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if len(data) > _LONGEST_BESIDE:
        raise _unreadable(path, f"more than {_LONGEST_BESIDE:,} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "no JSON") from error
    if not isinstance(content, dict):
        raise _unreadable(path, "no JSON object")
    return Text(hashlib.sha256(data).hexdigest(), content)


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"has a {path.name} beside it, which says what no tensor does, that cannot be read ({reason}): "
        "get it again, or move it away to go without"
    )


def _beside(texts: Mapping[str, Text], backbone: Backbone) -> Iterator[Statement]:
    if _CONFIG in texts:
        config = texts[_CONFIG].content
        if (trained := _timm_config(config)) is not None:
            yield from _timm(config, trained, backbone)
        elif network := _model_config(config):
            yield from _hugging_face(network, backbone)
    if _PREPROCESSOR in texts:
        yield from _processor(texts[_PREPROCESSOR].content)


def _hugging_face(config: Mapping, backbone: Backbone) -> Iterator[Statement]:
    network, family = backbone.architecture, _FAMILIES[config["model_type"]]
    if family != backbone.family.name:
        raise InputError(
            f"has a config.json beside it of another network: model_type is {_quoted(config['model_type'])} "
            f"there, and its tensors are a {backbone.family.title}'s; {_MOVE}"
        )
    held = {"num_channels": _in_channels(backbone)}
    computed: tuple[tuple[str, object], ...] = ()
    if family == "resnet":
        held |= _held_by_a_resnet(network)
        computed = (("downsample_in_first_stage", False), ("hidden_act", "relu"))
    elif family == "vit":
        held |= {"hidden_size": network.embed_dim, "num_hidden_layers": network.depth}
        held |= {"patch_size": network.patch_size}
        computed = (
            ("hidden_act", "silu" if config.get("use_gated_mlp") else "gelu"),
            ("rope_theta", 100.0),
        )
    for name, ours in held.items():
        if config.get(name, ours) != ours:
            raise InputError(
                f"has a config.json beside it of another network: {name} is {_quoted(config[name])} there "
                f"and {ours} by the tensors; {_MOVE}"
            )
    for name, ours in computed:
        if config.get(name, ours) != ours:
            raise InputError(
                f"is of a network that Detectron2 does not have: config.json beside it says {name} is "
                f"{_quoted(config[name])}, and no tensor shows it; give one that was pretrained with {ours}"
            )
    if "downsample_in_bottleneck" in config:
        where = f"{_CONFIG} (downsample_in_bottleneck)"
        yield Statement("stride_in_1x1", config["downsample_in_bottleneck"], where)


def _held_by_a_resnet(network: Architecture) -> dict[str, object]:
    return {
        "layer_type": "bottleneck" if network.has_bottlenecks else "basic",
        "depths": list(network.blocks),
        "hidden_sizes": [network.res2_channels << stage for stage in range(4)],
        "embedding_size": network.stem_channels,
    }


def _processor(config: Mapping) -> Iterator[Statement]:
    """What Hugging Face's processor of images does: scale by a factor, then subtract and divide."""
    factor = config.get("rescale_factor", 1 / 255)
    if config.get("do_rescale") is False:
        factor = 1.0
    if type(factor) not in (int, float) or not 0 < factor < math.inf:
        return
    mean, std = config.get("image_mean"), config.get("image_std")
    if config.get("do_normalize") is False:
        mean, std = [0.0] * 3, [1.0] * 3
    yield from _statistics(mean, std, _PREPROCESSOR, 1 / factor)
    if config.get("do_flip_channel_order") is True:
        yield Statement("format", "BGR", f"{_PREPROCESSOR} (do_flip_channel_order)")


def _timm(config: Mapping, trained: Mapping, backbone: Backbone) -> Iterator[Statement]:
    if isinstance(config.get("architecture"), str):
        _refuse_blurred(config["architecture"], f"{_CONFIG} beside it")
    arguments = config.get("model_args") if backbone.family.name == "resnet" else None
    for name, usual in (("output_stride", 32), ("act_layer", "relu"), ("aa_layer", None)):
        value = arguments.get(name, usual) if isinstance(arguments, dict) else usual
        if value not in (usual, "", None):
            raise InputError(
                f"is of a network that Detectron2 does not have: {_CONFIG} beside it says {name} is "
                f"{_quoted(value)}, and no tensor shows it; give one that was pretrained without"
            )
    yield from _statistics(
        trained.get("mean"), trained.get("std"), f"{_CONFIG} (pretrained_cfg)", 255.0
    )


def _refuse_blurred(name: str, where: str) -> None:
    if name.startswith(("resnetblur", "resnetaa")):
        raise InputError(
            f"is timm's {_quoted(name)}, as {where} says: it blurs before each stride, which no ResNet of "
            "Detectron2's does and no tensor shows; give a plain resnet50"
        )
