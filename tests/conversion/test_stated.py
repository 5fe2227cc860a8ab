"""What the text in and beside a file says is recorded, proved with, or a reason to refuse."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import textwrap
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow_resnet import RESNET_CONFIG, Narrow, hugging_face_state, trained
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import BasicBlock, Bottleneck

from ssl_backbones.conversion import convert, inspect, verify
from ssl_backbones.conversion.converting import FORMATS
from ssl_backbones.conversion.extraction import load_backbone
from ssl_backbones.conversion.formatting import (
    format_conversion,
    format_inspection,
    format_next_step,
)
from ssl_backbones.conversion.layouts import IMAGENET_INPUT
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.resnet import build_resnet

BGR = {"format": "BGR", "pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0] * 3}
STAGES = {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}


def caffe_style() -> nn.Module:
    """The strides moved by hand from the 3x3 to the first 1x1 of the blocks that have one."""
    torch.manual_seed(0)
    network = Narrow(Bottleneck, [3, 4, 6, 3])
    for layer in (network.layer2, network.layer3, network.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return trained(network)


@pytest.fixture(scope="module")
def caffe() -> nn.Module:
    return caffe_style()


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    torch.manual_seed(0)
    return trained(Narrow(Bottleneck, [3, 4, 6, 3]))


@pytest.fixture(scope="module")
def basic() -> nn.Module:
    torch.manual_seed(0)
    return trained(Narrow(BasicBlock, [2, 2, 2, 2]))


def state_of(network: nn.Module, prefix: str = "") -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}


@pytest.fixture
def openmmlab(tmp_path, plain):
    """A file as mmengine's and mmcv's runners save it: `cfg` or `config` in its `meta`."""

    def write(cfg: object, network: nn.Module = plain, **more) -> Path:
        if isinstance(cfg, str):
            cfg = textwrap.dedent(cfg)
        state = state_of(network, "backbone.") | {"neck.fc0.weight": torch.zeros(4, 4)}
        meta = {"epoch": 200, "cfg": cfg, "mmengine_version": "0.7.0"} | more
        path = tmp_path / "epoch_200.pth"
        torch.save({"meta": meta, "state_dict": state}, path)
        return path

    return write


@pytest.fixture
def hugging_face(tmp_path, plain):
    """A folder as transformers' save_pretrained writes it."""

    def write(
        config: object = None,
        processor: object = None,
        network: nn.Module = plain,
        prefix: str = "",
    ) -> Path:
        for name, content in (("config.json", config), ("preprocessor_config.json", processor)):
            if content is not None:
                text = content if isinstance(content, str) else json.dumps(content)
                (tmp_path / name).write_text(text)
        save_file(hugging_face_state(network, prefix), tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors"

    return write


PROCESSOR = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_rescale": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "ConvNextImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 0.00392156862745098,
}

# As MMDetection 3 prints it for mask-rcnn_r50-caffe, shortened.
PRINTED = """\
    auto_scale_lr = dict(base_batch_size=16)
    model = dict(
        backbone=dict(
            depth=50,
            frozen_stages=1,
            init_cfg=dict(checkpoint='open-mmlab://detectron2/resnet50_caffe', type='Pretrained'),
            norm_cfg=dict(requires_grad=False, type='BN'),
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            style='caffe',
            type='ResNet'),
        data_preprocessor=dict(
            bgr_to_rgb=False,
            mean=[103.53, 116.28, 123.675],
            pad_size_divisor=32,
            std=[1.0, 1.0, 1.0],
            type='DetDataPreprocessor'),
        type='MaskRCNN')
    work_dir = './work_dirs/mask-rcnn_r50-caffe_fpn_1x_coco'
    """


def said_of(path: Path, **options) -> dict:
    return dict(load_backbone(path, **options).origin["input"])


