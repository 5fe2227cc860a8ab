"""A small file of every layout, with the names that the project's own classes give.

The networks are ResNet-50 with an eighth of its channels, so that whole files are quick to write and to
read. Every tensor is filled with a number of its own, which tells its network and its place in it.
To add a method, add an `example` at the end of its group.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import nn

TAKEN, OTHER, NEITHER = 1000, 2000, 3000  # what the numbers in a network start from
CLASSES = 5


def small(shape: torch.Size) -> tuple[int, ...]:
    return tuple(size // 8 if size >= 64 else size for size in shape)


with torch.device("meta"):
    RESNET = torchvision.models.resnet50(num_classes=CLASSES)
    CHILDREN = nn.Sequential(*list(RESNET.children())[:-1])
SHAPES = {
    name: small(tensor.shape)
    for name, tensor in RESNET.state_dict().items()
    if not name.startswith("fc.")
}
NUMBERS = {name: number for number, name in enumerate(SHAPES)}
AS_CHILDREN = dict(zip(SHAPES, CHILDREN.state_dict(), strict=True))


def backbone(prefix: str = "", start: int = TAKEN, names: dict | None = None, **more) -> dict:
    """A ResNet's state dict, its names behind `prefix`; `more` is what stands there as well."""
    tensors = {}
    for name, shape in SHAPES.items():
        if name.endswith("num_batches_tracked"):
            tensor = torch.tensor(7)
        else:
            tensor = torch.full(shape, float(start + NUMBERS[name]))
        tensors[prefix + (names[name] if names else name)] = tensor
    for part, module in more.items():
        tensors |= at(f"{prefix}{part}", module)
    return tensors


def at(prefix: str, module: nn.Module) -> dict:
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def ddp(*state_dicts: dict) -> dict:
    """As DistributedDataParallel names it."""
    return {f"module.{name}": tensor for part in state_dicts for name, tensor in part.items()}


def together(*state_dicts: dict) -> dict:
    return {name: tensor for part in state_dicts for name, tensor in part.items()}


def linear() -> nn.Module:
    return nn.Linear(4, 4)


def mlp(count: int = 2) -> nn.Module:
    """Linear layers with batch norm and ReLU between them."""
    layers = []
    for _ in range(count - 1):
        layers += [nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(4, 4))


def plain_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))


def parts(**modules: nn.Module) -> nn.Module:
    return nn.ModuleDict(modules)


def mlp2d() -> nn.Module:
    """PixPro's; its bn1 has the stem's size, so that only its name tells it from the stem's."""
    return parts(linear1=nn.Conv2d(4, 8, 1), bn1=nn.BatchNorm2d(8), linear2=nn.Conv2d(8, 4, 1))


def queue(name: str = "queue") -> dict:
    return {name: torch.randn(4, 6), f"{name}_ptr": torch.zeros(1, dtype=torch.long)}


OPTIMIZER = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
LIGHTNING = {
    "epoch": 99,
    "global_step": 1000,
    "pytorch-lightning_version": "1.5.0",
    "callbacks": {},
    "optimizer_states": [OPTIMIZER],
    "lr_schedulers": [],
    "hyper_parameters": {"method": "byol"},
}


@dataclass(frozen=True)
class Example:
    """A file of a layout.

    Attributes:
        method: what `auto` must call it.
        branches: every branch that can be asked for to what its numbers start from.
        legacy: whether the project wrote it with a torch before 1.6.
        can_be: where files of this row differ, what distinguishes this one.
    """

    layout: str
    method: str
    build: Callable[[], dict]
    branches: dict[str | None, int]
    legacy: bool = False
    can_be: str = ""

    def __str__(self) -> str:
        return f"{self.layout} {self.can_be}".strip()


ALONE = {None: TAKEN}
MOMENTUM = {None: TAKEN, "online": TAKEN, "momentum": OTHER}
STUDENT = {None: TAKEN, "teacher": TAKEN, "student": OTHER}
EXAMPLES: list[Example] = []


def example(layout: str, method: str, branches: dict = ALONE, **more):
    def add(build: Callable[[], dict]) -> Callable[[], dict]:
        EXAMPLES.append(Example(layout, method, build, branches, **more))
        return build

    return add


# MoCo and its kin


def moco_file(fc: Callable[[], nn.Module]) -> dict:
    state = ddp(backbone("encoder_q.", fc=fc()), backbone("encoder_k.", OTHER, fc=fc()), queue())
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": OPTIMIZER}


@example("moco", "moco", MOMENTUM, legacy=True, can_be="v1")
def moco_v1() -> dict:
    return moco_file(linear)


@example("moco", "moco", MOMENTUM, legacy=True, can_be="v2, PCL")
def moco_v2() -> dict:
    return moco_file(plain_mlp)


@example("moco-v3", "mocov3", MOMENTUM)
def moco_v3() -> dict:
    state = ddp(
        backbone("base_encoder.", fc=mlp()),
        backbone("momentum_encoder.", OTHER, fc=mlp()),
        at("predictor", mlp()),
    )
    content = {"epoch": 1000, "arch": "resnet50", "state_dict": state, "optimizer": OPTIMIZER}
    return content | {"scaler": {"scale": 65536.0}}


