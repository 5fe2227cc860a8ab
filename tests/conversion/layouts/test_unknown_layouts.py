"""Files that no layout describes: a ResNet is found under its prefix, or said why there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from ssl_backbones.conversion import identification
from ssl_backbones.conversion.extraction import extract, from_pretraining
from ssl_backbones.conversion.identification import SELFSUP_NAMES, identify
from ssl_backbones.conversion.layouts import LAYOUTS
from ssl_backbones.conversion.reading import Checkpoint
from ssl_backbones.errors import InputError


@pytest.fixture
def refusal(as_arrays):
    """The one line that a file is refused with."""

    def refuse(content: dict, **options) -> str:
        with pytest.raises(InputError) as caught:
            extract(identify(as_arrays(content), **options))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse


def shapes_of(build, prefix: str = "") -> dict[str, torch.Tensor]:
    """The state dict of a network of full size in no memory."""
    with torch.device("meta"):
        network = build()
    return {
        f"{prefix}{name}": torch.zeros(()).expand(tensor.shape)
        for name, tensor in network.state_dict().items()
    }


def values(found) -> set[float]:
    return {float(array.flat[0]) for array in extract(found).tensors.values()}


# One, several, none


def test_one_network_must_be_confirmed(make, as_arrays, expected, refusal):
    state = make("net.", projector=nn.Linear(4, 4)) | {"temperature": torch.ones(1)}
    content = {"weights": state, "epoch": 3}
    message = refusal(content)
    assert "holds one whole resnet50" in message
    assert message.endswith("confirm that it is the one to convert with --prefix 'weights/net.'")
    for prefix in ("weights/net.", "weights/net", "net.", "net"):
        found = identify(as_arrays(content), prefix=prefix)
        assert (found.layout.name, found.method) == ("prefix weights/net.", "unknown")
        assert values(found) == set(expected(1000).values())
        backbone = extract(found)
        assert backbone.unknown == ("net.projector.weight", "net.projector.bias", "temperature")
        assert backbone.dropped["epoch"] == "state of the training"
    assert identify(as_arrays(content), "simclr", prefix="net.").method == "simclr"


def test_a_network_without_a_prefix_has_one_as_well(make, as_arrays, expected, refusal):
    flat = make() | {"temperature": torch.ones(1)}
    assert "with --prefix ''" in refusal(flat)
    assert values(identify(as_arrays(flat), prefix="")) == set(expected(1000).values())
    inside = {"best": make()}
    assert "with --prefix 'best/'" in refusal(inside)
    assert values(identify(as_arrays(inside), prefix="best/")) == set(expected(1000).values())


def test_of_several_networks_one_must_be_named(make, as_arrays, expected, refusal):
    content = {"first": make("a.") | make("b.", 2000), "second": make("a.", 3000)}
    message = refusal(content)
    assert "holds 3 whole ResNets; choose one with --prefix" in message
    for label, start in (("first/a.", 1000), ("first/b.", 2000), ("second/a.", 3000)):
        assert f"'{label}' (resnet50" in message
        found = identify(as_arrays(content), prefix=label)
        assert values(found) == set(expected(start).values())
    assert values(identify(as_arrays(content), prefix="b")) == set(expected(2000).values())
    assert "several ResNets there; choose from 'first/a.'" in refusal(content, prefix="a.")
    assert "no ResNet under 'c.': it has one under 'first/a.'" in refusal(content, prefix="c.")


def test_renamed_networks_are_found_too(samples, as_arrays, expected, refusal):
    for layout in ("hugging-face-model", "byol-sthalles", "simclr-v2"):
        state = samples[layout].build()
        state = state.get("online_network_state_dict") or state.get("resnet") or state
        content = {"vision": {f"tower.{name}": tensor for name, tensor in state.items()}}
        assert "--prefix 'vision/tower." in refusal(content)
        prefix = "tower.encoder." if layout == "byol-sthalles" else "tower."
        found = identify(as_arrays(content), prefix=prefix)
        assert values(found) == set(expected(1000).values())


def test_the_prefix_also_chooses_in_a_known_layout(samples, as_arrays, expected):
    content = as_arrays(samples["moco"].build())
    found = identify(content, prefix="encoder_k.")
    assert values(found) == set(expected(2000).values())


def test_a_network_that_is_not_whole_is_named_with_what_is_wrong(make, refusal):
    state = make("net.")
    del state["net.layer3.2.bn1.weight"]
    assert "under 'net.' it holds a resnet50" in refusal(state)
    assert "1 of its 265 tensors are at fault" in refusal(state)
    assert "layer3.2.bn1.weight is missing" in refusal(state, prefix="net.")


def test_none_is_answered_with_the_tree_and_the_nearest_layout(refusal):
    content = {"state_dict": {"encoder_q.head.weight": torch.zeros(2)}, "epoch": 1}
    message = refusal({"model": {"base_encoder.a": torch.zeros(1), "b": 1, "c": 2, "d": 3}})
    assert "it holds model (4 of base_encoder, b, c, ...)" in message
    assert "nearest known layout is moco-v3, of which it lacks momentum_encoder" in message
    assert "holds no backbone" in refusal(content)
    assert "it holds nothing" in refusal({})
    assert "epoch, arch" in refusal({"epoch": 1, "arch": "x"})
    assert "holds a list" in refusal([1, 2])


def test_prefix_and_branch_exclude_each_other(make, refusal):
    assert "leave --branch out" in refusal(make("net."), prefix="net.", branch="online")


# Other networks


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"teacher": {f"backbone.{k}": v for k, v in state.items()}, "student": {}},
        lambda state: {
            "state_dict": {f"module.base_encoder.{k}": v for k, v in state.items()}
            | {"module.momentum_encoder.x": torch.zeros(1)}
        },
        lambda state: {"model": {f"net.{k}": v for k, v in state.items()}},
    ],
)
def test_vision_transformers_are_refused_by_name(wrap, refusal):
    """In the containers of DINO and MoCo v3, and in one of nobody's."""
    torchvisions = shapes_of(torchvision.models.vit_b_16)
    timms = {
        "cls_token": torch.zeros(1, 1, 4),
        "pos_embed": torch.zeros(1, 5, 4),
        "patch_embed.proj.weight": torch.zeros(4, 3, 2, 2),
        "blocks.0.attn.qkv.weight": torch.zeros(12, 4),
    }
    assert "a Vision Transformer" in refusal(wrap(torchvisions))
    assert "holds a Vision Transformer" in (said := refusal(wrap(timms))) or "whole vit_4x1" in said
    xcit = timms | {"cls_attn_blocks.0.norm1.weight": torch.zeros(4)}
    assert "an XCiT" in refusal(wrap(xcit))