def refusal(path: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_backbone(path, **options)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def assert_computes(path: Path, source: nn.Module, stride_in_1x1: bool) -> None:
    """The file, in Detectron2's network with its strides there, gives the source's own features."""
    content = pickle.loads(path.read_bytes())  # our own file
    widths = {k: v for k, v in content["provenance"]["architecture"].items() if k != "name"}
    network = build_resnet(**widths, stride_in_1x1=stride_in_1x1)
    state = {name: torch.from_numpy(array.copy()) for name, array in content["model"].items()}
    network.load_state_dict(state, strict=False)
    images = torch.randn(1, 3, 65, 98)
    with torch.no_grad():
        expected = create_feature_extractor(source, STAGES)(images)
        features = network.eval()(images)
    for stage, values in expected.items():
        torch.testing.assert_close(features[stage], values, rtol=1e-4, atol=1e-4)


# The stride


def test_openmmlabs_caffe_style_is_recorded_and_proved(openmmlab, caffe, tmp_path):
    source = openmmlab(PRINTED, caffe)
    report = convert(source, tmp_path / "out.pkl")
    assert report.provenance["input"] == {**BGR, "stride_in_1x1": True}
    place = "meta.cfg (model.data_preprocessor)"
    assert report.provenance["input_stated_by"] == {
        "stride_in_1x1": "meta.cfg (style='caffe')",
        "pixel_mean": place,
        "pixel_std": place,
        "format": place,
    }
    assert "texts_beside" not in report.provenance
    assert report.proof.controls["stride in the 3x3"] > 1e-2
    assert "stride in the 1x1" not in report.proof.controls
    assert_computes(tmp_path / "out.pkl", caffe, stride_in_1x1=True)
    assert verify(tmp_path / "out.pkl", source).proof.controls["stride in the 3x3"] > 1e-2
    assert verify(tmp_path / "out.pkl").proof.controls["stride in the 3x3"] > 1e-2


def test_openmmlabs_pytorch_style_is_as_before(openmmlab, plain, tmp_path):
    text = PRINTED.replace("caffe'", "pytorch'").replace("bgr_to_rgb=False", "bgr_to_rgb=True")
    text = text.replace("103.53, 116.28, 123.675", "123.675, 116.28, 103.53")
    source = openmmlab(text.replace("1.0, 1.0, 1.0", "58.395, 57.12, 57.375"))
    report = convert(source, tmp_path / "out.pkl")
    assert report.provenance["input"] == IMAGENET_INPUT
    assert report.provenance["input_stated_by"]["stride_in_1x1"] == "meta.cfg (style='pytorch')"
    assert report.proof.controls["stride in the 1x1"] > 1e-2
    assert_computes(tmp_path / "out.pkl", plain, stride_in_1x1=False)


@pytest.mark.parametrize("in_1x1", [True, False])
def test_hugging_faces_config_is_recorded_and_proved(in_1x1, hugging_face, plain, caffe, tmp_path):
    network = caffe if in_1x1 else plain
    config = RESNET_CONFIG | {"downsample_in_bottleneck": in_1x1}
    report = convert(hugging_face(config, PROCESSOR, network), tmp_path / "out.pkl")
    assert report.provenance["input"] == IMAGENET_INPUT | {"stride_in_1x1": in_1x1}
    assert report.provenance["input_stated_by"] == {
        "stride_in_1x1": "config.json (downsample_in_bottleneck)",
        "pixel_mean": "preprocessor_config.json",
        "pixel_std": "preprocessor_config.json",
    }
    assert report.provenance["texts_beside"] == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("config.json", "preprocessor_config.json")
    }
    assert f"stride in the {'3x3' if in_1x1 else '1x1'}" in report.proof.controls
    assert_computes(tmp_path / "out.pkl", network, stride_in_1x1=in_1x1)


