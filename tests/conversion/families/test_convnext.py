"""ConvNeXts: the projects' files are recognised, accounted for and proved; torchvision's network agrees."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.convnext import ConvNeXt as TorchvisionConvNeXt

from ssl_backbones.conversion import convert, verify
from ssl_backbones.conversion.extraction import from_pretraining
from ssl_backbones.conversion.families.convnext import CONVNEXT, forward
from ssl_backbones.conversion.layouts import CONVNEXT_LAYOUTS
from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.errors import InputError
from ssl_backbones.studies.arms import spoil

timm = pytest.importorskip("timm")

DEPTHS, DIMS = (1, 2, 1, 1), (8, 16, 32, 64)
CLASSES = 5


def filled(network: nn.Module) -> dict[str, torch.Tensor]:
    """Numbers as training leaves them: every scale and bias away from where it begins."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in network.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=random)
        is_kernel = tensor.ndim in (2, 4) and tensor.numel() > tensor.shape[-1]
        is_scale = name.endswith(("weight", "gamma", "layer_scale")) and not is_kernel
        state[name] = drawn * (0.1 if is_kernel else 0.4) + (1.0 if is_scale else 0.0)
    return state


def of_timm(version: int = 1) -> dict[str, torch.Tensor]:
    options = {"use_grn": True, "ls_init_value": None} if version == 2 else {}
    network = timm.models.convnext.ConvNeXt(
        depths=DEPTHS, dims=DIMS, num_classes=CLASSES, **options
    )
    return filled(network)


def of_torchvision() -> TorchvisionConvNeXt:
    outs = (*DIMS[1:], None)
    settings = [CNBlockConfig(*one) for one in zip(DIMS, outs, DEPTHS, strict=True)]
    network = TorchvisionConvNeXt(settings, num_classes=CLASSES)
    network.load_state_dict(filled(network))
    return network.eval()


def named(state: dict, *patterns: tuple[str, str]) -> dict:
    """The backbone of timm's state dict, renamed by regular expressions."""
    found = {}
    for name, tensor in state.items():
        if name.startswith("head"):
            continue
        for old, new in patterns:
            name = re.sub(old, new, name)
        found[name] = tensor
    return found


FACEBOOK = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"\.blocks\.", "."),
    (r"conv_dw", "dwconv"),
    (r"mlp\.fc(\d)", r"pwconv\1"),
    (r"mlp\.grn\.weight", "grn.gamma"),
    (r"mlp\.grn\.bias", "grn.beta"),
)
HUGGING_FACE = (
    (r"^stem\.0", "embeddings.patch_embeddings"),
    (r"^stem\.1", "embeddings.layernorm"),
    (r"^stages\.(\d)\.downsample\.", r"encoder.stages.\1.downsampling_layer."),
    (r"^stages\.(\d)\.blocks\.(\d)\.", r"encoder.stages.\1.layers.\2."),
    (r"conv_dw", "dwconv"),
    (r"(layers\.\d)\.norm", r"\1.layernorm"),
    (r"mlp\.fc(\d)", r"pwconv\1"),
    (r"mlp\.grn", "grn"),
    (r"gamma", "layer_scale_parameter"),
)
HUGGING_FACE_DINOV3 = (
    (r"^stem\.", "stages.0.downsample_layers."),
    (r"downsample\.", "downsample_layers."),
    (r"blocks", "layers"),
    (r"conv_dw", "depthwise_conv"),
    (r"(layers\.\d)\.norm", r"\1.layer_norm"),
    (r"mlp\.fc(\d)", r"pointwise_conv\1"),
)


def facebook(version: int = 1) -> dict:
    state = named(of_timm(version), *FACEBOOK)
    # models/convnextv2.py: GRN's parameters are (1, 1, 1, channels).
    return {n: t[None, None, None] if ".grn." in n else t for n, t in state.items()}


