"""ViTs: the projects' files are recognised, accounted for and proved; timm's whole networks agree."""

import json
import pickle
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ssl_backbones import get_config
from ssl_backbones.conversion import convert, verify
from ssl_backbones.conversion.extraction import from_pretraining
from ssl_backbones.conversion.families.vit import VIT, _bicubic, forward
from ssl_backbones.conversion.layouts import VIT_LAYOUTS
from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.engine.provenance import check_provenance
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.vit import build_vit

timm = pytest.importorskip("timm")

DIM, DEPTH, PATCH, GRID = 192, 3, 4, 4
ONE = torch.ones(1)


def filled(state: dict) -> dict[str, torch.Tensor]:
    """Numbers as training leaves them: every scale and bias away from where it begins."""
    random = torch.Generator().manual_seed(0)
    found = {}
    for name, tensor in state.items():
        drawn = torch.randn(tensor.shape, generator=random)
        is_scale = re.search(r"norm\d?\.weight$|gamma", name) is not None
        found[name] = drawn * (0.1 if tensor.ndim in (2, 4) else 0.4) + (1.0 if is_scale else 0.0)
    return found


def timms(**options) -> torch.nn.Module:
    words = {"img_size": PATCH * GRID, "patch_size": PATCH, "num_classes": 0, "num_heads": 3}
    words |= {"embed_dim": DIM, "depth": DEPTH, "dynamic_img_size": True}
    network = timm.models.vision_transformer.VisionTransformer(**words | options)
    network.load_state_dict(filled(network.state_dict()))
    return network.eval()


def timms_dinov3(name: str = "vit_small_patch16_dinov3_qkvb", **options) -> torch.nn.Module:
    network = timm.create_model(
        name, embed_dim=DIM, depth=DEPTH, num_heads=3, patch_size=PATCH, num_classes=0, **options
    )
    network.load_state_dict(filled(network.state_dict()))
    return network.eval()


def plain(**options) -> dict[str, torch.Tensor]:
    return timms(**options).state_dict()


def registers(**options) -> dict[str, torch.Tensor]:
    """As DINOv2's: positions of the class and the patches, four tokens between them without."""
    state = plain(reg_tokens=4, no_embed_class=True, init_values=1.0, **options)
    return state | {"pos_embed": torch.randn(1, GRID**2 + 1, DIM)}


def at(prefix: str, state: dict) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def named(state: dict, *patterns: tuple[str, str]) -> dict:
    found = {}
    for name, tensor in state.items():
        for old, new in patterns:
            name = re.sub(old, new, name)
        found[name] = tensor
    return found


def split(state: dict, parts: tuple[str, ...], without: str = "") -> dict:
    """qkv as three layers."""
    found = {}
    for name, tensor in state.items():
        if ".attn.qkv." not in name:
            found[name] = tensor
            continue
        for part, value in zip(parts, tensor.chunk(3), strict=True):
            own = name.replace("attn.qkv", part)
            if own.rsplit(".", 2)[1:] != [without, "bias"]:
                found[own] = value
    return found


HEAD = {"head.weight": torch.ones(5, DIM), "head.bias": torch.ones(5)}
MASK = {"mask_token": torch.zeros(1, DIM)}
DECODER = {"decoder_embed.weight": ONE, "decoder_pos_embed": ONE, "mask_token": ONE}
DECODER |= {"decoder_blocks.0.norm1.weight": ONE, "decoder_norm.weight": ONE}
DINO_HEADS = {"dino_head.last_layer.weight": ONE, "ibot_head.mlp.0.weight": ONE}
SWIGLU = {"mlp_layer": timm.layers.SwiGLUPacked, "mlp_ratio": 4.0, "act_layer": torch.nn.SiLU}


def dinov2(with_registers: bool = False, **options) -> dict:
    state = registers(**options) if with_registers else plain(init_values=1.0, **options)
    packed = (r"mlp\.fc1", "mlp.w12"), (r"mlp\.fc2", "mlp.w3")
    return named(state, (r"^reg_token", "register_tokens"), *(packed if options else ())) | MASK


def chunked(state: dict) -> dict:
    """As `block_chunks` leaves them: a block keeps its number inside of its chunk."""
    return named(state, (r"^blocks\.(\d+)\.", r"blocks.1.\1."))