def test_a_detectors_config_is_of_its_backbone(hugging_face):
    config = {"model_type": "detr", "backbone_config": RESNET_CONFIG}
    config["backbone_config"] = RESNET_CONFIG | {"downsample_in_bottleneck": True}
    prefix = "model.backbone.conv_encoder.model."
    path = hugging_face(config, prefix=prefix)
    assert said_of(path, prefix=prefix)["stride_in_1x1"] is True


def test_blocks_of_two_convolutions_have_no_1x1(openmmlab, hugging_face, basic):
    text = "model = dict(backbone=dict(type='ResNet', depth=18, style='caffe'))"
    assert said_of(openmmlab(text, basic))["stride_in_1x1"] is False
    config = RESNET_CONFIG | {
        "downsample_in_bottleneck": True,
        "layer_type": "basic",
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [8, 16, 32, 64],
    }
    assert said_of(hugging_face(config, network=basic))["stride_in_1x1"] is False


@pytest.mark.parametrize(
    ("text", "in_1x1"),
    [
        ("model = dict(type='MoCo', backbone=dict(type='mmdet.ResNet', style='caffe'))", True),
        ("model = dict(detector=dict(backbone=dict(type='ResNet', style='caffe')))", True),
        ("model = dict(backbone=dict(type='ResNet', depth=50))", False),
        (
            "model = dict(backbone=dict(type='ResNet', depth=50, style='caffe'),"
            " teacher=dict(backbone=dict(type='ResNet', depth=101, style='pytorch')))",
            True,
        ),
        ("model = dict(backbone=dict(type='ResNet', style=STYLE))", False),
        ("model = dict(backbone=BACKBONE)", False),
        ("model = dict(backbone=dict(type='VisionTransformer'), neck=dict(style=1))", False),
        ("caffe", False),
        ("model = dict(backbone=dict(style='pytorch'", False),
        ("model = [" * 300, False),
        ("{'model': {'backbone': {'style': 'pytorch'}}}", False),
        ("classes = 'style=caffe'\nlr = 0.1", False),
        ({"model": {"backbone": {"type": "ResNet", "style": "caffe"}}}, True),
        ({"model": {"backbone": {"type": "ResNet", "style": np.zeros(3)}}}, False),
        ({"model": ["caffe"] * 30_000}, False),
        (7, False),
    ],
)
def test_where_the_style_stands_and_what_says_nothing(openmmlab, text, in_1x1):
    said = said_of(openmmlab(text))
    assert said == IMAGENET_INPUT | {"stride_in_1x1": in_1x1}


def test_a_dictionary_that_holds_itself_says_nothing(openmmlab):
    config: dict = {"model": {"backbone": {"type": "ResNet", "style": "caffe"}}}
    config["model"]["again"] = config
    assert said_of(openmmlab(config)) == IMAGENET_INPUT