@example("resim", "resim", MOMENTUM)
def resim() -> dict:
    """A feature pyramid inside of the encoders, and none on the last stage's output."""
    pyramid = {f"fpn_lateral{level}": nn.Conv2d(4, 4, 1) for level in (5, 4, 3)}
    pyramid |= {f"fpn_output{level}": nn.Conv2d(4, 4, 3) for level in (4, 3)}
    encoders = (
        backbone("encoder_q.", fc=plain_mlp(), **pyramid),
        backbone("encoder_k.", OTHER, fc=plain_mlp(), **pyramid),
    )
    content = {"epoch": 200, "arch": "resnet50", "state_dict": ddp(*encoders, queue())}
    return content | {"optimizer": OPTIMIZER}


@example("msf", "msf", MOMENTUM)
def msf() -> dict:
    """DataParallel lies around each part and not around the whole."""
    state = together(
        backbone("encoder_q.module.", fc=mlp()),
        backbone("encoder_t.module.", OTHER, fc=mlp()),
        at("predict_q.module", mlp()),
        queue(),
        {"labels": torch.full((6,), -1)},
    )
    opt = Namespace(arch="resnet50", topk=5)
    return {"opt": opt, "state_dict": state, "optimizer": OPTIMIZER, "epoch": 200}


@example("slotcon", "slotcon", {None: TAKEN, "momentum": TAKEN, "online": OTHER})
def slotcon() -> dict:
    state = ddp(
        backbone("encoder_q.", OTHER),
        backbone("encoder_k."),
        *(at(f"projector_{which}", parts(mlp=mlp(3))) for which in "qk"),
        {"center": torch.zeros(1, 4)},
        *(at(f"grouping_{which}", parts(slot_embed=nn.Embedding(4, 4))) for which in "qk"),
        at("predictor_slot", parts(mlp=mlp(3))),
    )
    content = {"args": Namespace(arch="resnet50"), "model": state, "optimizer": OPTIMIZER}
    return content | {"scheduler": {"last_epoch": 1}, "epoch": 200, "scaler": {"scale": 65536.0}}


@example("seco", "seco", MOMENTUM)
def seco() -> dict:
    heads = nn.ModuleList([plain_mlp() for _ in range(3)])
    state = together(
        backbone("encoder_q.", names=AS_CHILDREN),
        backbone("encoder_k.", OTHER, AS_CHILDREN),
        at("heads_q", heads),
        at("heads_k", heads),
        queue(),
    )
    return LIGHTNING | {"state_dict": state}


# SwAV's repository


def swav_state(prototypes: nn.Module) -> dict:
    return ddp(backbone(projection_head=mlp(), prototypes=prototypes))


def several_prototypes() -> nn.Module:
    return parts(**{f"prototypes{i}": nn.Linear(4, 3, bias=False) for i in range(3)})


@example("swav", "swav", legacy=True)
def swav() -> dict:
    return swav_state(nn.Linear(4, 3, bias=False))


@example("swav-training", "swav")
def swav_training() -> dict:
    content = {"epoch": 26, "state_dict": swav(), "optimizer": OPTIMIZER}
    return content | {"amp": {"loss_scaler0": {"loss_scale": 65536.0}}}


@example("deepcluster-v2", "deepclusterv2", legacy=True)
def deepcluster_v2() -> dict:
    return swav_state(several_prototypes())


@example("deepcluster-v2-training", "deepclusterv2")
def deepcluster_v2_training() -> dict:
    return {"epoch": 26, "state_dict": deepcluster_v2(), "optimizer": OPTIMIZER}


# The backbone alone, and the training files of the projects that publish it so


@example("backbone", "backbone", can_be="of DINO, Barlow Twins, VICReg, VICRegL")
def published_backbone() -> dict:
    return backbone()


@example("dino-training", "dino", STUDENT)
def dino_training() -> dict:
    head = parts(
        mlp=nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)),
        last_layer=nn.utils.weight_norm(nn.Linear(4, 4, bias=False)),
    )
    return {
        "student": ddp(backbone("backbone.", OTHER), at("head", head)),
        "teacher": ddp(backbone("backbone."), at("head", head)),
        "optimizer": OPTIMIZER,
        "epoch": 100,
        "args": Namespace(arch="resnet50", out_dim=60000),
        "dino_loss": {"center": torch.zeros(1, 4)},
        "fp16_scaler": {"scale": 65536.0},
    }


@example("barlowtwins-training", "barlowtwins")
def barlowtwins_training() -> dict:
    """Its top-level bn has the stem's size, so that only its name tells it from the stem's."""
    state = ddp(
        backbone("backbone."), at("projector", mlp(3)), at("bn", nn.BatchNorm1d(8, affine=False))
    )
    return {"epoch": 1000, "model": state, "optimizer": OPTIMIZER}