def canonical_dinov3(gated: bool = False) -> dict:
    """By hand: no library but the project's own has these names."""
    hidden = 2 * DIM
    state = {
        "cls_token": torch.randn(1, 1, DIM),
        "reg_token": torch.randn(1, 4, DIM),
        "patch_embed.proj.weight": torch.randn(DIM, 3, PATCH, PATCH) * 0.1,
        "patch_embed.proj.bias": torch.randn(DIM),
        "rope_embed.periods": 100.0 ** (torch.arange(16) / 16),
        "norm.weight": torch.randn(DIM) + 1,
        "norm.bias": torch.randn(DIM),
    }
    for number in range(DEPTH):
        block = f"blocks.{number}."
        state |= {
            f"{block}{name}": torch.randn(*shape) * 0.1
            + (name[:4] in ("norm", "ls1.", "ls2.") and name[-4:] != "bias")
            for name, shape in {
                **{f"norm{n}.{part}": (DIM,) for n in (1, 2) for part in ("weight", "bias")},
                **{f"ls{n}.gamma": (DIM,) for n in (1, 2)},
                "attn.qkv.weight": (3 * DIM, DIM),
                "attn.qkv.bias": (3 * DIM,),
                "attn.proj.weight": (DIM, DIM),
                "attn.proj.bias": (DIM,),
                "mlp.fc1.weight": (hidden * (1 + gated), DIM),
                "mlp.fc1.bias": (hidden * (1 + gated),),
                "mlp.fc2.weight": (DIM, hidden),
                "mlp.fc2.bias": (DIM,),
            }.items()
        }
        state[f"{block}attn.qkv.bias"][DIM : 2 * DIM] = 0
    return state


def dinov3(gated: bool = False) -> dict:
    torch.manual_seed(0)
    state = named(canonical_dinov3(gated), (r"^reg_token", "storage_tokens")) | MASK
    for name in [name for name in state if name.endswith("qkv.bias")]:
        mask = torch.ones(3 * DIM)
        mask[DIM : 2 * DIM] = 0
        # What was never trained behind the mask is anything.
        state[name] = state[name] + 7 * (1 - mask)
        state[f"{name}_mask"] = mask
    if gated:
        for name in [name for name in state if ".mlp.fc1." in name]:
            gate, inner = state.pop(name).chunk(2)
            state[name.replace("fc1", "w1")], state[name.replace("fc1", "w2")] = gate, inner
        state = named(state, (r"mlp\.fc2", "mlp.w3"))
    return state


HUGGING_FACE = (
    (r"^(cls_token|mask_token)", r"embeddings.\1"),
    (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^reg_token", "embeddings.register_tokens"),
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^blocks", "encoder.layer"),
    (r"^norm\.", "layernorm."),
)
OF_VIT = (
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
    (r"attn\.proj", "attention.output.dense"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
)
OF_DINOV2 = (
    (r"attn\.proj", "attention.output.dense"),
    (r"ls(\d)\.gamma", r"layer_scale\1.lambda1"),
)
OF_DINOV3 = (
    (r"^(cls_token|mask_token)", r"embeddings.\1"),
    (r"^reg_token", "embeddings.register_tokens"),
    (r"^patch_embed\.proj", "embeddings.patch_embeddings"),
    (r"^blocks", "layer"),
    (r"attn\.proj", "attention.o_proj"),
    (r"ls(\d)\.gamma", r"layer_scale\1.lambda1"),
    (r"mlp\.fc1", "mlp.up_proj"),
    (r"mlp\.fc2", "mlp.down_proj"),
)
PARTS = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))


def in_hugging_face(state: dict, *patterns: tuple[str, str]) -> dict:
    return named(split(state, PARTS), *HUGGING_FACE, *patterns)


def hugging_face_dinov3() -> dict:
    torch.manual_seed(0)
    state = canonical_dinov3() | MASK
    del state["rope_embed.periods"]
    parts = tuple(f"attention.{part}_proj" for part in "qkv")
    return named(split(state, parts, without="k_proj"), *OF_DINOV3)


def timm_dinov3() -> dict:
    return timms_dinov3().state_dict()