def at(prefix: str, state: dict) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def norm(name: str = "norm") -> dict:
    return {f"{name}.weight": torch.ones(DIMS[-1]), f"{name}.bias": torch.zeros(DIMS[-1])}


def head(name: str = "head") -> dict:
    return {f"{name}.weight": torch.ones(CLASSES, DIMS[-1]), f"{name}.bias": torch.ones(CLASSES)}


def sparse(dense: dict) -> dict:
    """As MinkowskiEngine's layers hold it: by hand, position by position."""
    found = {}
    for name, tensor in dense.items():
        module, part = name.rsplit(".", 1)
        is_convolution = re.search(r"downsample_layers\.[123]\.1$|dwconv$", module)
        if is_convolution and part == "weight":
            outs, ins, height, width = tensor.shape
            kernel = torch.empty(height * width, ins, outs)
            for row in range(height):
                for column in range(width):
                    kernel[column * height + row] = tensor[:, :, row, column].T
            found[f"{module}.kernel"] = kernel[:, 0] if "dwconv" in module else kernel
        elif is_convolution:
            found[name] = tensor[None]
        elif "pwconv" in module:
            found[f"{module}.linear.{part}"] = tensor
        elif module.endswith(".grn"):
            found[name] = tensor.reshape(1, -1)
        elif module.startswith("downsample_layers.0"):
            found[name] = tensor
        elif part in ("weight", "bias"):
            found[f"{module}.ln.{part}"] = tensor
        else:
            found[name] = tensor
    return found


def in_hugging_face(version: int = 1) -> dict:
    state = named(of_timm(version), *HUGGING_FACE)
    return {n: t[None, None, None] if ".grn." in n else t for n, t in state.items()}


_ONE = torch.ones(1)
DECODER = {"mask_token": _ONE, "proj.weight": _ONE, "decoder.0.gamma": _ONE, "pred.weight": _ONE}

EXAMPLES = {
    "convnext": lambda: {"model": {**facebook(), **norm(), **head()}, "epoch": 3},
    "convnext of version 2": lambda: {"model": {**facebook(2), **norm(), **head()}},
    "convnext-fcmae": lambda: {
        "model": {**at("encoder.", sparse(facebook(2))), **DECODER},
        "optimizer": {},
    },
    "convnext-fcmae-encoder": lambda: {"model": sparse(facebook(2))},
    "dinov3-convnext": lambda: {**facebook(), **norm(), **norm("norms.3")},
    "dinov3-convnext-training": lambda: {
        "teacher": {
            **at("backbone.", {**facebook(), **norm(), **norm("norms.3")}),
            "dino_head.last_layer.weight": _ONE,
            "ibot_head.last_layer.weight": _ONE,
        }
    },
    "convnext-backbone": lambda: {**facebook(), **norm()},
    "vicregl-convnext": lambda: {
        "epoch": 9,
        "model": {
            **at("module.backbone.", {**facebook(), **norm()}),
            "module.maps_projector.0.weight": _ONE,
            "module.projector.0.weight": _ONE,
        },
        "optimizer": {},
    },
    "timm-convnext": of_timm,
    "timm-convnext of version 2": lambda: of_timm(2),
    "torchvision-convnext": lambda: of_torchvision().state_dict(),
    "hugging-face-convnext": lambda: {
        **at("convnext.", {**in_hugging_face(), **norm("layernorm")}),
        **head("classifier"),
    },
    "hugging-face-convnextv2": lambda: {
        **at("convnextv2.", {**in_hugging_face(2), **norm("layernorm")}),
        **head("classifier"),
    },
    "hugging-face-convnext-model": lambda: {**in_hugging_face(), **norm("layernorm")},
    "hugging-face-dinov3-convnext": lambda: {
        **named(of_timm(), *HUGGING_FACE_DINOV3),
        **norm("layer_norm"),
    },
}


@pytest.fixture(params=EXAMPLES)
def example(request, tmp_path):
    path = tmp_path / "source.pth"
    torch.save(EXAMPLES[request.param](), path)
    return request.param, path