@example("vicreg-training", "vicreg")
def vicreg_training() -> dict:
    state = ddp(backbone("backbone."), at("projector", mlp(3)))
    return {"epoch": 1000, "model": state, "optimizer": OPTIMIZER}


@example("vicregl-training", "vicregl")
def vicregl_training() -> dict:
    state = ddp(
        backbone("backbone."),
        at("maps_projector", mlp(3)),
        at("projector", mlp(3)),
        at("classifier", linear()),
    )
    return {"epoch": 300, "model": state, "optimizer": OPTIMIZER}


@example("simsiam", "simsiam")
def simsiam() -> dict:
    state = ddp(backbone("encoder.", fc=mlp(3)), at("predictor", mlp()))
    return {"epoch": 100, "arch": "resnet50", "state_dict": state, "optimizer": OPTIMIZER}


@example("augnet", "augnet")
def augnet() -> dict:
    return ddp(backbone("pre.", fc=linear()))


# Ports of BYOL and SimCLR to PyTorch


@example("byol-pytorch", "byol", MOMENTUM)
def byol_pytorch() -> dict:
    """The network is registered twice: by itself and inside the online encoder."""
    return together(
        backbone("net.", fc=linear()),
        backbone("online_encoder.net.", fc=linear()),
        at("online_encoder.projector", mlp()),
        backbone("target_encoder.net.", OTHER, fc=linear()),
        at("target_encoder.projector", mlp()),
        at("online_predictor", mlp()),
    )


@example("byol-pytorch-lightning", "byol", MOMENTUM)
def byol_pytorch_lightning() -> dict:
    state = {f"learner.{name}": tensor for name, tensor in byol_pytorch().items()}
    return LIGHTNING | {"state_dict": state}


@example("byol-sthalles", "byol", MOMENTUM)
def byol_sthalles() -> dict:
    projection = at("projetion", parts(net=mlp()))
    return {
        "online_network_state_dict": backbone("encoder.", names=AS_CHILDREN) | projection,
        "target_network_state_dict": backbone("encoder.", OTHER, AS_CHILDREN) | projection,
        "optimizer_state_dict": OPTIMIZER,
    }


@example("byol-yaox12", "byol", MOMENTUM)
def byol_yaox12() -> dict:
    head = parts(l1=linear(), bn1=nn.BatchNorm1d(8), l2=linear())
    state = ddp(
        backbone("online_network.encoder.", names=AS_CHILDREN),
        at("online_network.projetion", head),
        backbone("target_network.encoder.", OTHER, AS_CHILDREN),
        at("target_network.projetion", head),
        at("predictor.predictor", head),
    )
    content = {"config": {"model": {}}, "epoch": 300, "steps": 1000, "model": state}
    return content | {"optimizer": OPTIMIZER, "amp": {}}


@example("simclr-pytorch", "simclr")
def simclr_pytorch() -> dict:
    projection = parts(
        fc1=linear(), bn1=nn.BatchNorm1d(8), fc2=nn.Linear(4, 4, bias=False), bn2=nn.BatchNorm1d(4)
    )
    return {
        "state_dict": backbone("convnet.", fc=linear()) | at("projection", projection),
        "hparams": Namespace(arch="ResNet50", data="imagenet"),
        "opt_state_dict": OPTIMIZER,
        "iter": 100,
    }


def simclr_v2_name(name: str) -> str:
    """Where Separius' ResNet has the tensor that torchvision's calls `name`."""
    module, tensor = name.rsplit(".", 1)
    stem = {"conv1": "net.0.0", "bn1": "net.0.1.0"}
    if module in stem:
        return f"{stem[module]}.{tensor}"
    stage, block, layer = module.split(".", 2)
    place = {
        "conv1": "net.0",
        "bn1": "net.1.0",
        "conv2": "net.2",
        "bn2": "net.3.0",
        "conv3": "net.4",
        "bn3": "net.5.0",
        "downsample.0": "projection.shortcut",
        "downsample.1": "projection.bn.0",
    }[layer]
    return f"net.{stage[-1]}.blocks.{block}.{place}.{tensor}"


@example("simclr-v2", "simclrv2")
def simclr_v2() -> dict:
    names = {name: simclr_v2_name(name) for name in SHAPES}
    return {
        "resnet": backbone(names=names, fc=linear()),
        "head": at("layers", mlp(3)),
    }


@example("simclr-sthalles", "simclr")
def simclr_sthalles() -> dict:
    state = backbone("backbone.", fc=plain_mlp())
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": OPTIMIZER}


@example("simclr-spijkervet", "simclr")
def simclr_spijkervet() -> dict:
    projector = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    return backbone("encoder.") | at("projector", projector)


# Other networks by themselves, and averages of anybody's