def in_training(state: dict, heads: dict) -> dict:
    teacher, student = (
        at("teacher.", at("backbone.", state) | heads),
        at("backbone.", state) | heads,
    )
    return {"model": teacher | at("student.", student) | {"dino_loss.center": ONE}, "iteration": 9}


MOCO = {"num_heads": 12}
EXAMPLES = {
    "dino-vit": plain,
    "dino-vit-training": lambda: {
        "student": at("module.", at("backbone.", plain()) | {"head.mlp.0.weight": ONE}),
        "teacher": at("backbone.", plain()) | {"head.mlp.0.weight": ONE},
        "dino_loss": {},
        "epoch": 3,
    },
    "ibot-training": lambda: {
        "student": at("module.", at("backbone.", plain() | {"masked_embed": ONE})),
        "teacher": at("backbone.", plain()) | {"head.mlp.0.weight": ONE},
        "ibot_loss": {"center": ONE},
    },
    "ibot": lambda: {"state_dict": plain()},
    "ibot of scaled layers": lambda: {
        "state_dict": named(plain(init_values=1.0), (r"ls(\d)\.gamma", r"gamma_\1"))
    },
    "moco-v3-vit": lambda: {
        "arch": "vit_small",
        "state_dict": {
            **at("module.base_encoder.", plain(**MOCO) | {"head.0.weight": ONE}),
            **at("module.momentum_encoder.", plain(**MOCO) | {"head.0.weight": ONE}),
            "module.predictor.0.weight": ONE,
        },
    },
    "moco-v3-vit-head": lambda: {
        "arch": "vit_small",
        "best_acc1": 70.0,
        "state_dict": at("module.", plain(**MOCO) | HEAD),
    },
    "mae": lambda: {"model": plain() | DECODER, "optimizer": {}, "epoch": 1},
    "mae of its encoder": lambda: {"model": plain()},
    "mae of a fine-tuning": lambda: {
        "model": plain(final_norm=False) | {"fc_norm.weight": ONE, "fc_norm.bias": ONE} | HEAD
    },
    "dinov2": dinov2,
    "dinov2 of a giant's kind": lambda: dinov2(**SWIGLU),
    "dinov2-reg": lambda: dinov2(True),
    "dinov2-training": lambda: in_training(chunked(dinov2()), DINO_HEADS),
    "dinov2-teacher": lambda: {"teacher": at("backbone.", chunked(dinov2(**SWIGLU))) | DINO_HEADS},
    "dinov2-reg-training": lambda: in_training(dinov2(True), DINO_HEADS),
    "dinov2-reg-teacher": lambda: {"teacher": at("backbone.", dinov2(True)) | DINO_HEADS},
    "dinov3-vit": dinov3,
    "dinov3-vit of a gated kind": lambda: (
        dinov3(True) | {"local_cls_norm.weight": ONE, "local_cls_norm.bias": ONE}
    ),
    "dinov3-vit-training": lambda: {"teacher": at("backbone.", dinov3()) | DINO_HEADS},
    "lightly-train-vit": lambda: {
        "state_dict": {
            **at("teacher_embedding_model.wrapped_model._model.", dinov2()),
            **at("student_embedding_model.wrapped_model._model.", dinov2()),
            "teacher_head.dino_head.mlp.0.weight": ONE,
            "student_head.dino_head.mlp.0.weight": ONE,
        },
        "epoch": 2,
    },
    "lightly-train-vit-reg": lambda: {
        "state_dict": {
            **at("teacher_embedding_model.wrapped_model._model.", dinov2(True)),
            **at("student_embedding_model.wrapped_model._model.", dinov2(True)),
        },
    },
    "timm-vit": lambda: plain() | HEAD,
    "timm-vit-training": lambda: {
        "arch": "vit_small_patch16_224",
        "version": 2,
        "state_dict": plain() | HEAD,
    },
    "timm-dinov2": lambda: plain(reg_tokens=4, no_embed_class=True, init_values=1.0),
    "timm-dinov3-vit": timm_dinov3,
    "hugging-face-vit": lambda: (
        in_hugging_face(plain(), *OF_VIT) | {"pooler.dense.weight": ONE, "pooler.dense.bias": ONE}
    ),
    "hugging-face-vit of transformers 5, saved by torch": lambda: named(
        split(plain(), tuple(f"attention.{part}_proj" for part in "qkv")),
        *HUGGING_FACE,
        *(("encoder.layer", "layers"), ("attn.proj", "attention.o_proj"), *OF_VIT[:2]),
    ),
    "hugging-face-vit-head": lambda: {
        **at("vit.", in_hugging_face(plain(), *OF_VIT)),
        "classifier.weight": ONE,
    },
    "hugging-face-dinov2": lambda: in_hugging_face(plain(init_values=1.0) | MASK, *OF_DINOV2),
    "hugging-face-dinov2-head": lambda: {
        **at("dinov2.", in_hugging_face(plain(init_values=1.0) | MASK, *OF_DINOV2)),
        "classifier.weight": ONE,
    },
    "hugging-face-dinov2-reg": lambda: in_hugging_face(registers() | MASK, *OF_DINOV2),
    "hugging-face-dinov2-reg-head": lambda: {
        **at("dinov2_with_registers.", in_hugging_face(registers() | MASK, *OF_DINOV2)),
        "classifier.weight": ONE,
    },
    "hugging-face-dinov3-vit": hugging_face_dinov3,
}