def test_other_networks_are_refused_by_name(refusal):
    swin = shapes_of(torchvision.models.swin_t)
    assert "a Swin Transformer" in refusal(swin)
    assert "a RegNet" in refusal(torchvision.models.regnet_y_400mf().state_dict())
    zeros = torch.zeros(4)
    vicregl = {"module.backbone.stages.0.0.dwconv.weight": zeros, "module.classifier.bias": zeros}
    assert "a ConvNeXt" in refusal({"model": vicregl, "epoch": 1, "optimizer": {}})
    assert "pre-activation" in refusal({"stages.0.blocks.0.norm1.weight": zeros})
    deep = {"state_dict": {"backbone.stem.0.weight": zeros, "backbone.layer1.0.bn1.bias": zeros}}
    assert "a deep stem" in refusal(deep)


def test_cmcs_half_networks_are_refused_by_name(make, refusal):
    """PyContrast's, CMC's own, and CMC's with two stems and grouped convolutions."""
    halves = make("module.encoder1.") | make("module.encoder2.", 2000)
    for name, channels in (("encoder1", 1), ("encoder2", 2)):
        halves[f"module.{name}.conv1.weight"] = torch.zeros(8, channels, 7, 7)
    assert "CMC's two half networks" in refusal({"model": halves, "epoch": 1})
    own = {
        key.replace("encoder1", "encoder.module.l_to_ab"): value for key, value in halves.items()
    }
    assert "CMC's two half networks" in refusal({"model": own, "epoch": 1})
    stems = {"module.encoder.conv1_v1.weight": torch.zeros(8, 1, 7, 7)}
    assert "CMC's two half networks" in refusal({"model": stems, "epoch": 1})