@example("paws", "paws")
def paws() -> dict:
    """Its heads' batch norms have the stem's size, so that only their names tell them apart."""
    fc = parts(
        fc1=linear(), bn1=nn.BatchNorm1d(8), fc2=linear(), bn2=nn.BatchNorm1d(8), fc3=linear()
    )
    pred = parts(bn1=nn.BatchNorm1d(8), fc1=linear(), bn2=nn.BatchNorm1d(8), fc2=linear())
    return {
        "encoder": ddp(backbone(fc=fc, pred=pred)),
        "opt": OPTIMIZER,
        "epoch": 300,
        "unlabel_prob": 0.9,
        "loss": 1.5,
        "s_batch_size": 7,
        "u_batch_size": 64,
        "world_size": 64,
        "lr": 6.4,
        "temperature": 0.1,
        "amp": {"scale": 65536.0},
    }


@example("w-mse", "wmse")
def w_mse() -> dict:
    return backbone("model.module.") | at("head", mlp())


@example("spark-training", "spark")
def spark_training() -> dict:
    decoder = nn.ModuleList([nn.Conv2d(4, 4, 1) for _ in range(4)])
    state = together(
        backbone("sparse_encoder.sp_cnn."),
        at("dense_decoder", parts(dec=decoder, proj=nn.Conv2d(4, 3, 1))),
        at("densify_norms", nn.ModuleList([nn.BatchNorm1d(8) for _ in range(4)])),
        at("densify_projs", decoder),
        {f"mask_tokens.{level}": torch.zeros(1, 4, 1, 1) for level in range(4)},
        {"imn_m": torch.zeros(1, 3, 1, 1), "imn_s": torch.zeros(1, 3, 1, 1)},
        {"norm_black": torch.zeros(1, 3, 4, 4), "config": {"mask_ratio": 0.6, "sbn": True}},
    )
    return {
        "args": "{}",
        "input_size": 224,
        "arch": "resnet50",
        "epoch": 1599,
        "performance_desc": "0.5 0.5",
        "module": state,
        "optimizer": OPTIMIZER,
        "is_pretrain": True,
    }


def obow_name(name: str) -> str:
    """Where OBoW's feature extractor has the tensor that torchvision's ResNet calls `name`."""
    first, rest = name.split(".", 1)
    block = {"conv1": "0.Conv", "bn1": "0.bn"}.get(first, first.removeprefix("layer"))
    return f"_feature_blocks.{block}.{rest}"


OBOW = {name: obow_name(name) for name in SHAPES}


@example("obow-training", "obow", {None: TAKEN, "student": TAKEN, "teacher": OTHER})
def obow_training() -> dict:
    state = ddp(
        {"_alpha": torch.ones(1), "_iteration": torch.zeros(1)},
        backbone("feature_extractor.", names=OBOW),
        at("bow_predictor", parts(layers_w=nn.ModuleList([mlp()]))),
        backbone("feature_extractor_teacher.", OTHER, OBOW),
        {"bow_extractor.bow_extractor.0._embedding": torch.zeros(4, 4)},
        at("linear_classifier", parts(layers=mlp())),
    )
    return {"epoch": 200, "network": state, "meters": None}


@example("obow", "obow")
def obow() -> dict:
    return {"epoch": 200, "network": backbone(names=OBOW), "meters": None}


@example("obow-torchvision", "obow")
def obow_torchvision() -> dict:
    return {"network": backbone(fc=linear())}


@example("averaged-model", "averaged")
def averaged_model() -> dict:
    return ddp(backbone(fc=linear())) | {"n_averaged": torch.tensor(10)}


@example("averaged-model", "averaged", can_be="of DistributedDataParallel's and compiled")
def averaged_wrapped_model() -> dict:
    return ddp(backbone("module._orig_mod.")) | {"n_averaged": torch.tensor(10)}


@example("ema-pytorch", "ema", {None: TAKEN, "momentum": TAKEN, "online": OTHER})
def ema_pytorch() -> dict:
    state = {"initted": torch.tensor(1), "step": torch.tensor(1000)}
    return (
        state | backbone("online_model.", OTHER, fc=linear()) | backbone("ema_model.", fc=linear())
    )


# PyContrast and CMC


def pycontrast_file(heads: dict, *, momentum: bool) -> dict:
    content = {
        "model": ddp(backbone("encoder."), heads),
        "contrast": {"memory_1": torch.randn(6, 4)},
        "optimizer": OPTIMIZER,
        "epoch": 200,
    }
    if momentum:  # without DistributedDataParallel
        content["model_ema"] = backbone("encoder.", OTHER) | heads
    return content


def linear_head() -> dict:
    return at("head", nn.Sequential(linear()))


@example("pycontrast-linear", "insdis", {None: TAKEN, "online": TAKEN}, can_be="InsDis")
def insdis() -> dict:
    return pycontrast_file(linear_head(), momentum=False)


@example("pycontrast-linear", "insdis", MOMENTUM, can_be="MoCo")
def pycontrast_moco() -> dict:
    return pycontrast_file(linear_head(), momentum=True)


@example("pycontrast-mlp", "pycontrast_mocov2", MOMENTUM)
def pycontrast_moco_v2() -> dict:
    return pycontrast_file(at("head", plain_mlp()), momentum=True)