EXPECTED = {
    # eps, heads, offset, antialias; as the projects' code has them
    "dino": (1e-6, 3, 0.1, False),
    "ibot": (1e-6, 3, 0.1, False),
    "moco": (1e-6, 12, 0.0, False),
    "mae": (1e-6, 3, 0.0, False),
    "dinov2": (1e-6, 3, 0.1, False),
    "dinov2-reg": (1e-6, 3, 0.0, True),
    "dinov3": (1e-5, 3, 0.0, False),
    "lightly": (1e-6, 3, 0.1, False),
    "lightly-train-vit-reg": (1e-6, 3, 0.0, True),
    "timm": (1e-6, 3, 0.0, True),
    "timm-dinov3": (1e-5, 3, 0.0, False),
    "hugging-face-vit": (1e-12, 3, 0.0, False),
    "hugging-face-dinov2": (1e-6, 3, 0.0, False),
    "hugging-face-dinov2-reg": (1e-6, 3, 0.0, True),
    "hugging-face-dinov3": (1e-5, 3, 0.0, False),
}


@pytest.fixture(params=EXAMPLES)
def example(request, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "source.pth"
    torch.save(EXAMPLES[request.param](), path)
    return request.param, path


def loaded(path):
    return from_pretraining(read_checkpoint(path), selfsup="auto", branch=None, prefix=None)


def test_files_are_recognised_and_every_key_is_accounted_for(example):
    name, path = example
    found = loaded(path)
    assert found.origin["layout"] == name.partition(" of ")[0]
    backbone = found.backbone
    assert not backbone.unknown
    keys = {key for key in found.found.state_dict}
    assert keys <= set(backbone.kept) | set(backbone.dropped)
    one = backbone.architecture
    assert (one.embed_dim, one.depth, one.patch_size) == (DIM, DEPTH, PATCH)
    expected = EXPECTED[max((n for n in EXPECTED if name.startswith(n)), key=len)]
    said = (one.norm_eps, one.num_heads, one.interpolate_offset, one.interpolate_antialias)
    assert said == expected
    assert one.grid == (0 if "dinov3" in name else GRID)
    assert one.swiglu == ("giant" in name or "gated" in name or name == "dinov2-teacher")


def test_tensors_are_where_they_belong(example):
    """Against timm's state dict, whatever the file called them and however it had cut them."""
    name, path = example
    if "dinov3" in name:
        torch.manual_seed(0)
        expected = canonical_dinov3("gated" in name) if "timm" not in name else None
    else:
        layered = "dinov2" in name or "lightly" in name or "scaled" in name
        options = {"init_values": 1.0} if layered else MOCO if "moco" in name else {}
        options |= SWIGLU if "giant" in name or name == "dinov2-teacher" else {}
        options |= {"final_norm": False} if "fine-tuning" in name else {}
        has_registers = "-reg" in name or name == "timm-dinov2"
        options |= {"reg_tokens": 4, "no_embed_class": True} if has_registers else {}
        expected = plain(**options)
        if "-reg" in name:
            del expected["pos_embed"]
    tensors = loaded(path).backbone.tensors
    for key, value in (expected or {}).items():
        # What no file holds is computed, by torch here and by numpy there.
        off = 1e-6 if "periods" in key else 0
        np.testing.assert_allclose(tensors[key], value.numpy(), rtol=off, atol=0, err_msg=key)
    assert expected is None or set(tensors) - {"pos_embed"} == set(expected) - {"pos_embed"}


def test_every_row_has_an_example():
    rows = [row.name for row in VIT_LAYOUTS]
    assert sorted({name.partition(" of ")[0] for name in EXAMPLES}) == sorted(rows)


AS_TIMM = ("dinov2", "dinov2-training", "lightly-train-vit", "ibot", "ibot-training")
"""Examples in which nothing has another name than timm's, as their projects' other files have."""


def test_a_broken_row_is_noticed(example, assert_noticed):
    name, path = example
    row = next(row for row in VIT_LAYOUTS if row.name == name.partition(" of ")[0])
    assert_noticed(row, path, () if row.renames and name not in AS_TIMM else None)


PROVED = ("moco-v3-vit", "dinov2-reg", "dinov3-vit of a gated kind", "mae")


@pytest.fixture(scope="module")
def proofs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    reports = {}
    for name in PROVED:
        torch.manual_seed(0)
        torch.save(EXAMPLES[name](), folder / f"{name}.pth")
        reports[name] = convert(folder / f"{name}.pth", folder / f"{name}.pkl")
    return folder, reports


@pytest.mark.parametrize("name", PROVED)
def test_the_proof_is_within_rounding_and_sees_every_mistake(proofs, name):
    proof = proofs[1][name].proof
    assert proof.tolerances == {"float64": 1e-10, "float32": 1e-4}
    assert len(proof.stages["float64"]) == 4 * 3  # three blocks and the norm, three sizes
    assert max(one.relative for one in proof.stages["float64"].values()) < 1e-13
    assert max(one.relative for one in proof.stages["float32"].values()) < 1e-5
    own = {
        "moco-v3-vit": "another number of heads",
        "dinov2-reg": "layer scale left at 1",
        "dinov3-vit of a gated kind": "rotary positions left out",
        "mae": "positions transposed",
    }
    assert own[name] in proof.controls and len(proof.controls) >= 6
    assert min(proof.controls.values()) > 100 * proof.tolerances["float32"], proof.controls


def test_the_provenance_says_what_no_tensor_shows(proofs):
    architecture = proofs[1]["moco-v3-vit"].provenance["architecture"]
    assert architecture == {
        "family": "vit",
        "name": "vit_192x3_patch4",
        "embed_dim": 192,
        "depth": 3,
        "num_heads": 12,
        "patch_size": 4,
        "mlp_dim": 768,
        "grid": 4,
        "class_position": True,
        "num_registers": 0,
        "layer_scale": False,
        "qkv_bias": True,
        "swiglu": False,
        "final_norm": True,
        "norm_eps": 1e-6,
        "interpolate_offset": 0.0,
        "interpolate_antialias": False,
    }
    assert proofs[1]["dinov2-reg"].provenance["architecture"]["num_registers"] == 4
    periods = proofs[1]["dinov3-vit of a gated kind"].provenance["rope_periods"]
    np.testing.assert_allclose(periods, 100 ** (np.arange(16) / 16), rtol=1e-6)
    assert "rope_periods" not in proofs[1]["mae"].provenance
    licenses = {
        name: report.provenance["license"].split(",")[0] for name, report in proofs[1].items()
    }
    assert licenses == {
        "moco-v3-vit": "CC-BY-NC-4.0",
        "dinov2-reg": "Apache-2.0",
        "dinov3-vit of a gated kind": "DINOv3 License",
        "mae": "CC-BY-NC-4.0",
    }


def test_a_converted_file_is_verified_against_its_source(proofs):
    folder, _ = proofs
    for name in ("moco-v3-vit", "dinov3-vit of a gated kind"):
        found = verify(folder / f"{name}.pkl", folder / f"{name}.pth")
        assert found.same_file and found.proof is not None


def test_the_same_names_are_of_whom_one_says(tmp_path):
    """DINO's, MAE's and timm's files without a head differ in nothing but who wrote them."""
    torch.save(plain(), tmp_path / "plain.pth")
    said = {}
    for method in ("auto", "timm", "mae", "mocov3"):
        report = convert(
            *(tmp_path / "plain.pth", tmp_path / "out.pkl"),
            selfsup=method,
            verify=False,
            dry_run=True,
        )
        one = report.provenance["architecture"]
        said[method] = (one["interpolate_offset"], one["interpolate_antialias"], one.get("assumed"))
    assert said == {
        "auto": (0.1, False, ["interpolate_antialias", "interpolate_offset", "num_heads"]),
        "timm": (0.0, True, ["num_heads"]),
        "mae": (0.0, False, ["num_heads"]),
        "mocov3": (0.0, False, None),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_embed.proj.0.weight": ONE}, "with a convolutional stem"),
        ({"dist_token": torch.ones(1, 1, DIM)}, "with a distillation token"),
        ({"blocks.0.attn.rel_pos_h": ONE}, "with relative positions"),
        ({"blocks.0.attn.q_norm.weight": ONE}, "with normed queries and keys"),
        ({"pos_embed": torch.ones(1, 19, DIM)}, "a position embedding of 19 tokens"),
        ({"blocks.1.mlp.fc1.weight": torch.ones(8, DIM)}, r"has shape \(8, 192\)"),
        ({"blocks.2.attn.qkv.weight": torch.ones(3 * DIM, DIM).int()}, "not floating"),
    ],
)
def test_what_is_no_plain_vit_is_said_in_a_line(tmp_path, changes, message):
    torch.save({"model": plain() | changes}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "odd.pth", tmp_path / "odd.pkl", selfsup="mae", verify=False)