def expected_of(name: str) -> dict[str, np.ndarray]:
    if name == "torchvision-convnext":
        return {}
    is_second = "version 2" in name or "fcmae" in name or "v2" in name
    kept = of_timm(2 if is_second else 1)
    return {n: t.numpy() for n, t in kept.items() if not n.startswith("head")}


def test_files_are_recognised_and_every_tensor_is_where_it_belongs(example):
    name, path = example
    found = from_pretraining(read_checkpoint(path), selfsup="auto", branch=None, prefix=None)
    assert found.origin["layout"] == name.partition(" of ")[0]
    assert not found.backbone.unknown
    assert "stride_in_1x1" not in found.origin["input"]
    expected = expected_of(name)
    for key, array in found.backbone.tensors.items() if expected else ():
        np.testing.assert_array_equal(array, expected[key], err_msg=key)
    assert not expected or set(found.backbone.tensors) == set(expected)


def test_every_row_has_an_example():
    rows = [row.name for row in CONVNEXT_LAYOUTS]
    assert sorted({name.partition(" of ")[0] for name in EXAMPLES}) == sorted(rows)


def test_a_broken_row_is_noticed(example, assert_noticed):
    name, path = example
    row = next(row for row in CONVNEXT_LAYOUTS if row.name == name.partition(" of ")[0])
    assert_noticed(row, path, row.renames[2:] if row.renames else None)


@pytest.fixture(scope="module")
def proofs(tmp_path_factory):
    """A conversion of either version, proved."""
    folder = tmp_path_factory.mktemp("convnext")
    reports = {}
    for name in ("dinov3-convnext", "convnext-fcmae"):
        torch.save(EXAMPLES[name](), folder / f"{name}.pth")
        reports[name] = convert(folder / f"{name}.pth", folder / f"{name}.pkl")
    return folder, reports


@pytest.mark.parametrize("name", ["dinov3-convnext", "convnext-fcmae"])
def test_the_proof_is_within_rounding_and_sees_every_mistake(proofs, name):
    _, reports = proofs
    proof = reports[name].proof
    assert proof.tolerances == {"float64": 1e-10, "float32": 1e-4}
    assert len(proof.stages["float64"]) == 4 * 3
    assert max(one.relative for one in proof.stages["float64"].values()) < 1e-13
    assert max(one.relative for one in proof.stages["float32"].values()) < 1e-5
    own = (
        "layer scale left at 1" if name.startswith("dinov3") else "response normalisation left at 0"
    )
    assert own in proof.controls and len(proof.controls) >= 6
    assert min(proof.controls.values()) > 100 * proof.tolerances["float32"]


def test_the_provenance_says_what_the_network_is(proofs):
    _, reports = proofs
    assert reports["dinov3-convnext"].provenance["architecture"] == {
        "family": "convnext",
        "name": "convnext of depths [1, 2, 1, 1] and dims [8, 16, 32, 64]",
        "depths": [1, 2, 1, 1],
        "dims": [8, 16, 32, 64],
        "grn": False,
        "layer_scale": True,
        "norm_eps": 1e-6,
    }
    assert reports["convnext-fcmae"].provenance["architecture"]["grn"] is True
    assert reports["convnext-fcmae"].provenance["input"] == {
        "format": "RGB",
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }


def test_a_converted_file_is_verified_against_its_source(proofs):
    folder, _ = proofs
    found = verify(folder / "convnext-fcmae.pkl", folder / "convnext-fcmae.pth")
    assert found.same_file and found.proof is not None
    with pytest.raises(InputError, match="of depths"):
        verify(folder / "convnext-fcmae.pkl", folder / "dinov3-convnext.pth", proof=False)