@example("pycontrast-jigsaw-linear", "pirl", {None: TAKEN, "online": TAKEN})
def pirl() -> dict:
    jigsaw = at("head_jig", parts(fc1=linear(), fc2=linear()))
    return pycontrast_file(linear_head() | jigsaw, momentum=False)


@example("pycontrast-jigsaw-linear", "pirl", MOMENTUM, can_be="with MoCo's memory")
def pirl_with_momentum() -> dict:
    jigsaw = at("head_jig", parts(fc1=linear(), fc2=linear()))
    return pycontrast_file(linear_head() | jigsaw, momentum=True)


@example("pycontrast-jigsaw-mlp", "infomin", MOMENTUM)
def infomin() -> dict:
    heads = at("head", plain_mlp()) | at("head_jig", parts(fc1=plain_mlp(), fc2=linear()))
    return pycontrast_file(heads, momentum=True)


@example("cmc-repository", "insdis", MOMENTUM, legacy=True)
def cmc_repository() -> dict:
    return {
        "opt": Namespace(model="resnet50"),
        "model": backbone("encoder.module.", fc=linear()),
        "model_ema": backbone("encoder.module.", OTHER, fc=linear()),
        "contrast": {"memory": torch.randn(6, 4)},
        "optimizer": OPTIMIZER,
        "epoch": 200,
    }


# Pretraining for dense tasks


def dense_file(*state_dicts: dict) -> dict:
    return {
        "opt": Namespace(arch="resnet50", amp_opt_level="O1"),
        "model": ddp(*state_dicts),
        "optimizer": OPTIMIZER,
        "scheduler": {"last_epoch": 100},
        "epoch": 100,
        "amp": {},
    }


@example("pixpro", "pixpro", MOMENTUM)
def pixpro() -> dict:
    return dense_file(
        backbone("encoder."),
        at("projector", mlp2d()),
        backbone("encoder_k.", OTHER),
        at("projector_k", mlp2d()),
        at("value_transform", nn.Conv2d(4, 4, 1)),
    )


@example("pixpro", "pixpro", MOMENTUM, can_be="published, with the loss on instances")
def pixpro_published() -> dict:
    heads = ("projector_instance", "projector_instance_k", "predictor")
    state = pixpro()["model"] | ddp(*(at(head, mlp2d()) for head in heads))
    return {"model": state}


def soco_mlp() -> nn.Module:
    return parts(linear1=linear(), bn1=nn.BatchNorm1d(8), linear2=linear())


def soco_heads() -> dict:
    return together(*(at(name, soco_mlp()) for name in ("projector", "projector_k", "predictor")))


@example("soco-c4", "soco", MOMENTUM)
def soco_c4() -> dict:
    return dense_file(backbone("encoder."), backbone("encoder_k.", OTHER), soco_heads(), queue())


@example("soco-fpn", "soco", MOMENTUM)
def soco_fpn() -> dict:
    pyramid = parts(lateral_convs=nn.ModuleList([parts(conv=nn.Conv2d(4, 4, 1))]))
    box_head = parts(shared_fcs=nn.ModuleList([linear(), linear()]))
    return dense_file(
        backbone("encoder."),
        at("neck", pyramid),
        at("head", box_head),
        backbone("encoder_k.", OTHER),
        at("neck_k", pyramid),
        at("head_k", box_head),
        soco_heads(),
    )


# OpenSelfSup, mmselfsup and what is built on them


def mm_file(*state_dicts: dict) -> dict:
    meta = {"epoch": 200, "iter": 1000, "mmcv_version": "1.0.3", "config": "model = dict()"}
    return {"meta": meta, "state_dict": together(*state_dicts), "optimizer": OPTIMIZER}


def mm_pair(first: str, second: str, neck: Callable[[], nn.Module], *more: dict) -> dict:
    """Two sequences of a backbone and a neck; the first's backbone is registered once more."""
    return mm_file(
        backbone(f"{first}.0."),
        at(f"{first}.1", neck()),
        backbone(f"{second}.0.", OTHER),
        at(f"{second}.1", neck()),
        backbone("backbone."),
        *more,
    )


def mm_average(average: str, neck: Callable[[], nn.Module], *more: dict) -> dict:
    """A backbone, a neck and mmengine's averaged model of both."""
    return mm_file(
        backbone("backbone."),
        at("neck", neck()),
        {f"{average}.steps": torch.tensor(1000)},
        backbone(f"{average}.module.0.", OTHER),
        at(f"{average}.module.1", neck()),
        *more,
    )


def nonlinear_neck() -> nn.Module:
    return parts(fc0=linear(), bn0=nn.BatchNorm1d(4), fc1=linear())


def moco_neck() -> nn.Module:
    return parts(mlp=plain_mlp())


def densecl_neck() -> nn.Module:
    convolutions = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    return parts(mlp=plain_mlp(), mlp2=convolutions)


def predictor() -> dict:
    return at("head.predictor", nonlinear_neck())


@example("openselfsup-moco", "openselfsup", MOMENTUM)
def openselfsup_moco() -> dict:
    return mm_pair("encoder_q", "encoder_k", moco_neck, queue())


