"""Every key accounted for, and each of the 265 tensors guarded against each kind of damage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision

from ssl_backbones.conversion.extraction import extract
from ssl_backbones.conversion.identification import identify
from ssl_backbones.conversion.layouts import covers, renamed
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.architectures import ARCHITECTURES

SHAPES = next(row.shapes for row in ARCHITECTURES if row.name == "resnet50")
ONE = np.float32(1)


def state_dict(shapes=SHAPES, prefix: str = "module.encoder_q.") -> dict[str, np.ndarray]:
    """Ones of the right shapes in no memory: every element is the same number."""
    return {f"{prefix}{name}": np.broadcast_to(ONE, shape) for name, shape in shapes.items()}


def moco(state: dict) -> dict:
    return {"epoch": 1, "arch": "resnet50", "state_dict": state, "optimizer": {}}


def refusal(content: object, selfsup: str = "auto") -> str:
    with pytest.raises(InputError) as caught:
        extract(identify(content, selfsup))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_whole_backbone_is_taken():
    state = state_dict()
    state["module.encoder_q.bn1.num_batches_tracked"] = np.array(7)
    state["module.encoder_q.fc.0.weight"] = np.zeros((4, 4), np.float32)
    state |= {f"module.encoder_k.{name}": np.zeros(1) for name in SHAPES}
    state["module.queue"] = state["module.queue_ptr"] = np.zeros(1)
    state["module.logits"] = np.zeros(1)
    backbone = extract(identify(moco(state) | {"notes": {}}))
    assert list(backbone.tensors) == list(SHAPES)
    assert set(backbone.sources.values()) == {f"module.encoder_q.{name}" for name in SHAPES}
    assert backbone.unknown == ("module.logits", "notes")
    assert backbone.architecture.name == "resnet50"
    reasons = dict(backbone.dropped)
    assert reasons.pop("module.encoder_q.bn1.num_batches_tracked").startswith("counter")
    assert reasons.pop("module.encoder_q.fc.0.weight").startswith("projection head")
    assert reasons.pop("module.queue") == reasons.pop("module.queue_ptr") == "queue of negatives"
    for key in ("epoch", "arch", "optimizer"):
        assert reasons.pop(key) == "state of the training"
    assert set(reasons) == {f"module.encoder_k.{name}" for name in SHAPES}


@pytest.mark.parametrize("damage", ["dropped", "renamed", "wrong shape", "not finite"])
def test_damage_to_any_tensor_is_refused(damage):
    """All 265 of them, one by one; the message names the tensor."""
    whole = state_dict()
    for name, shape in SHAPES.items():
        key, state = f"module.encoder_q.{name}", dict(whole)
        value = state.pop(key)
        if damage == "renamed":
            state[f"{key}_"] = value
        elif damage == "wrong shape":
            state[key] = np.broadcast_to(ONE, (shape[0] + 1, *shape[1:]))
        elif damage == "not finite":
            state[key] = np.broadcast_to(np.float32(np.nan), shape)
        message = refusal(moco(state))
        assert name in message
        assert "is not a whole resnet50" in message


def test_one_bad_value_anywhere_in_a_tensor_is_found():
    for bad in (np.nan, np.inf, -np.inf):
        weight = np.ones(SHAPES["layer4.2.conv3.weight"], np.float32)
        weight[-1, -1, 0, 0] = bad
        state = state_dict() | {"module.encoder_q.layer4.2.conv3.weight": weight}
        assert "layer4.2.conv3.weight holds NaN or infinite values" in refusal(moco(state))


def test_negative_variances_are_refused():
    values = np.ones(64, np.float32)
    values[10] = -1e-3
    state = state_dict() | {"module.encoder_q.bn1.running_var": values}
    assert "bn1.running_var holds negative variances" in refusal(moco(state))


def test_the_variance_of_a_dead_channel_may_be_zero():
    values = np.ones(64, np.float32)
    values[10] = 0
    state = state_dict() | {"module.encoder_q.bn1.running_var": values}
    assert extract(identify(moco(state))).tensors["bn1.running_var"][10] == 0


def test_a_float64_beyond_float32_is_refused():
    state = state_dict() | {"module.encoder_q.bn1.bias": np.full(64, 1e300)}
    assert "bn1.bias holds NaN or infinite values" in refusal(moco(state))


def test_other_types_of_numbers():
    """Doubles and halves become float32; whole numbers are no weights."""
    for dtype in (np.float64, np.float16, ">f4"):
        state = state_dict() | {"module.encoder_q.bn1.bias": np.full(64, 0.5, dtype)}
        bias = extract(identify(moco(state))).tensors["bn1.bias"]
        assert bias.dtype == np.float32
        assert (bias == 0.5).all()
    for value in (np.ones(64, np.int64), "text", None, [1.0] * 64):
        state = state_dict() | {"module.encoder_q.bn1.bias": value}
        assert "bn1.bias" in refusal(moco(state))


def test_the_first_offenders_and_their_number_are_named():
    state = {key: value for key, value in state_dict().items() if ".layer4." not in key}
    message = refusal(moco(state))
    assert "module.encoder_q." not in message.split(";")[0]  # a missing key has no name in the file
    assert "layer4.0.conv1.weight is missing" in message
    assert "and 47 more (50 of 265 tensors are at fault)" in message


# Networks of other depths and widths


def named_network(name: str) -> dict[str, np.ndarray]:
    with torch.device("meta"):
        network = getattr(torchvision.models, name)()
    return state_dict({key: tuple(tensor.shape) for key, tensor in network.state_dict().items()})


@pytest.mark.parametrize("name", ["resnet18", "resnet101", "resnext50_32x4d", "wide_resnet50_2"])
def test_other_resnets_are_known_by_their_tensors(name):
    """A ResNet-101 holds every key of a ResNet-50 with its shape: it must not pass for one."""
    assert extract(identify(moco(named_network(name)))).architecture.name == name


def test_swavs_wide_network_is_known_by_its_shapes():
    """It has exactly ResNet-50's keys: only the shapes tell."""
    wide = next(row.shapes for row in ARCHITECTURES if row.name == "resnet50w2")
    state = state_dict(wide, "module.")
    state["module.projection_head.0.weight"] = np.zeros(1)
    assert extract(identify(state)).architecture.name == "resnet50w2"