def test_code_in_a_config_is_not_run(openmmlab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "import os\nos.system('touch ran')\nmodel = dict(a=open('ran', 'w'))\nx = [][0]"
    assert said_of(openmmlab(text)) == IMAGENET_INPUT
    assert not (tmp_path / "ran").exists()


# Images


def with_pipeline(normalize: str) -> str:
    return (
        "img_norm_cfg = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)\n"
        "model = dict(backbone=dict(type='ResNet'))\n"
        f"data = dict(train=dict(pipeline=[dict(type='LoadImage'), {normalize}]))"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # mmpretrain prints the default beside the model's own
        (
            "data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],"
            " to_rgb=True, num_classes=1000)\nmodel = dict(backbone=dict(type='ResNet'))",
            {},
        ),
        (
            "data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)\n"
            "model = dict(data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1, 1, 1]))",
            BGR,
        ),
        ("data_preprocessor = dict(type='DetDataPreprocessor', pad_size_divisor=32)", {}),
        (
            "model = dict(data_preprocessor=dict(type='MultiBranchDataPreprocessor',"
            " data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0])))",
            BGR,
        ),
        # MMDetection 2's
        ("img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1, 1], to_rgb=False)", BGR),
        # OpenSelfSup's: torchvision's scale, from PIL's RGB
        ("img_norm_cfg = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])", {}),
        (
            "img_norm_cfg = dict(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])",
            {"pixel_mean": [127.5] * 3, "pixel_std": [127.5] * 3},
        ),
        # A variable that the pipeline does not use
        (
            with_pipeline(
                "dict(type='Normalize', mean=[103.53, 116.28, 123.675], std=[1, 1, 1], to_rgb=False)"
            ),
            BGR,
        ),
        (
            with_pipeline("dict(type='Normalize', **img_norm_cfg)"),
            {"pixel_mean": [1, 2, 3], "pixel_std": [4, 5, 6]},
        ),
        # No statistics at all
        ("img_norm_cfg = dict(mean=[1, 2], std=[1, 2])", {}),
        ("img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 0, 2])", {}),
        ("img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 1e999, 2])", {}),
        (f"img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 1{'0' * 400}, 2])", {}),
        ("img_norm_cfg = dict(mean='123', std=None, to_rgb='no')", {}),
        ("img_norm_cfg = dict(mean=MEAN, std=[1, 1, 1], to_rgb=True)", {}),
        ("img_norm_cfg = 'none'\ndata_preprocessor = [1]\nmodel = 3", {}),
    ],
)
def test_openmmlabs_images(openmmlab, text, expected):
    assert said_of(openmmlab(text)) == IMAGENET_INPUT | expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
         {"pixel_mean": [127.5] * 3, "pixel_std": [127.5] * 3}),
        ({"do_normalize": False}, {"pixel_mean": [0.0] * 3, "pixel_std": [255.0] * 3}),
        ({"do_normalize": False, "do_rescale": False},
         {"pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3}),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
         {"pixel_mean": [127.5] * 3, "pixel_std": [127.5] * 3}),
        ({"do_flip_channel_order": True}, {"format": "BGR"}),
        ({"rescale_factor": 0}, {}),
        ({"rescale_factor": "1/255"}, {}),
        ({"image_mean": [0.5], "image_std": [0.5]}, {}),
        ({"image_mean": None}, {}),
    ],
)  # fmt: skip
def test_hugging_faces_processor(hugging_face, changes, expected):
    path = hugging_face(RESNET_CONFIG, PROCESSOR | changes)
    assert said_of(path) == IMAGENET_INPUT | expected


@pytest.mark.parametrize("flag", [True, False])
def test_openmmlabs_images_before_its_1_0(openmmlab, flag):
    """mmcls 1.0.0rc, configs/_base_/datasets/imagenet_bs32.py."""
    text = f"preprocess_cfg = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb={flag})"
    expected = {"pixel_mean": [1, 2, 3], "pixel_std": [4, 5, 6], "format": "RGB" if flag else "BGR"}
    assert said_of(openmmlab(text)) == IMAGENET_INPUT | expected


@pytest.mark.parametrize("part", ["vision_config", "backbone_config"])
def test_a_config_of_a_larger_model_is_of_the_resnet_in_it(hugging_face, part):
    config = {"model_type": "other", part: RESNET_CONFIG | {"downsample_in_bottleneck": True}}
    assert said_of(hugging_face(config, prefix="net."), prefix="net.")["stride_in_1x1"] is True