@example("densecl", "densecl", MOMENTUM)
def densecl() -> dict:
    return mm_pair("encoder_q", "encoder_k", densecl_neck, queue(), queue("queue2"))


@example("openselfsup-byol", "openselfsup", MOMENTUM)
def openselfsup_byol() -> dict:
    return mm_pair("online_net", "target_net", nonlinear_neck, predictor())


@example("mmselfsup-0.x-simsiam", "mmselfsup")
def mmselfsup_old_simsiam() -> dict:
    neck = at("encoder.1", nonlinear_neck())
    return mm_file(backbone("encoder.0."), neck, backbone("backbone."), predictor())


@example("mmselfsup-0.x-mocov3", "mmselfsup", MOMENTUM)
def mmselfsup_old_moco_v3() -> dict:
    return mm_pair("base_encoder", "momentum_encoder", nonlinear_neck, predictor())


@example("mmselfsup-moco", "mmselfsup", MOMENTUM)
def mmselfsup_moco() -> dict:
    return mm_average("encoder_k", moco_neck, queue())


@example("mmselfsup-densecl", "mmselfsup", MOMENTUM)
def mmselfsup_densecl() -> dict:
    return mm_average("encoder_k", densecl_neck, queue(), queue("queue2"))


@example("mmselfsup-byol", "mmselfsup", MOMENTUM)
def mmselfsup_byol() -> dict:
    return mm_average("target_net", nonlinear_neck, predictor())


@example("mmselfsup-mocov3", "mmselfsup", MOMENTUM)
def mmselfsup_moco_v3() -> dict:
    return mm_average("momentum_encoder", nonlinear_neck, predictor())


@example("mmselfsup", "mmselfsup", can_be="SimCLR")
def mmselfsup_simclr() -> dict:
    return mm_file(backbone("backbone."), at("neck", nonlinear_neck()))


@example("mmselfsup", "mmselfsup", can_be="SwAV")
def mmselfsup_swav() -> dict:
    neck = at("neck.projection_neck", mlp())
    return mm_file(backbone("backbone."), neck, at("head.loss.prototypes", linear()))


@example("mmselfsup", "mmselfsup", can_be="NPID")
def openselfsup_npid() -> dict:
    bank = {"memory_bank.feature_bank": torch.randn(6, 4)}
    return mm_file(backbone("backbone."), at("neck.fc", linear()), bank)


@example("mm-classifier", "mmpretrain")
def rotation_prediction() -> dict:
    return mm_file(backbone("backbone."), at("head.fc_cls", linear()))


@example("mm-extracted", "mmselfsup")
def mm_extracted() -> dict:
    return {"state_dict": backbone(), "author": "MMSelfSup"}


@example("mmdet-backbone", "mmdet")
def mmdet_backbone() -> dict:
    return {"state_dict": backbone("backbone."), "meta": {}}


@example("selfsup2mmdet", "mmdet")
def selfsup2mmdet() -> dict:
    return {"state_dict": backbone(fc=plain_mlp())}


# Frameworks


def solo_file(name: str, *, momentum: bool) -> dict:
    state = together(
        backbone(f"{name}."),
        at("classifier", linear()),
        at("projector", mlp()),
        at("predictor", mlp()),
    )
    if momentum:
        state |= backbone(f"momentum_{name}.", OTHER)
        state |= at("momentum_projector", mlp()) | at("momentum_classifier", linear())
    return LIGHTNING | {"state_dict": state}


@example("solo-learn", "solo", MOMENTUM, can_be="BYOL")
def solo_byol() -> dict:
    return solo_file("backbone", momentum=True)


@example("solo-learn", "solo", {None: TAKEN, "online": TAKEN}, can_be="SimSiam")
def solo_simsiam() -> dict:
    return solo_file("backbone", momentum=False)


@example("solo-learn", "solo", MOMENTUM, can_be="All4One")
def solo_all4one() -> dict:
    content = solo_file("backbone", momentum=True)
    transformer = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(4, 1, 4), 1, enable_nested_tensor=False
    )
    content["state_dict"] |= at("predictor2", mlp()) | at("transformer_encoder", transformer)
    content["state_dict"] |= queue() | {"queue_y": torch.zeros(6), "queue_index": torch.zeros(6)}
    return content


@example("solo-learn", "solo", {None: TAKEN, "online": TAKEN}, can_be="DeepCluster v2")
def solo_deepcluster_v2() -> dict:
    content = solo_file("backbone", momentum=False)
    content["state_dict"] |= at("prototypes", nn.ModuleList([linear()]))
    content["state_dict"] |= {"local_memory_index": torch.zeros(6, dtype=torch.long)}
    content["state_dict"] |= {"local_memory_embeddings": torch.randn(2, 6, 4)}
    return content


@example("solo-learn-old", "solo", MOMENTUM)
def solo_old() -> dict:
    return solo_file("encoder", momentum=True)