@pytest.mark.parametrize(
    ("name", "dim", "depth", "heads"),
    [
        ("vit_tiny_patch16_224", 192, 12, 3),
        ("vit_small_patch14_dinov2", 384, 12, 6),
        ("vit_base_patch16_224", 768, 12, 12),
        ("vit_large_patch16_224", 1024, 24, 16),
        ("vit_huge_patch14_224", 1280, 32, 16),
        ("vit_giant_patch14_dinov2", 1536, 40, 24),
        ("vit_7b_patch16_dinov3", 4096, 40, 32),
        ("vit_huge_plus_patch16_dinov3_qkvb", 1280, 32, 20),
    ],
)
def test_the_papers_sizes_have_timms_heads(name, dim, depth, heads):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    assert network.blocks[0].attn.num_heads == heads
    shapes = {n: tuple(t.shape) for n, t in network.state_dict().items()}
    found, problems = VIT.closest(shapes)
    assert (found.embed_dim, found.depth, found.num_heads) == (dim, depth, heads)
    assert found.name.startswith(f"vit_{re.sub('huge_plus', 'huge', name).split('_')[1]}")
    if "dinov3" not in name:
        assert not problems
        assert found.mlp_dim == network.blocks[0].mlp.fc2.in_features


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sizes", [(14, 4), (14, 9), (4, 7), (37, 37), (5, 1)])
def test_positions_are_resized_as_torch_does_it(sizes, antialias):
    old, new = sizes
    values = torch.randn(1, 1, old, 6, generator=torch.Generator().manual_seed(0)).double()
    by_torch = F.interpolate(values, size=(new, 6), mode="bicubic", antialias=antialias)[0, 0]
    ours = _bicubic(old, new, new / old, antialias) @ values[0, 0].numpy()
    np.testing.assert_allclose(ours, by_torch, atol=1e-12)