def test_a_config_is_of_the_network_inside_a_training_file_too(tmp_path, plain):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": hugging_face_state(plain, "model.resnet.")}, path)
    config = RESNET_CONFIG | {"downsample_in_bottleneck": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert said_of(path, prefix="model.resnet.")["stride_in_1x1"] is True


def test_timms_first_config(tmp_path, plain):
    """timm models/_hub.py, `load_model_config_from_hf`: the old form has no `pretrained_cfg`."""
    path = tmp_path / "pytorch_model.bin"
    torch.save(state_of(plain), path)
    config = {"architecture": "resnet50", "num_classes": 10, "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    halves = {"pixel_mean": [127.5] * 3, "pixel_std": [127.5] * 3}
    assert said_of(path) == IMAGENET_INPUT | halves


def test_hugging_faces_wrapper_of_timm(tmp_path, plain):
    path = tmp_path / "model.safetensors"
    save_file(state_of(plain, "timm_model."), path)
    config = {"architecture": "resnetaa50", "model_type": "timm_wrapper"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"pretrained_cfg": {}}))
    assert "is timm's resnetaa50" in refusal(path, prefix="timm_model.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"output_stride": 16}, "output_stride is 16"),
        ({"act_layer": "gelu"}, "act_layer is gelu"),
        ({"aa_layer": "blur"}, "aa_layer is blur"),
        ({"output_stride": 32, "act_layer": "relu", "aa_layer": "", "drop_rate": 0.1}, None),
    ],
)
def test_timms_arguments_that_no_tensor_shows(tmp_path, plain, arguments, says):
    path = tmp_path / "model.safetensors"
    save_file(state_of(plain), path)
    config = {"architecture": "resnet50", "model_args": arguments, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if says:
        assert f"config.json beside it says {says}, and no tensor shows it" in refusal(path)
    else:
        assert said_of(path) == IMAGENET_INPUT


def test_timms_training_notes_its_network_and_its_mean(tmp_path, plain):
    """utils/checkpoint_saver.py: `arch`, and the command line's `args`."""
    path = tmp_path / "last.pth.tar"

    def save(arch: str, **arguments: object) -> None:
        state = state_of(plain) | {"fc.weight": torch.zeros(2, 256), "fc.bias": torch.zeros(2)}
        args = Namespace(model=arch, **arguments)
        content = {"epoch": 1, "arch": arch, "state_dict": state, "version": 2, "args": args}
        torch.save(content | {"optimizer": {}}, path)

    save("resnet50", mean=None, std=None)
    assert said_of(path) == IMAGENET_INPUT
    save("resnet50", mean=[0.5] * 3, std=[0.5] * 3)
    halves = {"pixel_mean": [127.5] * 3, "pixel_std": [127.5] * 3}
    assert said_of(path) == IMAGENET_INPUT | halves
    save("resnetblur50")
    assert "is timm's resnetblur50, as arch in it says" in refusal(path)


def test_lightly_trains_mean_and_deviation(tmp_path, plain):
    """_checkpoint.py: `normalize_args` on the scale 0-1, beside the networks."""
    path = tmp_path / "last.ckpt"

    def save(normalised: object) -> None:
        state = state_of(plain, "embedding_model.wrapped_model._features.")
        state = {name: tensor for name, tensor in state.items() if ".fc." not in name}
        state |= {"projection_head.layers.0.weight": torch.zeros(4, 4)}
        kept = {"version": "0.6.0", "models": {}, "normalize_args": normalised}
        torch.save({"state_dict": state, "epoch": 1, "lightly_train": kept}, path)

    save({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]})
    assert said_of(path) == IMAGENET_INPUT
    save({"mean": [0.5, 0.25, 0.125], "std": [0.5] * 3})
    own = {"pixel_mean": [127.5, 63.75, 31.875], "pixel_std": [127.5] * 3}
    assert said_of(path) == IMAGENET_INPUT | own
    for nothing in ({}, {"mean": [0.5] * 3}, "ImageNet", {"mean": [0.5] * 3, "std": [0] * 3}):
        save(nothing)
        assert said_of(path) == IMAGENET_INPUT