def vissl_file(trunk: dict) -> dict:
    model = {"trunk": trunk, "heads": at("0.clf.0", linear())}
    base_model = {"model": model, "meta": {"trunk": {}, "heads": {}}}
    state = {"train": True, "base_model": base_model, "optimizer": {}, "loss": {}}
    return {
        "phase_idx": 99,
        "iteration": 1000,
        "loss": 0.5,
        "iteration_num": 10,
        "train_phase_idx": 99,
        "classy_state_dict": state,
        "type": "consolidated",
    }


@example("vissl", "vissl")
def vissl() -> dict:
    return vissl_file(backbone("_feature_blocks."))


@example("vissl-linear", "vissl")
def vissl_linear() -> dict:
    return vissl_file(backbone("base_model._feature_blocks."))


@example("vissl-model-state", "vissl")
def vissl_model_state() -> dict:
    return {"model_state_dict": backbone("_feature_blocks.")}


def lightly_file(*state_dicts: dict) -> dict:
    return LIGHTNING | {"state_dict": together(*state_dicts)}


def lightly_head(name: str) -> dict:
    return at(f"{name}.layers", mlp())


@example("lightly", "lightly", MOMENTUM, can_be="MoCo")
def lightly_moco() -> dict:
    return lightly_file(
        backbone("backbone.", names=AS_CHILDREN),
        lightly_head("projection_head"),
        backbone("backbone_momentum.", OTHER, AS_CHILDREN),
        lightly_head("projection_head_momentum"),
        {"criterion.memory_bank.bank": torch.randn(4, 6)},
    )


@example("lightly", "lightly", {None: TAKEN, "online": TAKEN}, can_be="SwAV")
def lightly_swav() -> dict:
    return lightly_file(
        backbone("backbone.", names=AS_CHILDREN),
        lightly_head("projection_head"),
        at("prototypes.heads.0", linear()),
    )


@example("lightly-dino", "lightly", STUDENT)
def lightly_dino() -> dict:
    return lightly_file(
        backbone("student_backbone.", OTHER, AS_CHILDREN),
        lightly_head("student_head"),
        backbone("teacher_backbone.", names=AS_CHILDREN),
        lightly_head("teacher_head"),
        {"criterion.center": torch.zeros(1, 4)},
    )


def lightly_benchmark(*state_dicts: dict) -> dict:
    classifier = at("online_classifier.classification_head", linear())
    return lightly_file(
        backbone("backbone."), lightly_head("projection_head"), classifier, *state_dicts
    )


@example("lightly-benchmark", "lightly")
def lightly_benchmark_swav() -> dict:
    return lightly_benchmark(at("prototypes.heads.0", linear()))


@example("lightly-benchmark-byol", "lightly", MOMENTUM)
def lightly_benchmark_byol() -> dict:
    return lightly_benchmark(
        lightly_head("prediction_head"),
        backbone("teacher_backbone.", OTHER),
        lightly_head("teacher_projection_head"),
    )


@example("lightly-benchmark-moco", "lightly", MOMENTUM)
def lightly_benchmark_moco() -> dict:
    return lightly_benchmark(backbone("key_backbone.", OTHER), lightly_head("key_projection_head"))


@example("lightly-benchmark-tico", "lightly", MOMENTUM)
def lightly_benchmark_tico() -> dict:
    return lightly_benchmark(
        backbone("backbone_momentum.", OTHER), lightly_head("projection_head_momentum")
    )


@example("lightly-benchmark-dino", "lightly", STUDENT)
def lightly_benchmark_dino() -> dict:
    return lightly_benchmark(
        backbone("student_backbone.", OTHER), lightly_head("student_projection_head")
    )


# lightly-train; its whole modules beside the state dict are in tests/conversion/containers


def lightly_train(*state_dicts: dict) -> dict:
    models = {"lightly_train": {"version": "0.6.0", "models": {}, "normalize_args": {}}}
    return LIGHTNING | {"state_dict": together(*state_dicts)} | models


def embedding_model(prefix: str, start: int = TAKEN) -> dict:
    return backbone(f"{prefix}.wrapped_model._features.", start)


@example("lightly-train", "lightly_train", {None: TAKEN, "online": TAKEN}, can_be="SimCLR")
def lightly_train_simclr() -> dict:
    return lightly_train(
        embedding_model("embedding_model"),
        at("embedding_model.embed_head", nn.Conv2d(4, 4, 1)),
        lightly_head("projection_head"),
    )


@example("lightly-train", "lightly_train", MOMENTUM, can_be="DetCon-B")
def lightly_train_detcon() -> dict:
    return lightly_train(
        embedding_model("embedding_model"),
        lightly_head("projection_head"),
        lightly_head("prediction_head"),
        embedding_model("embedding_model_momentum", OTHER),
        lightly_head("projection_head_momentum"),
    )


@example("lightly-train-dino", "lightly_train", STUDENT)
def lightly_train_dino() -> dict:
    return lightly_train(
        embedding_model("teacher_embedding_model"),
        lightly_head("teacher_projection_head"),
        embedding_model("student_embedding_model", OTHER),
        lightly_head("student_projection_head"),
        {"criterion.center": torch.zeros(1, 4)},
    )