def test_selective_kernels_are_refused_by_name(samples, refusal):
    content = samples["simclr-v2"].build()
    state = content["resnet"]
    for index in range(3, 6):
        weight = state.pop(f"net.1.blocks.0.net.{index}.weight", None)
        if weight is not None:
            state[f"net.1.blocks.0.net.{index}.x.weight"] = weight
    state["net.1.blocks.0.net.2.main_conv.0.weight"] = torch.zeros(16, 8, 3, 3)
    assert "selective kernels" in refusal(content)


@pytest.mark.parametrize(
    "layout", ["solo-learn", "simclr-pytorch", "lightly", "torchvision", "moco"]
)
def test_cifars_stems_are_refused_by_name(layout, samples, refusal):
    content = samples[layout].build()
    state = content.get("state_dict", content)
    stems = [key for key in state if key.endswith(("conv1.weight", ".0.weight"))]
    for key in stems:
        if state[key].ndim == 4 and state[key].shape[1] == 3:
            state[key] = torch.zeros(8, 3, 3, 3)
    assert "3x3 stem" in refusal(content)


def test_variants_of_timm_are_refused_by_name(make, refusal):
    def changed(changes: dict) -> str:
        return refusal(make(fc=nn.Linear(4, 4)) | changes)

    assert "squeeze-and-excitation" in changed({"layer1.0.se.fc1.weight": torch.zeros(4, 4, 1, 1)})
    deep = make(fc=nn.Linear(4, 4))
    deep["conv1.0.weight"] = torch.zeros(4, 3, 3, 3)
    del deep["conv1.weight"]
    assert "deep stem" in refusal(deep)
    assert "anti-aliased" in changed({"layer2.0.conv3.0.filt": torch.zeros(8, 1, 3, 3)})


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("parametrizations.weight.original0",), "weights are computed from others"),
        (("weight_orig", "weight_mask"), "a pruned network"),
        (("weight_g", "weight_v"), "weights are normalised"),
    ],
)
def test_weights_that_are_made_of_others_are_refused_by_name(names, says, make, samples, refusal):
    """As torch.nn.utils names them; DINO's head has such weights too, and is no part of its network."""
    state = make()
    for key in [key for key in state if key.endswith("conv2.weight")]:
        weight = state.pop(key)
        state |= {f"{key.removesuffix('weight')}{name}": weight for name in names}
    assert says in refusal(state)
    content = samples["dino-training"].build()
    content["teacher"]["head.last_layer.weight_g"] = torch.zeros(4, 1)
    for key in [key for key in content["teacher"] if "layer4" in key]:
        del content["teacher"][key]
    assert "normalised" not in refusal(content)


@pytest.mark.parametrize("arch", ["deeplabv3_resnet50", "fcn_resnet50"])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s}])
def test_torchvisions_segmentation_networks_are_no_pretraining_of_others(arch, wrap, refusal):
    """Their `backbone` and `classifier` are names of solo-learn and VICRegL, and their strides are not."""
    build = getattr(torchvision.models.segmentation, arch)
    state = shapes_of(lambda: build(weights=None, weights_backbone=None))
    assert "has none of the known layouts" in refusal(wrap(state))