def test_batch_norms_out_of_caffe2_are_refused(tmp_path, plain):
    """mmdet's tools/model_converters/detectron2pytorch.py writes 0 and 1 for their statistics."""
    state = {
        name: torch.full_like(tensor, name.endswith("var")) if ".running_" in name else tensor
        for name, tensor in state_of(plain).items()
    }
    path = tmp_path / "resnet50_msra.pth"
    torch.save({"state_dict": state}, path)
    assert "batch norms without statistics" in refusal(path)
    assert "detectron2://ImageNetPretrained/MSRA/R-50.pkl" in refusal(path)
    cfg = "model = dict(backbone=dict(type='ResNet', style='caffe'))"
    torch.save({"state_dict": state, "meta": {"cfg": cfg}}, path)
    assert said_of(path)["stride_in_1x1"] is True


def test_timms_config(tmp_path, plain):
    path = tmp_path / "model.safetensors"
    save_file(state_of(plain), path)
    assert said_of(path) == IMAGENET_INPUT
    trained = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    config = {"architecture": "resnet50", "pretrained_cfg": trained}
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = {"pixel_mean": [127.5] * 3, "pixel_std": [127.5] * 3}
    assert said_of(path) == IMAGENET_INPUT | expected
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "resnetblur50"}))
    assert "is timm's resnetblur50, as config.json beside it says" in refusal(path)
    for text in ("{", json.dumps(RESNET_CONFIG | {"downsample_in_bottleneck": True})):
        (tmp_path / "config.json").write_text(text)  # anybody's
        assert said_of(path) == IMAGENET_INPUT


# What is refused


@pytest.mark.parametrize(
    ("backbone", "says"),
    [
        ("strides=(1, 2, 2, 1)", r"strides=(1, 2, 2, 1), as meta.cfg says"),
        ("strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)", r"strides=(1, 2, 1, 1)"),
        ("dilations=[1, 1, 1, 2]", "dilations=(1, 1, 1, 2)"),
        ("norm_cfg=dict(type='BN', eps=1e-3)", "norm_cfg.eps=0.001"),
        ("conv_cfg=dict(type='ConvWS')", "conv_cfg.type=ConvWS"),
        (
            "style='caffe'), other=dict(type='ResNet'",
            "contradicts itself on stride_in_1x1: True by",
        ),
    ],
)
def test_a_network_that_is_another_one_is_refused(openmmlab, backbone, says):
    path = openmmlab(f"model = dict(backbone=dict(type='ResNet', depth=50, {backbone}))")
    assert says in refusal(path) and "save" in refusal(path)


@pytest.mark.parametrize(
    "text",
    [
        "model = dict(backbone=dict(style='caffe'",
        '{"model": {"backbone": {"style": "caffe"}}}',
        "backbone = dict(style = 'caffe')\nmodel = dict(backbone=backbone)",
        "model = dict(backbone=dict(type='ResNet', style='caffe'))\nmodel.update(a=1)",
        "model = dict(backbone=dict(type='ResNet', style='caffe'))\n#" + " " * (1 << 17),
    ],
)
def test_text_that_is_not_read_but_says_caffe_is_refused(openmmlab, basic, text):
    message = refusal(openmmlab(text))
    assert "says style='caffe' in meta.cfg" in message and "pretty_text" in message
    assert said_of(openmmlab(text, basic))["stride_in_1x1"] is False


def test_what_is_the_same_network_is_taken(openmmlab):
    text = (
        "strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), conv_cfg=dict(type='Conv'), dcn=None, "
        "norm_cfg=dict(type='SyncBN', eps=1e-5)"
    )
    said_of(openmmlab(f"model = dict(backbone=dict(type='ResNet', {text}))"))
    said_of(openmmlab("model = dict(backbone=dict(type='ResNet', strides=(1, 2, 2, LAST)))"))