def tensors_of(network: torch.nn.Module) -> dict:
    return {name: tensor.double() for name, tensor in network.state_dict().items()}


def test_the_reference_is_timms_network():
    """timm's whole networks, positions and rotations too, at the pretraining's size and at another."""
    for network, known, names in (
        (
            timms(reg_tokens=4, no_embed_class=True, init_values=1.0),
            {"interpolate_antialias": True},
            (),
        ),
        (timms(**SWIGLU), {"interpolate_antialias": True}, ()),
        (
            timms_dinov3(dynamic_img_size=True),
            {"norm_eps": 1e-5, "assumed": ["rope_periods"]},
            ((r"gamma_(\d)", r"ls\1.gamma"), (r"([qv])_bias", r"\1.bias")),
        ),
    ):
        network = network.double()
        values = named({n: t.numpy() for n, t in network.state_dict().items()}, *names)
        arrays, _ = VIT.merged(values, known)
        architecture, problems = VIT.closest({n: a.shape for n, a in arrays.items()}, known)
        assert not problems
        tensors = {n: torch.from_numpy(np.asarray(a, dtype=np.float64)) for n, a in arrays.items()}
        for size in ((16, 16), (12, 20)):
            image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)).double()
            ours = dict(forward(tensors, architecture, image))["last"]
            with torch.inference_mode():
                (theirs,) = network.forward_intermediates(
                    image, indices=1, norm=True, intermediates_only=True
                )
            # timm turns and resizes in float32.
            difference = (ours - theirs).abs().max() / theirs.abs().max()
            assert difference < (1e-6 if known.get("norm_eps") or size != (16, 16) else 1e-12), size