def test_haikus_trees_are_refused_with_the_reason(refusal):
    """BYOL's pickle, had somebody turned it into plain dictionaries."""
    tree = {"res_net50/~/initial_conv": {"w": torch.zeros(7, 7, 3, 64)}}
    message = refusal({"experiment_state": {"online_params": tree}, "step": 1})
    assert "JAX and haiku" in message
    assert "give a checkpoint that was trained with PyTorch" in message
    assert "JAX and haiku" in refusal(tree)


def test_detectron2s_own_format_is_named(refusal):
    assert "Detectron2's format already" in refusal({"model": {}, "__author__": "x"})


# Bounds


def test_hostile_dictionaries_are_refused():
    """Named like a ResNet's at every turn, nested, shared: this would take hours, were anything to
    take the square of a size.
    """
    weight = np.zeros(1, np.float32)
    many = {f"a{i}.layer4.0.conv1.weight": weight for i in range(200_000)}
    fewer = {f"a{i}.layer4.0.conv1.weight": weight for i in range(19_000)}
    inner: dict = {"layer4.0.conv1.weight": weight}
    for _ in range(20):
        inner = {f"x{i}": inner for i in range(1000)}
    dots = {"a." * 200_000 + "layer4.0.conv1.weight": weight, "layer4." * 100_000: weight}
    keys = {10**5000: 1, None: 2, 1.5: {10**5000: 3}, "a": weight}
    for content in (many, fewer, {"state_dict": many}, inner, dots, {"model": dots}, keys):
        with pytest.raises(InputError) as caught:
            identify(content)
        assert len(str(caught.value)) < 2000


def test_hostile_names_are_shown_bounded_and_without_control_characters(make, refusal):
    hostile = "\x1b[31m" + "x" * 10_000 + "."
    message = refusal({"weights": make(hostile)})
    assert "\x1b" not in message
    assert len(message) < 1000


# Layouts whose names fit, and whose network does not