@pytest.mark.parametrize(
    "state",
    [
        {
            "module.projection_head.0.weight": np.zeros((2, 2)),
            "module.prototypes.weight": np.zeros(2),
        },
        {"module.encoder_q.fc.weight": np.zeros((2, 2)), "module.queue": np.zeros(2)},
    ],
)
def test_a_head_alone_is_refused(state):
    assert "holds no backbone" in refusal({"state_dict": state})


# Layouts


def swav(prefix: str = "module.") -> dict[str, np.ndarray]:
    heads = {f"{prefix}projection_head.0.weight": ONE, f"{prefix}prototypes.weight": ONE}
    return state_dict(SHAPES, prefix) | {key: np.array(value) for key, value in heads.items()}


@pytest.mark.parametrize(
    ("content", "layout"),
    [
        (moco(state_dict()), "moco"),
        (moco(state_dict(prefix="encoder_q.")), "moco"),
        (swav(), "swav"),
        (swav(""), "swav"),
        ({"state_dict": swav(), "epoch": 1, "optimizer": {}, "amp": {}}, "swav-training"),
    ],
)
def test_layouts_are_recognised(content, layout):
    found = identify(content)
    assert found.layout.name == layout
    assert identify(content, found.layout.selfsup).layout.name == layout
    assert extract(found).unknown == ()


def test_an_unknown_key_in_the_backbone_is_refused():
    state = state_dict() | {"module.encoder_q.layer1.0.scale.weight": np.zeros(1, np.float32)}
    assert "layer1.0.scale.weight is not part of it" in refusal(moco(state))


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("encoder_k", "encoder_k.conv1.weight", True),
        ("encoder_k", "encoder_k", True),
        ("encoder_k", "encoder_k2.conv1.weight", False),  # parts match whole, never their beginning
        ("backbone", "momentum_backbone.conv1.weight", False),
        ("encoder", "momentum_encoder.conv1.weight", False),
        ("encoder_q.fc", "encoder_q.conv1.weight", False),
        ("encoder_q.fc", "encoder_q", False),
        ("prototypes*", "prototypes0.weight", True),
        ("*.fc", "encoder_q.fc.weight", True),
        ("*.fc", "a.encoder_q.fc.weight", False),  # a wildcard stays within its part
        ("**.fc", "a.encoder_q.fc.weight", True),  # but two lead to any part
        ("**.fc", "fc.weight", True),
        ("**.fc", "a.fc2.weight", False),
        ("encoder.k", "encoder_k.weight", False),  # a dot is a dot
        ("encoder_k", "encoder_k\n", False),
    ],
)
def test_names_cover_whole_parts(pattern, key, expected):
    assert covers(pattern, key) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0.weight", "conv1.weight"),
        ("10.weight", "10.weight"),
        ("a.0.weight", "a.0.weight"),  # at the beginning only
        ("4.1.bn2.bias", "layer1.1.bn2.bias"),
        ("conv1.weight", "conv1.weight"),
        ("stages.2.blocks.11.norm", "layer2.11.bn1"),  # one after the other
    ],
)
def test_renames(name, expected):
    table = (("0", "conv1"), ("4", "layer1"), ("stages", "stage"))
    table += (("stage.*.blocks.*.norm", "layer*.*.bn1"),)
    assert renamed(name, table) == expected