def test_two_texts_that_contradict_each_other_are_refused(openmmlab):
    other = "img_norm_cfg = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=False)"
    first = "img_norm_cfg = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)"
    message = refusal(openmmlab(first, config=other))
    assert (
        "contradicts itself on format: RGB by meta.cfg (img_norm_cfg), BGR by meta.config "
        "(img_norm_cfg); save the state_dict()"
    ) in message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"downsample_in_first_stage": True}, "says downsample_in_first_stage is True"),
        ({"hidden_act": "gelu"}, "says hidden_act is gelu"),
        ({"layer_type": "basic"}, "layer_type is basic there and bottleneck by the tensors"),
        ({"embedding_size": 64}, "embedding_size is 64 there and 8 by the tensors"),
        ({"num_channels": 12}, "num_channels is 12 there and 3 by the tensors"),
        ({"depths": [3, 4, 23, 3]}, "depths is [3, 4, 23, 3] there"),
        ({"hidden_sizes": [256]}, "hidden_sizes is [256] there"),
    ],
)
def test_a_config_of_another_network_is_refused(hugging_face, changes, says):
    assert says in refusal(hugging_face(RESNET_CONFIG | changes))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"model_type": "resnet", ', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no JSON object"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "more than 1,048,576 bytes"),
        ("\0\1\2", "no JSON"),
    ],
)
def test_a_config_that_cannot_be_read_is_refused(hugging_face, text, reason):
    message = refusal(hugging_face(text))
    assert (
        f"a config.json beside it, which says what no tensor does, that cannot be read ({reason}"
        in message
    )
    assert "move it away" in message