def test_a_control_is_spoilt_in_its_channels_alone(proofs, tmp_path):
    folder, _ = proofs
    with pytest.raises(InputError, match="holds a ConvNeXt, and :shuffled is of ResNets"):
        spoil(folder / "dinov3-convnext.pkl", tmp_path / "spoilt.pkl", "shuffled")
    spoil(folder / "dinov3-convnext.pkl", tmp_path / "spoilt.pkl", "bgr")
    before, after = (
        read_checkpoint(path).content["model"]
        for path in (folder / "dinov3-convnext.pkl", tmp_path / "spoilt.pkl")
    )
    stem = "convnext.stem.0.weight"
    np.testing.assert_array_equal(after[stem], np.asarray(before[stem])[:, ::-1])
    assert all(np.array_equal(before[name], after[name]) for name in before if name != stem)


def test_formats_of_resnets_are_refused(proofs, tmp_path):
    folder, _ = proofs
    for to, suffix in (("torchvision", "pth"), ("mmdet", "pth")):
        with pytest.raises(InputError, match=f"holds a ConvNeXt, and --to {to} writes ResNets"):
            convert(folder / "dinov3-convnext.pth", tmp_path / f"out.{suffix}", to=to, verify=False)


@pytest.mark.parametrize(
    ("depths", "dims", "version", "name"),
    [
        ((3, 3, 9, 3), (96, 192, 384, 768), 1, "convnext_tiny"),
        ((3, 3, 27, 3), (128, 256, 512, 1024), 1, "convnext_base"),
        ((2, 2, 6, 2), (40, 80, 160, 320), 2, "convnextv2_atto"),
    ],
)
def test_the_papers_sizes_have_their_names_and_timms_shapes(depths, dims, version, name):
    with torch.device("meta"):
        network = timm.create_model(name)
    # The small ones have 1x1 convolutions in place of linear layers.
    held = {n: np.empty(t.shape) for n, t in network.state_dict().items() if "head" not in n}
    shapes = {n: a.shape for n, a in (CONVNEXT.plain(*item) for item in held.items())}
    found, problems = CONVNEXT.closest(shapes)
    assert (found.name, found.depths, found.dims, problems) == (name, depths, dims, {})
    assert found.grn == (version == 2)


def test_the_reference_is_torchvisions_network():
    """Of version 1 to the last bits of float64; version 2's normalisation by its formula, in numpy."""
    network = of_torchvision().double()
    path_free = {n: t.numpy() for n, t in network.state_dict().items()}
    tensors = {}
    for name, array in path_free.items():
        for old, new in (
            (r"^features\.0\.", "stem."),
            (r"^features\.([246])\.", lambda m: f"stages.{int(m[1]) // 2}.downsample."),
            (r"^features\.([1357])\.(\d)\.", lambda m: f"stages.{int(m[1]) // 2}.blocks.{m[2]}."),
            (r"block\.0", "conv_dw"),
            (r"block\.2", "norm"),
            (r"block\.3", "mlp.fc1"),
            (r"block\.5", "mlp.fc2"),
            (r"layer_scale", "gamma"),
        ):
            name = re.sub(old, new, name)
        tensors[name] = torch.from_numpy(array.reshape(-1) if "gamma" in name else array)
    architecture, _ = CONVNEXT.closest({n: tuple(t.shape) for n, t in tensors.items()})
    image = torch.randn(1, 3, 75, 110, generator=torch.Generator().manual_seed(1)).double()
    found, values = dict(forward(tensors, architecture, image)), image
    with torch.inference_mode():
        for number, layer in enumerate(network.features):
            values = layer(values)
            if number % 2:
                torch.testing.assert_close(
                    found[f"res{number // 2 + 2}"], values, rtol=1e-11, atol=1e-11
                )


def test_untrained_weights_are_told(tmp_path):
    network = timm.models.convnext.ConvNeXt(depths=DEPTHS, dims=DIMS, num_classes=0)
    torch.save(network.state_dict(), tmp_path / "new.pth")
    convert(tmp_path / "new.pth", tmp_path / "new.pkl", verify=False)
    with pytest.raises(InputError, match="layer norms whose scales are all at 1"):
        verify(tmp_path / "new.pkl", proof=False)
