"""Strict loading, against a Mask R-CNN whose weights are known, from files written by torch and by hand."""

import os
import pickle

import numpy as np
import pytest
import torch
from commands import project_config
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate

from ssl_backbones import InputError, get_config
from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.modeling.norm import apply_norm, choose_norm

PREFIX = "backbone.bottom_up."


def build():
    cfg = get_config("moco_1x").model
    apply_norm(cfg, choose_norm(1, "cpu"))
    return instantiate(cfg)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build()


@pytest.fixture(scope="module")
def backbone():
    """265 random tensors of a ResNet-50 under Detectron2's names, as a converter writes them."""
    torch.manual_seed(1)
    state = build().backbone.bottom_up.state_dict()
    return {
        key: (torch.rand_like(value) + 0.5).numpy()
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.fixture
def write(tmp_path):
    def write(model, name="backbone.pkl", **more):
        path = tmp_path / name
        content = {"model": model, "__author__": "test", "matching_heuristics": True, **more}
        path.write_bytes(pickle.dumps(content))
        return str(path)

    return write


def test_a_backbone_file_reaches_every_tensor(model, backbone, write):
    assert len(backbone) == 265
    checkpointer = StrictCheckpointer(model)
    checkpointer.load_backbone(write(backbone))
    state = model.state_dict()
    for key, value in backbone.items():
        assert np.array_equal(state[PREFIX + key].numpy(), value), key
    assert {key.split(".")[0] for key in checkpointer.new_keys} == {
        "backbone",
        "proposal_generator",
        "roi_heads",
    }
    assert not any(key.startswith(PREFIX) for key in checkpointer.new_keys)


def test_equal_to_what_stock_detectron2_loads(backbone, write):
    ours, stock = build(), build()
    path = write(backbone)
    StrictCheckpointer(ours).load_backbone(path)
    DetectionCheckpointer(stock).load(path)
    for key, value in stock.backbone.bottom_up.state_dict().items():
        assert torch.equal(ours.backbone.bottom_up.state_dict()[key], value), key


@pytest.mark.parametrize("top", [None, "blobs"])
def test_a_caffe2_file_loads_as_stock_detectron2_loads_it(backbone, tmp_path, top):
    """The names of Detectron1, in which the model zoo's ImageNet ResNets are kept."""
    layers = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
    tensors = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    blobs = {}
    for key, value in backbone.items():
        *place, tensor = key.split(".")
        is_norm = place[-1] == "norm"
        stage, *block, layer = place[:-1] if is_norm else place
        name = (
            "_".join([stage, *block, layers[layer]])
            if block
            else "res_conv1"
            if is_norm
            else "conv1"
        )
        blobs[f"{name}_bn_{tensors[tensor]}" if is_norm else f"{name}_w"] = value
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({top: blobs} if top else blobs))
    ours, stock = build(), build()
    StrictCheckpointer(ours).load_backbone(str(path))
    DetectionCheckpointer(stock).load(str(path))
    for key, value in stock.backbone.bottom_up.state_dict().items():
        assert torch.equal(ours.backbone.bottom_up.state_dict()[key], value), key


# FrozenBatchNorm2d fills each of these with 0 or 1 by itself, and load_state_dict does not report it.
@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_a_missing_norm_tensor_of_the_frozen_stem_is_refused(model, backbone, write, name):
    key = f"stem.conv1.norm.{name}"
    path = write({k: v for k, v in backbone.items() if k != key})
    with pytest.raises(InputError, match=rf"1 of 265 backbone tensors.*{PREFIX}{key} \(missing\)"):
        StrictCheckpointer(model).load_backbone(path)