def test_a_config_that_is_no_file_is_refused(hugging_face, tmp_path):
    path = hugging_face()
    os.mkfifo(tmp_path / "config.json")
    assert "cannot be read" in refusal(path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    assert "cannot be read (Is a directory)" in refusal(path)


def test_a_config_of_another_model_is_not_this_files(hugging_face):
    path = hugging_face({"model_type": "bert", "hidden_act": "gelu"}, {"do_normalize": False})
    loaded = load_backbone(path)
    assert loaded.origin["input"] == IMAGENET_INPUT
    assert loaded.origin.keys() == {"method", "layout", "branch", "input"}


def test_a_config_beside_another_projects_file_is_not_read(openmmlab, tmp_path):
    path = openmmlab("model = dict()")
    (tmp_path / "config.json").write_text("{")
    assert said_of(path) == IMAGENET_INPUT


def test_without_any_text_the_provenance_is_as_it_was(hugging_face, tmp_path):
    report = convert(hugging_face(), tmp_path / "out.pkl", verify=False)
    assert list(report.provenance) == [
        *("source", "source_sha256", "method", "layout", "branch", "input"),
        *("architecture", "proof", "tool", "date"),
    ]


# Other formats, and files of before


def test_torchvisions_format_has_no_place_for_such_strides(openmmlab, caffe, tmp_path):
    source = openmmlab(PRINTED, caffe)
    with pytest.raises(InputError, match=r"epoch_200\.pth has its strides in the 1x1 convolutions"):
        convert(source, tmp_path / "out.pth", to="torchvision", verify=False)
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("to", ["mmdet", "safetensors", "detectron2-safetensors"])
def test_our_own_formats_keep_the_word(openmmlab, caffe, tmp_path, to):
    there = tmp_path / f"there{FORMATS[to].suffix}"
    report = convert(openmmlab(PRINTED, caffe), there, to=to, verify=False)
    if to == "mmdet":
        assert "backbone=dict(style='caffe', init_cfg=" in format_next_step(report)
    if to == "safetensors":
        assert "strides in the 1x1" in format_next_step(report)
    back = convert(there, tmp_path / "back.pkl", detector=to.startswith("detectron2"))
    assert back.provenance["input"] == {**BGR, "stride_in_1x1": True}
    assert "stride in the 3x3" in back.proof.controls


def test_a_copy_that_says_the_opposite_of_its_source_is_refused(openmmlab, caffe, tmp_path):
    copy = tmp_path / "old.pkl"
    convert(openmmlab({}, caffe), copy, verify=False)  # as all files were read before
    source = openmmlab(PRINTED, caffe)
    with pytest.raises(InputError, match=r"old\.pkl says stride_in_1x1 is False, but .* says True"):
        verify(copy, source, proof=False)


def test_a_copy_outlives_the_text_beside_its_source(hugging_face, caffe, tmp_path):
    source = hugging_face(RESNET_CONFIG | {"downsample_in_bottleneck": True}, network=caffe)
    convert(source, tmp_path / "out.pkl", verify=False)
    (tmp_path / "config.json").unlink()
    assert "stride in the 3x3" in verify(tmp_path / "out.pkl", source).proof.controls


def test_what_was_assumed_stays_assumed_in_our_own_formats(tmp_path, plain):
    torch.save({"net": state_of(plain, "trunk.")}, tmp_path / "own.pth")
    there = tmp_path / "there.safetensors"
    convert(tmp_path / "own.pth", there, to="safetensors", prefix="trunk.", verify=False)
    assert said_of(there) == IMAGENET_INPUT | {"assumed": True}


def test_the_images_of_the_training_are_the_ones_that_count(openmmlab):
    """Those of the validation may be others', as of a linear classifier that stands in the same config."""
    text = (
        "data = dict(train=dict(pipeline=[dict(type='Normalize', mean=[1, 2, 3], std=[4, 5, 6])]),"
        " val=dict(pipeline=[dict(type='Normalize', mean=[7, 8, 9], std=[4, 5, 6])]))"
    )
    expected = {"pixel_mean": [1, 2, 3], "pixel_std": [4, 5, 6]}
    assert said_of(openmmlab(text)) == IMAGENET_INPUT | expected


def printed(table) -> str:
    console = Console(width=200)
    with console.capture() as text:
        console.print(table)
    return text.get()


def test_the_next_step_is_one_that_works(openmmlab, caffe, tmp_path):
    report = convert(openmmlab(PRINTED, caffe), tmp_path / "out.pkl", verify=False)
    assert format_next_step(report).endswith("for the recipe's input is another")
    report = convert(openmmlab("", caffe), tmp_path / "plain.pkl", verify=False)
    assert "overrides" not in format_next_step(report)


def test_images_of_other_channels_are_printed_with_what_the_file_says(openmmlab, tmp_path):
    torch.manual_seed(0)
    network = trained(Narrow(Bottleneck, [3, 4, 6, 3], channels=2))
    statistics = "data_preprocessor=dict(mean=[1, 2], std=[3, 4])"
    text = f"model = dict({statistics}, backbone=dict(type='ResNet', style='caffe'))"
    report = convert(openmmlab(text, network), tmp_path / "out.pkl", verify=False)
    assert "2 channels, mean 1.0 2.0, std 3.0 4.0, strides in the 1x1" in printed(
        format_conversion(report)
    )
    assert "in_channels=2" in format_next_step(report)
    assert "with its strides in the 1x1 convolutions" in format_next_step(report)
    report = convert(openmmlab("", network), tmp_path / "silent.pkl", verify=False)
    assert "2 channels, mean and std not recorded" in printed(format_conversion(report))


def test_an_input_of_anybodys_making_is_printed(openmmlab, tmp_path):
    """A provenance can hold anything that is plain."""
    convert(openmmlab(""), tmp_path / "out.pkl", verify=False)
    content = pickle.loads((tmp_path / "out.pkl").read_bytes())  # our own file
    content["provenance"]["input"] = {"format": ["x"], "pixel_mean": 3}
    (tmp_path / "out.pkl").write_bytes(pickle.dumps(content))
    text = printed(format_inspection(inspect(tmp_path / "out.pkl")))
    assert "['x'], mean 3, std None" in text


def test_an_inspection_says_it(openmmlab, caffe):
    found = inspect(openmmlab(PRINTED, caffe))
    json.dumps(found.to_dict())
    text = printed(format_inspection(found))
    assert "BGR, mean 103.53 116.28 123.675, std 1.0 1.0 1.0, strides in the 1x1" in text
    assert "as meta.cfg (style='caffe') says" in text