def test_a_patch_kernel_is_resampled_for_the_strides_of_a_pyramid():
    """Of 16, on an image enlarged by 16 / 14, it gives nearly what 14 gives; the file keeps its own."""
    torch.manual_seed(0)
    words = {"embed_dim": 64, "depth": 1, "num_heads": 1, "mlp_dim": 64, "grid": 5}
    before = build_vit(**words, patch_size=14).eval()
    after = build_vit(**words, patch_size=14, resample_patch=16).eval()
    smooth = F.interpolate(torch.randn(1, 3, 10, 10), size=(70, 70), mode="bicubic")
    kernel = F.interpolate(torch.randn(64, 3, 5, 5), size=(14, 14), mode="bicubic")
    before.vit.patch_embed.proj.weight.data = kernel
    after.load_state_dict(before.state_dict())
    large = F.interpolate(smooth, size=(80, 80), mode="bicubic", antialias=True)
    one, other = before(smooth)["last"], after(large)["last"]
    assert one.shape == other.shape == (1, 64, 5, 5)
    assert (one - other).abs().max() / one.abs().max() < 0.05
    assert after.output_shape()["last"].stride == 16


def test_a_text_beside_a_file_says_its_heads_and_its_images(tmp_path):
    """A network of a width that no paper has: three heads by 64 channels each, six by its text."""
    torch.manual_seed(0)
    torch.save(EXAMPLES["hugging-face-vit"](), tmp_path / "pytorch_model.bin")
    config = {"model_type": "vit", "hidden_size": DIM, "num_hidden_layers": DEPTH}
    config |= {"patch_size": PATCH, "num_attention_heads": 6, "layer_norm_eps": 1e-6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    images = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    report = convert(tmp_path / "pytorch_model.bin", tmp_path / "out.pkl")
    one = report.provenance["architecture"]
    assert (one["num_heads"], one["norm_eps"], one.get("assumed")) == (6, 1e-6, None)
    assert report.provenance["input"]["pixel_std"] == [63.75] * 3
    for field, value, message in (
        ("hidden_size", 384, "of another network: hidden_size is 384 there and 192"),
        ("hidden_act", "relu", "says hidden_act is relu"),
        ("num_attention_heads", 5, "said to have 5 heads, into which its 192 channels"),
        ("model_type", "resnet", "model_type is resnet there, and its tensors are a ViT's"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(InputError, match=message):
            convert(tmp_path / "pytorch_model.bin", tmp_path / "other.pkl", verify=False)


def test_a_user_says_what_no_tensor_shows(tmp_path):
    torch.save(plain(), tmp_path / "plain.pth")
    report = convert(
        *(tmp_path / "plain.pth", tmp_path / "out.pkl"), verify=False, network={"num_heads": 12}
    )
    one = report.provenance["architecture"]
    assert one["num_heads"] == 12 and "num_heads" not in one["assumed"]
    again = convert(tmp_path / "out.pkl", tmp_path / "back.pkl", detector=True, verify=False)
    assert again.provenance["architecture"] == one
    with pytest.raises(
        InputError, match="cannot be told its num_head: of a ViT --network says one of num_heads"
    ):
        convert(tmp_path / "plain.pth", tmp_path / "x.pkl", network={"num_head": 12})


def test_a_detectors_file_is_told_what_it_does_not_say(tmp_path):
    torch.save({"model": at("backbone.bottom_up.vit.", plain())}, tmp_path / "model_final.pth")
    told = {"num_heads": 12, "interpolate_offset": 0.1}
    out = tmp_path / "out.pkl"
    report = convert(tmp_path / "model_final.pth", out, detector=True, verify=False, network=told)
    one = report.provenance["architecture"]
    assert (one["num_heads"], one["interpolate_offset"]) == (12, 0.1)
    assert one["assumed"] == ["interpolate_antialias", "norm_eps"]


def test_a_file_of_another_word_is_verified_with_that_word(tmp_path):
    torch.save(plain(), tmp_path / "plain.pth")
    told = {"num_heads": 12}
    convert(tmp_path / "plain.pth", tmp_path / "out.pkl", network=told)
    with pytest.raises(InputError, match=r"says num_heads 12, and .* 3 by its layout: .*--network"):
        verify(tmp_path / "out.pkl", tmp_path / "plain.pth", proof=False)
    found = verify(tmp_path / "out.pkl", tmp_path / "plain.pth", network=told, proof=False)
    assert found.same_file


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"num_heads": 5}, "5 heads, into which its 192 channels"),
        ({"num_heads": True}, "True heads"),
        ({"norm_eps": 0}, "an eps of 0"),
        ({"interpolate_offset": 1}, "an offset of 1 and antialias False"),
        ({"interpolate_antialias": True}, "an offset of 0.1 and antialias True"),
        ({"interpolate_antialias": 1}, "antialias 1"),
    ],
)
def test_what_no_network_can_be_is_refused_without_another_way_out(tmp_path, network, message):
    torch.save(plain(), tmp_path / "plain.pth")
    with pytest.raises(InputError, match=f"{message}.*--network") as refusal:
        convert(tmp_path / "plain.pth", tmp_path / "out.pkl", network=network, verify=False)
    assert "--prefix" not in str(refusal.value) and not (tmp_path / "out.pkl").exists()