def test_a_wrong_shape_is_refused(model, backbone, write):
    path = write({**backbone, "res3.0.conv2.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(
        InputError, match=r"res3\.0\.conv2\.weight \(shape \(2, 2\), not \(128, 128, 3, 3\)\)"
    ):
        StrictCheckpointer(model).load_backbone(path)


def test_a_refusal_leaves_the_model_as_it_was(backbone, write):
    fresh = build()
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    del (broken := dict(backbone))["res5.2.conv3.weight"]
    with pytest.raises(InputError):
        StrictCheckpointer(fresh).load_backbone(write(broken))
    assert all(torch.equal(before[key], value) for key, value in fresh.state_dict().items())


def test_foreign_keys_are_refused_and_listed_with_their_number(model, write):
    path = write({"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32)})
    with pytest.raises(
        InputError, match=r"265 of 265 backbone tensors.*and 260 more.*convert_checkpoint"
    ) as error:
        StrictCheckpointer(model).load_backbone(path)
    assert "\n" not in str(error.value)


def test_not_strict_only_warns(model, backbone, write, caplog):
    del (broken := dict(backbone))["res5.2.conv3.weight"]
    with caplog.at_level("WARNING"):
        StrictCheckpointer(model, strict=False).load_backbone(write(broken))
    assert "res5.2.conv3.weight" in caplog.text


def test_a_backbone_alone_is_no_detector(model, backbone, write):
    with pytest.raises(InputError, match="This is a backbone alone"):
        StrictCheckpointer(model).load(write(backbone))


def test_a_run_is_saved_and_loaded_whole(model, tmp_path):
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9
    )
    sum(p.sum() for p in optimizer.param_groups[0]["params"]).backward()
    optimizer.step()
    StrictCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_final", iteration=7)
    names = ["last_checkpoint", "model_final.pth", "model_final.pth.sha256"]
    assert sorted(os.listdir(tmp_path)) == names

    other = build()
    fresh = torch.optim.SGD(
        [p for p in other.parameters() if p.requires_grad], lr=0.5, momentum=0.9
    )
    checkpointer = StrictCheckpointer(other, str(tmp_path), optimizer=fresh)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_final.pth")
    rest = checkpointer.load(checkpointer.get_checkpoint_file())
    assert rest["iteration"] == 7
    assert fresh.param_groups[0]["lr"] == 0.1
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    for mine, theirs in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert torch.equal(mine["momentum_buffer"], theirs["momentum_buffer"])


def test_stock_detectron2_loads_what_we_save(model, tmp_path):
    StrictCheckpointer(model, str(tmp_path)).save("model_final")
    other = build()
    DetectionCheckpointer(other).load(str(tmp_path / "model_final.pth"))
    assert all(
        torch.equal(other.state_dict()[key], value) for key, value in model.state_dict().items()
    )


def test_a_failed_save_keeps_the_old_file(model, tmp_path):
    checkpointer = StrictCheckpointer(model, str(tmp_path))
    checkpointer.save("model_final", iteration=1)
    before = (tmp_path / "model_final.pth").read_bytes()
    with pytest.raises(Exception, match="pickle"):
        checkpointer.save("model_final", unpicklable=lambda: None)
    assert (tmp_path / "model_final.pth").read_bytes() == before
    names = ["last_checkpoint", "model_final.pth", "model_final.pth.sha256"]
    assert sorted(os.listdir(tmp_path)) == names


# C4 models, whose heads hold res5


def build_c4():
    return instantiate(project_config("projects/coco_c4/configs/moco_c4_1x.py").model)


@pytest.fixture(scope="module")
def c4():
    return build_c4()


def test_res5_of_a_c4_model_comes_from_the_backbone_file_too(c4, backbone, write):
    checkpointer = StrictCheckpointer(c4)
    checkpointer.load_backbone(write(backbone))
    state = c4.state_dict()
    in_heads = [key for key in backbone if key.startswith("res5.")]
    assert len(in_heads) == 3 * 15 + 5  # three convolutions with norm in each block, and a shortcut
    for key, value in backbone.items():
        name = f"roi_heads.{key}" if key in in_heads else f"backbone.{key}"
        assert np.array_equal(state[name].numpy(), value), key
    # The norm after res5 is new on purpose, and so are the detector's own layers; nothing else.
    tensors = ("weight", "bias", "running_mean", "running_var")
    norm = [f"roi_heads.res5.norm.{tensor}" for tensor in tensors]
    rest = [key for key in checkpointer.new_keys if key not in norm]
    assert set(norm) <= set(checkpointer.new_keys)
    assert {".".join(key.split(".")[:2]) for key in rest} == {
        "proposal_generator.rpn_head",
        "roi_heads.box_predictor",
        "roi_heads.mask_head",
    }


def test_a_c4_model_gets_what_stock_detectron2_loads(c4, backbone, write):
    path = write(backbone)
    stock = build_c4()
    StrictCheckpointer(c4).load_backbone(path)
    DetectionCheckpointer(stock).load(path)
    for name in ("backbone", "roi_heads.res5.0", "roi_heads.res5.1", "roi_heads.res5.2"):
        expected = stock.get_submodule(name).state_dict()
        for key, value in c4.get_submodule(name).state_dict().items():
            assert torch.equal(expected[key], value), key


@pytest.mark.parametrize("key", ["res5.2.conv3.weight", "res5.0.shortcut.norm.running_var"])
def test_a_c4_model_without_a_res5_tensor_is_refused(c4, backbone, write, key):
    path = write({k: v for k, v in backbone.items() if k != key})
    message = rf"1 of 265 backbone tensors.*roi_heads\.{key} \(missing\)"
    with pytest.raises(InputError, match=message):
        StrictCheckpointer(c4).load_backbone(path)


def test_a_trained_c4_detector_is_loaded_whole(c4, tmp_path):
    torch.nn.init.normal_(c4.roi_heads.res5.norm.running_mean)
    StrictCheckpointer(c4, str(tmp_path)).save("model_final")
    other = build_c4()
    StrictCheckpointer(other).load(str(tmp_path / "model_final.pth"))
    assert all(
        torch.equal(other.state_dict()[key], value) for key, value in c4.state_dict().items()
    )


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("suffix", ["pkl", "pth"])
def test_no_code_of_a_checkpoint_runs(model, backbone, write, tmp_path, suffix):
    """The payload would make a folder; its benign twin loads."""
    marker = tmp_path / "payload_ran"
    if suffix == "pkl":
        hostile = write(backbone, extra=Payload(marker))
        benign = write(backbone, "benign.pkl", extra="harmless")
    else:
        hostile, benign = str(tmp_path / "hostile.pth"), str(tmp_path / "benign.pth")
        tensors = {key: torch.from_numpy(value) for key, value in backbone.items()}
        torch.save({"model": tensors, "extra": Payload(marker)}, hostile)
        torch.save({"model": tensors, "extra": "harmless"}, benign)
    with pytest.raises(InputError):
        StrictCheckpointer(model).load_backbone(hostile)
    assert not marker.exists()
    StrictCheckpointer(model).load_backbone(benign)