@pytest.fixture
def converted_refusal(as_arrays):
    """What a conversion refuses a file with, after both the layouts and the search."""

    def refuse(content: dict, **options) -> str:
        checkpoint = Checkpoint("x.pth", "torch-zip", as_arrays(content), (), {}, None)
        options = {"selfsup": "auto", "branch": None, "prefix": None} | options
        with pytest.raises(InputError) as caught:
            from_pretraining(checkpoint, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse


def test_a_neck_inside_the_encoder_is_told_from_a_damaged_file(samples, converted_refusal, expected,
                                                                as_arrays):  # fmt: skip
    content = samples["moco"].build()
    content["state_dict"]["module.encoder_q.neck.weight"] = torch.zeros(4, 4, 1, 1)
    message = converted_refusal(content)
    assert "module.encoder_q.neck.weight is not part of it" in message
    assert "get the file again" not in message
    assert message.endswith("with --prefix 'state_dict/encoder_q.'")
    found = identify(as_arrays(content), prefix="state_dict/encoder_q.")
    assert found.layout.input["assumed"] is True  # nothing says what anybody trained on
    assert values(found) == set(expected(1000).values())


def test_a_network_that_lies_elsewhere_is_named(samples, converted_refusal, make):
    content = samples["simsiam"].build()
    state = content["state_dict"]
    for key in [key for key in state if key.startswith("module.encoder.layer")]:
        state[key.replace("module.encoder.", "module.trunk.")] = state.pop(key)
    assert "--prefix" not in converted_refusal(content)  # the stem alone is no network
    content["state_dict"] = state | make("module.trunk.")
    message = converted_refusal(content)
    assert "is not a whole" in message
    assert "get the file again" in message
    assert "a whole one lies under 'state_dict/trunk.'" in message


def supcontrast(wrapper: str = "") -> dict:
    """As main_supcon.py saves; where it has several GPUs, DataParallel lies around the encoder."""
    state = {f"encoder.{wrapper}conv1.weight": torch.zeros(8, 3, 3, 3)}
    state |= {f"encoder.{wrapper}bn1.weight": torch.zeros(8)}
    for block in (f"encoder.{wrapper}layer{stage}.0." for stage in range(1, 5)):
        state |= {f"{block}conv1.weight": torch.zeros(8, 8, 1, 1)}
        state |= {f"{block}shortcut.0.weight": torch.zeros(8, 8, 1, 1)}
    head = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    state |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    return {"opt": {}, "model": state, "optimizer": {}, "epoch": 1000}


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_supcontrasts_own_files_are_refused_for_their_stem(wrapper, converted_refusal):
    assert "a ResNet with a 3x3 stem" in converted_refusal(supcontrast(wrapper))
    assert "a ResNet with a 3x3 stem" in converted_refusal(supcontrast(wrapper), selfsup="supcon")


def test_of_two_layouts_that_fit_the_one_whose_network_is_there_is_taken(samples, as_arrays):
    """lightly-train's names, beside which SwAV's are there too and its network is not."""
    content = as_arrays(samples["lightly-train"].build())
    state = content["state_dict"]
    for key in [key for key in state if key.startswith("embedding_model.")]:
        state[f"net.{key}"] = state[key]
    assert identify(content).layout.name == "lightly-train"


def test_words_that_are_asked_for_are_ones_that_choose(samples, as_arrays, monkeypatch):
    """Of two layouts that fit alike; and where they share every word, the prefix chooses."""
    (row,) = (row for row in LAYOUTS if row.name == "simsiam")
    for word, mend in (
        ("dino", "--selfsup simsiam or dino"),
        ("simsiam", "--prefix, from 'state_dict/encoder.'"),
    ):
        twin = replace(row, name="twin", selfsup=word)
        monkeypatch.setattr(identification, "LAYOUTS", (row, twin))
        with pytest.raises(InputError, match=r"several layouts \(simsiam, twin\)") as caught:
            identify(as_arrays(samples["simsiam"].build()))
        assert mend in str(caught.value)
        assert word in SELFSUP_NAMES


# Inputs


def test_a_bare_sequential_is_nobodys_and_its_input_assumed(samples, as_arrays):
    content = as_arrays(samples["sequential"].build())

    def of(selfsup: str) -> dict:
        checkpoint = Checkpoint("x.pth", "torch-zip", content, (), {}, None)
        return from_pretraining(checkpoint, selfsup=selfsup, branch=None, prefix=None).origin

    assert of("auto")["method"] == "backbone"
    assert of("auto")["input"]["assumed"] is True
    assert of("auto")["input"]["pixel_mean"] == [123.675, 116.28, 103.53]
    assert of("radimagenet")["input"] == {
        "format": "RGB",
        "pixel_mean": [127.5, 127.5, 127.5],
        "pixel_std": [127.5, 127.5, 127.5],
        "stride_in_1x1": False,
    }
    with pytest.raises(InputError, match="not laid out as lightly"):
        of("lightly")


@pytest.mark.parametrize("channels", [1, 2, 12, 13])
def test_images_of_other_channels_are_converted_and_recorded(channels, make, as_arrays):
    state = make("module.encoder_q.") | make("module.encoder_k.", 2000)
    for encoder in "qk":
        state[f"module.encoder_{encoder}.conv1.weight"] = torch.zeros(8, channels, 7, 7)
    content = as_arrays({"state_dict": state, "epoch": 1})
    checkpoint = Checkpoint("x.pth", "torch-zip", content, (), {}, None)
    loaded = from_pretraining(checkpoint, selfsup="auto", branch=None, prefix=None)
    assert loaded.backbone.architecture.in_channels == channels
    assert loaded.backbone.architecture.to_dict()["in_channels"] == channels
    assert loaded.origin["input"] == {"channels": channels, "stride_in_1x1": False}
    assert loaded.other_branch["stem.conv1.weight"].shape == (8, channels, 7, 7)