@pytest.mark.parametrize(
    "lie",
    [
        {"family": "unknown"},
        {"assumed": 5},
        {"assumed": [["a"]]},
        {"num_heads": "many"},
        {"norm_eps": {}},
        {"interpolate_antialias": "x"},
        {"patch_size": None},
    ],
)
def test_a_provenance_that_lies_is_one_line(proofs, tmp_path, lie):
    content = dict(read_checkpoint(proofs[0] / "mae.pkl").content)
    architecture = {**content["provenance"]["architecture"], **lie}
    content["provenance"] = {**content["provenance"], "architecture": architecture}
    (tmp_path / "lies.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match="a provenance whose architecture is none"):
        verify(tmp_path / "lies.pkl", proof=False)
    with pytest.raises(InputError, match="a provenance whose architecture is none"):
        check_provenance(content["provenance"], get_config("moco_1x"))


def test_parts_that_do_not_belong_together_are_no_tensor(tmp_path):
    state = EXAMPLES["hugging-face-vit"]()
    names = [f"encoder.layer.0.attention.attention.{part}.weight" for part in ("query", "key")]
    state[names[0]], state[names[1]] = state[names[0]][:64], torch.ones(2 * DIM - 64, DIM)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=r"attn\.q.*is not part of it|attn\.qkv.*is missing"):
        convert(tmp_path / "odd.pth", tmp_path / "odd.pkl", verify=False)


@pytest.mark.parametrize("name", ["dinov2-reg", "dinov3-vit"])
def test_a_prefix_takes_all_of_a_network_or_none(tmp_path, name):
    """Registers have other names there, and what no tensor shows is then assumed."""
    torch.manual_seed(0)
    torch.save({"w": at("net.", EXAMPLES[name]())}, tmp_path / "odd.pth")
    report = convert(tmp_path / "odd.pth", tmp_path / "odd.pkl", prefix="w/net.", verify=False)
    one = report.provenance["architecture"]
    assert one["num_registers"] == 4
    assert {"norm_eps", "interpolate_offset"} <= set(one["assumed"])


def test_a_network_without_positions_is_not_taken_for_a_rotary_one(tmp_path):
    state = plain()
    del state["pos_embed"]
    torch.save({"w": at("net.", state)}, tmp_path / "odd.pth")
    with pytest.raises(InputError):
        convert(tmp_path / "odd.pth", tmp_path / "odd.pkl", prefix="w/net.", verify=False)