@example("lightly-train-distillation", "lightly_train")
def lightly_train_distillation() -> dict:
    return lightly_train(
        {"teacher_queue": torch.zeros(4, 4)},
        embedding_model("student_embedding_model"),
        at("student_projection_head", linear()),
    )


@example("lightly-train-densecl", "lightly_train", MOMENTUM)
def lightly_train_densecl() -> dict:
    return lightly_train(
        embedding_model("query_encoder.embedding_model"),
        lightly_head("query_encoder.local_projection_head"),
        lightly_head("query_encoder.global_projection_head"),
        embedding_model("key_encoder.embedding_model", OTHER),
        lightly_head("key_encoder.local_projection_head"),
        lightly_head("key_encoder.global_projection_head"),
        {"memory_bank.bank": torch.zeros(4, 4)},
        {"global_criterion.memory_bank.bank": torch.zeros(4, 4)},
    )


# Supervised controls


@example("sequential", "backbone", can_be="RadImageNet's")
def sequential() -> dict:
    return backbone("backbone.", names=AS_CHILDREN)


@example("torchvision", "torchvision")
def torchvision_file() -> dict:
    return backbone(fc=linear())


@example("classifier-training", "torchvision")
def imagenet_example() -> dict:
    state = ddp(backbone(fc=linear()))
    content = {"epoch": 90, "arch": "resnet50", "state_dict": state, "best_acc1": 76.0}
    return content | {"optimizer": OPTIMIZER, "scheduler": {"last_epoch": 90}}


@example("timm-training", "timm", MOMENTUM)
def timm_training() -> dict:
    return {
        "epoch": 300,
        "arch": "resnet50",
        "state_dict": backbone(fc=linear()),
        "optimizer": OPTIMIZER,
        "version": 2,
        "args": Namespace(model="resnet50"),
        "amp_scaler": {},
        "state_dict_ema": backbone(start=OTHER, fc=linear()),
        "metric": 79.0,
    }


@example("torchvision-training", "torchvision")
def torchvision_training() -> dict:
    return {
        "model": backbone(fc=linear()),
        "optimizer": OPTIMIZER,
        "lr_scheduler": {"last_epoch": 90},
        "epoch": 89,
        "args": Namespace(model="resnet50"),
    }


def hugging_face_name(name: str) -> str:
    """Where transformers' ResNetModel has the tensor that torchvision's calls `name`."""
    module, tensor = name.rsplit(".", 1)
    stem = {"conv1": "convolution", "bn1": "normalization"}
    if module in stem:
        return f"embedder.embedder.{stem[module]}.{tensor}"
    stage, block, layer = module.split(".", 2)
    block = f"encoder.stages.{int(stage[-1]) - 1}.layers.{block}"
    if layer.startswith("downsample"):
        return f"{block}.shortcut.{['convolution', 'normalization'][int(layer[-1])]}.{tensor}"
    kind = "convolution" if layer.startswith("conv") else "normalization"
    return f"{block}.layer.{int(layer[-1]) - 1}.{kind}.{tensor}"


HUGGING_FACE = {name: hugging_face_name(name) for name in SHAPES}


@example("hugging-face-model", "huggingface")
def hugging_face_model() -> dict:
    return backbone(names=HUGGING_FACE)


@example("hugging-face-classifier", "huggingface")
def hugging_face_classifier() -> dict:
    return backbone("resnet.", names=HUGGING_FACE) | at("classifier.1", linear())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "sample" in metafunc.fixturenames:
        metafunc.parametrize("sample", EXAMPLES, ids=str)


@pytest.fixture(scope="session")
def make() -> Callable[..., dict]:
    """Builds a ResNet's state dict, for files that no project writes."""
    return backbone


@pytest.fixture(scope="session")
def samples() -> dict[str, Example]:
    """An example of every layout by the layout's name: one that has all of its branches."""
    return {one.layout: one for one in sorted(EXAMPLES, key=lambda one: len(one.branches))}


@pytest.fixture
def names_of_examples() -> dict[str, object]:
    """What an example is written with; one that is made of it lies under "built", and is not added."""
    names = dict(globals())
    names["example"] = lambda *words, **more: lambda build: names.setdefault("built", build)
    return names


@pytest.fixture(scope="session")
def expected() -> Callable[[int], dict[str, float]]:
    """From what a network's numbers start from to the number that fills each of its tensors."""

    def numbers(start: int) -> dict[str, float]:
        names = (name for name in SHAPES if not name.endswith("num_batches_tracked"))
        return {name: float(start + NUMBERS[name]) for name in names}

    return numbers


@pytest.fixture(scope="session")
def as_arrays() -> Callable[[object], object]:
    """What the reader makes of a file's content: numpy arrays where tensors were."""

    def convert(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return value.numpy()
        if isinstance(value, dict):
            return {key: convert(entry) for key, entry in value.items()}
        return value

    return convert
