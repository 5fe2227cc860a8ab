"""How each pretraining project lays out its checkpoints: a row of data each.

Names in a row are dotted; a `*` stands for anything within one part, a leading `**` for any parts, and
a name stands for itself and all below it: `encoder_k` covers `encoder_k.conv1.weight` and never
`encoder_k2.conv1.weight`. What DistributedDataParallel (`module.`), torch.compile (`_orig_mod.`) and other
wrappers (`searching.WRAPPERS`) put into names is not written in rows: it is taken off wherever it stands.

Adding a method is adding a row here and an example in tests/conversion/layouts/conftest.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

IMAGENET_INPUT = {
    "format": "RGB",
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "stride_in_1x1": False,
}
"""torchvision's ToTensor and ImageNet statistics, times 255: what nearly all rows train with."""

UNIT_INPUT = IMAGENET_INPUT | {"pixel_mean": [0.0, 0.0, 0.0], "pixel_std": [255.0, 255.0, 255.0]}
"""Colours between 0 and 1 and no statistics, as SimCLR trains."""

HALF_INPUT = IMAGENET_INPUT | {"pixel_mean": [127.5] * 3, "pixel_std": [127.5] * 3}
"""Colours from -1 to 1."""

ASSUMED_INPUT = IMAGENET_INPUT | {"assumed": True}
"""Nothing tells who trained on what: ImageNet's statistics are the likeliest, and are said to be a guess."""

Renames = tuple[tuple[str, str], ...]
"""From and to, one after the other; each `*` of the second is what that of the first stood for."""


@dataclass(frozen=True)
class Network:
    """Where one of a file's two networks lies, and what it is called on the command line."""

    branch: str
    container: tuple[str, ...]
    prefix: str


@dataclass(frozen=True)
class Layout:
    """Where a project's checkpoints keep a network.

    Attributes:
        family: of the network, a name of `families.FAMILIES`.
        name: stands in the provenance.
        selfsup: what the command line calls it, also the provenance's method.
        methods: the published methods whose files look like this; where they are several, nothing in
            a file tells them apart.
        source: the project's code that writes such files, as it was read for this row.
        container: keys that lead from the top of the file to the state dict.
        prefix: of the backbone's names, ending in a dot; empty where there is none.
        signature: names that a file of this layout holds.
        absent: names that it does not hold, for they would make it another layout's.
        entries: names that stand beside the state dict; `no_entries` names those that do not.
        closed: whether nothing but the backbone and what is dropped may stand in the state dict.
        branch: which of two networks `prefix` leads to; empty where a file holds one.
        other: the other network, `None` where a file holds one.
        duplicate: prefix of a second copy of the very same weights; empty where there is none.
        renames: makes the names behind `prefix` the family's, where they are not.
        inside: names behind `prefix` that are left out, each with the reason.
        drops: names of the state dict that are left out on purpose, each with the reason.
        beside: entries of the file beside the state dict, each with the reason to leave it out.
        input: how the network wants its images, as the provenance says it.
        inputs: another `input`, by the name that the command line asked for.
        network: what its code says of the network and no tensor shows, such as the heads of a ViT.
        networks: another `network`, by the name that the command line asked for.
        license: what the project states of its published weights; empty where that was not read.
        also: other names that the command line takes for it.
        traps: what goes wrong in conversions that know less.
        inferred: what of this row was concluded and not read; empty where all was read.
    """

    name: str
    selfsup: str
    methods: tuple[str, ...]
    source: str
    container: tuple[str, ...]
    prefix: str
    signature: tuple[str, ...]
    family: str = "resnet"
    absent: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    no_entries: tuple[str, ...] = ()
    closed: bool = False
    branch: str = ""
    other: Network | None = None
    duplicate: str = ""
    renames: Renames = ()
    inside: Mapping[str, str] = field(default_factory=dict)
    drops: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=lambda: TRAINING)
    input: Mapping[str, object] = field(default_factory=lambda: IMAGENET_INPUT)
    inputs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    network: Mapping[str, object] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    license: str = ""
    also: tuple[str, ...] = ()
    traps: tuple[str, ...] = ()
    inferred: str = ""

    @property
    def selfsup_names(self) -> tuple[str, ...]:
        return (self.selfsup, *self.also)


def covers(pattern: str, key: str) -> bool:
    """Whether `pattern` names `key` or something above it, part by part."""
    return _matcher(pattern).match(key) is not None


def reason_to_drop(reasons: Mapping[str, str], key: str) -> str | None:
    return next((reason for pattern, reason in reasons.items() if covers(pattern, key)), None)


def renamed(name: str, renames: Renames) -> str:
    """`name` after every rename that applies to it, in their order."""
    for old, new in renames:
        if match := _matcher(old).match(name):
            kept = iter(match.groups())
            start = re.sub(r"\*", lambda _, kept=kept: next(kept), new)
            name = start + name[match.end() :]
    return name


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> re.Pattern:
    """Matches a name's beginning up to the end of a part; groups are what the `*` stand for."""
    before = r"(?:.*\.)?" if pattern.startswith("**.") else ""
    parts = map(re.escape, pattern.removeprefix("**.").split("*"))
    return re.compile(rf"{before}{'([^.]*)'.join(parts)}(?=\.|\Z)", re.DOTALL)


_STATE = "state of the training"
TRAINING = dict.fromkeys(
    (
        *("epoch", "iter", "iteration", "steps", "step", "global_step", "arch", "args", "opt"),
        *("config", "hparams", "meta", "version", "metric", "author", "best_acc1", "best_prec1"),
        *("optimizer", "optimizer_state_dict", "opt_state_dict", "optimizer_states"),
        *("scheduler", "lr_scheduler", "lr_schedulers", "param_schedulers", "sampler"),
        *("amp", "scaler", "amp_scaler", "fp16_scaler", "native_amp_scaling_state"),
        # Lightning's and mmengine's
        *("callbacks", "loops", "pytorch-lightning_version", "hyper_parameters", "hparams_name"),
        *("hparams_type", "datamodule_hyper_parameters", "MixedPrecision", "message_hub"),
        # VISSL's, on the way down to the state dict
        *("phase_idx", "train_phase_idx", "iteration_num", "loss", "type", "train", "progress"),
    ),
    _STATE,
)
"""Entries that training code of every project writes beside the networks."""

_HEAD = "head of the pretraining"
_PROJECTOR = "projection head of the pretraining"
_PREDICTOR = "prediction head of the pretraining"
_MOMENTUM_HEAD = "head of the other network"
_QUEUE = "queue of negatives"
_PYRAMID = "feature pyramid of the pretraining, which a Mask R-CNN has under other names"
_PROTOTYPES = "prototypes of the pretraining"
_CLASSIFIER = "classifier"
_UNUSED = "classifier of the plain network, which the pretraining does not use"

_TWICE = "the very same weights stand under two names; both are compared"
_MOMENTUM_TRAP = "the momentum network has the same names and shapes under another prefix"

# Children of torchvision's ResNet by number, as nn.Sequential(*list(resnet.children())[:-1]) has them.
INDEX_NAMES: Renames = (
    ("0", "conv1"),
    ("1", "bn1"),
    ("4", "layer1"),
    ("5", "layer2"),
    ("6", "layer3"),
    ("7", "layer4"),
)

HUGGING_FACE_NAMES: Renames = (
    ("embedder.embedder.convolution", "conv1"),
    ("embedder.embedder.normalization", "bn1"),
    ("encoder.stages.0.layers", "layer1"),
    ("encoder.stages.1.layers", "layer2"),
    ("encoder.stages.2.layers", "layer3"),
    ("encoder.stages.3.layers", "layer4"),
    ("layer*.*.layer.0.convolution", "layer*.*.conv1"),
    ("layer*.*.layer.0.normalization", "layer*.*.bn1"),
    ("layer*.*.layer.1.convolution", "layer*.*.conv2"),
    ("layer*.*.layer.1.normalization", "layer*.*.bn2"),
    ("layer*.*.layer.2.convolution", "layer*.*.conv3"),
    ("layer*.*.layer.2.normalization", "layer*.*.bn3"),
    ("layer*.*.shortcut.convolution", "layer*.*.downsample.0"),
    ("layer*.*.shortcut.normalization", "layer*.*.downsample.1"),
)

SIMCLR_V2_NAMES: Renames = (
    ("net.0.0", "conv1"),
    ("net.0.1.0", "bn1"),
    ("net.*.blocks.*.net.0", "layer*.*.conv1"),
    ("net.*.blocks.*.net.1.0", "layer*.*.bn1"),
    ("net.*.blocks.*.net.2", "layer*.*.conv2"),
    ("net.*.blocks.*.net.3.0", "layer*.*.bn2"),
    ("net.*.blocks.*.net.4", "layer*.*.conv3"),
    ("net.*.blocks.*.net.5.0", "layer*.*.bn3"),
    ("net.*.blocks.*.projection.shortcut", "layer*.*.downsample.0"),
    ("net.*.blocks.*.projection.bn.0", "layer*.*.downsample.1"),
)

_SWAV = "https://github.com/facebookresearch/swav"
_SWAV_TRAP = (
    "the stem pads in a layer of its own (1) and then convolves with padding 2, which is padding 3: the "
    "weights are taken unchanged",
    "RN50w2 has ResNet-50's names; only its shapes tell",
)
_SWAV_DROPS = {"projection_head": _PROJECTOR, "prototypes": _PROTOTYPES}
_OTHER_PROJECTS = (
    "backbone",
    "student_backbone",
    "teacher_backbone",
    "embedding_model",
)  # lightly and lightly-train have these heads too

_PYCONTRAST = (
    "https://github.com/HobbitLong/PyContrast: pycontrast/learning/contrast_trainer.py, "
    "networks/build_backbone.py, options/base_options.py"
)
_PYCONTRAST_ROW = {
    "source": _PYCONTRAST,
    "container": ("model",),
    "prefix": "encoder.",
    "branch": "online",
    "other": Network("momentum", ("model_ema",), "encoder."),
    "drops": {"head": _PROJECTOR, "head_jig": "jigsaw head of the pretraining"},
    "beside": TRAINING | {"contrast": "memory bank or queue of negatives"},
    "traps": ("model has `module.encoder.`, model_ema has `encoder.` without `module.`",),
}

_MM_DROPS = {
    "neck": _PROJECTOR,
    "head": _HEAD,
    "memory_bank": "memory bank of the pretraining",
    "data_preprocessor": "statistics of the input",
    "queue": _QUEUE,
    "queue_ptr": _QUEUE,
    "queue2": "queue of dense negatives",
    "queue2_ptr": "queue of dense negatives",
}
_OPENSELFSUP = "https://github.com/open-mmlab/OpenSelfSup: openselfsup/models/"
_MMSELFSUP = "https://github.com/open-mmlab/mmselfsup: mmselfsup/models/algorithms/"
_MM_RESNET = {
    "container": ("state_dict",),
    "prefix": "backbone.",
    "traps": (
        "the optimizer, data order and arguments beside it hold objects of mmcv or mmengine",
    ),
}
_MM_TWICE = _MM_RESNET | {"traps": (*_MM_RESNET["traps"], _TWICE)}

_SOLO_ROW = {
    "selfsup": "solo",
    "methods": (
        *("BYOL", "MoCo v2+", "MoCo v3", "DINO", "Barlow Twins", "SwAV", "SimCLR", "SimSiam"),
        *("NNCLR", "VICReg", "VIbCReg", "W-MSE", "DeepCluster v2", "ReSSL", "SupCon", "NNBYOL"),
        *("NNSiam", "All4One"),
    ),
    "container": ("state_dict",),
    "branch": "online",
    "drops": {
        "projector": _PROJECTOR,
        "momentum_projector": _MOMENTUM_HEAD,
        "predictor*": _PREDICTOR,
        "head": _HEAD,
        "momentum_head": _MOMENTUM_HEAD,
        "classifier": "online classifier",
        "momentum_classifier": _MOMENTUM_HEAD,
        "prototypes*": _PROTOTYPES,
        "queue*": _QUEUE,
        "whitening": _HEAD,
        "dino_loss_func": "state of the loss",
        "transformer_encoder": _HEAD,
        "pos_enc": _HEAD,
        "local_memory_*": "memory bank of the pretraining",
    },
    "traps": (
        "with CIFAR the stem is a 3x3 convolution: refused",
        "the name momentum_backbone ends like backbone",
    ),
}

_LIGHTLY = "https://github.com/lightly-ai/lightly: "
_LIGHTLY_ROW = {
    "selfsup": "lightly",
    "container": ("state_dict",),
    "drops": {
        "projection_head": _PROJECTOR,
        "prediction_head": _PREDICTOR,
        "projection_head_momentum": _MOMENTUM_HEAD,
        "prediction_head_momentum": _MOMENTUM_HEAD,
        "teacher_projection_head": _MOMENTUM_HEAD,
        "student_projection_head": _MOMENTUM_HEAD,
        "key_projection_head": _MOMENTUM_HEAD,
        "student_head": _PROJECTOR,
        "teacher_head": _PROJECTOR,
        "prototypes": _PROTOTYPES,
        "queues": _QUEUE,
        "memory_bank": _QUEUE,
        "criterion": "state of the loss",
        "online_classifier": "online classifier",
        "knn_classifier": "online classifier",
    },
}
_LIGHTLY_BENCHMARK = _LIGHTLY_ROW | {"prefix": "backbone."}
_LIGHTLY_MODULES = ("teacher_backbone", "student_backbone", "key_backbone", "backbone_momentum")

_VISSL = "https://github.com/facebookresearch/vissl: vissl/models/trunks/resnext.py, "
_VISSL_ROW = {
    "selfsup": "vissl",
    "methods": (
        *("SimCLR", "SwAV", "MoCo v2", "PIRL", "NPID", "NPID++", "Jigsaw", "RotNet"),
        *("DeepCluster v2", "ClusterFit", "Barlow Twins", "BYOL", "DINO", "supervised"),
    ),
    "beside": TRAINING | {"heads": _HEAD},
    "traps": (
        "files that were made from Caffe2's (goyal19, caffe2 in the name) have their stride in the 1x1 "
        "convolution and may want BGR, and no tensor shows it",
    ),
    "inferred": "that Caffe2's ResNets have their stride in the 1x1 convolution",
}

_SPARK = "https://github.com/keyu-tian/SparK: "
_OBOW = "https://github.com/valeoai/obow: "
_OBOW_NAMES: Renames = (
    ("_feature_blocks.0.Conv", "conv1"),
    ("_feature_blocks.0.bn", "bn1"),
    ("_feature_blocks.1", "layer1"),
    ("_feature_blocks.2", "layer2"),
    ("_feature_blocks.3", "layer3"),
    ("_feature_blocks.4", "layer4"),
)
_OBOW_ROW = {
    "selfsup": "obow",
    "methods": ("OBoW",),
    "container": ("network",),
    "beside": TRAINING | {"meters": _STATE},
}

_LIGHTLY_TRAIN = (
    "https://github.com/lightly-ai/lightly-train: src/lightly_train/_callbacks/checkpoint.py, "
    "_models/embedding_model.py, _models/torchvision/resnet.py, "
)
_LIGHTLY_TRAIN_ROW = {
    "selfsup": "lightly_train",
    "container": ("state_dict",),
    "drops": {
        "**.embed_head": _PROJECTOR,
        "projection_head": _PROJECTOR,
        "prediction_head": _PREDICTOR,
        "projection_head_momentum": _MOMENTUM_HEAD,
        "student_projection_head": _PROJECTOR,
        "teacher_projection_head": _MOMENTUM_HEAD,
        "query_encoder.local_projection_head": _PROJECTOR,
        "query_encoder.global_projection_head": _PROJECTOR,
        "key_encoder.local_projection_head": _MOMENTUM_HEAD,
        "key_encoder.global_projection_head": _MOMENTUM_HEAD,
        "criterion": "state of the loss",
        "local_criterion": "state of the loss",
        "global_criterion": "state of the loss",
        "memory_bank": _QUEUE,
        "teacher_queue": _QUEUE,
    },
    "beside": TRAINING
    | {"lightly_train": "the same networks as Python objects, which are not read"},
}

LAYOUTS = (
    # MoCo and its kin
    Layout(
        name="moco",
        selfsup="moco",
        methods=("MoCo v1", "MoCo v2", "PCL v1", "PCL v2"),
        source="https://github.com/facebookresearch/moco: main_moco.py, moco/builder.py; "
        "https://github.com/salesforce/PCL: main_pcl.py, pcl/builder.py",
        container=("state_dict",),
        prefix="encoder_q.",
        signature=("encoder_q",),
        absent=("encoder_q.0", "encoder_q.fpn_lateral5", "encoder_t", "grouping_q"),
        branch="online",
        other=Network("momentum", ("state_dict",), "encoder_k."),
        inside={"fc": _PROJECTOR},
        drops={"queue": _QUEUE, "queue_ptr": _QUEUE},
        also=("pcl",),
        traps=(_MOMENTUM_TRAP,),
    ),
    Layout(
        name="moco-v3",
        selfsup="mocov3",
        methods=("MoCo v3",),
        source="https://github.com/facebookresearch/moco-v3: main_moco.py, moco/builder.py",
        container=("state_dict",),
        prefix="base_encoder.",
        signature=("base_encoder", "momentum_encoder"),
        absent=("base_encoder.0", "backbone"),
        branch="online",
        other=Network("momentum", ("state_dict",), "momentum_encoder."),
        inside={"fc": _PROJECTOR},
        drops={"predictor": _PREDICTOR},
        traps=(_MOMENTUM_TRAP, "Vision Transformers come in the same container"),
    ),
    Layout(
        name="resim",
        selfsup="resim",
        methods=("ReSim",),
        source="https://github.com/Tete-Xiao/ReSim: main_moco.py, moco/builder.py, moco/models.py",
        container=("state_dict",),
        prefix="encoder_q.",
        signature=("encoder_q.fpn_lateral5", "encoder_k.fpn_lateral5"),
        branch="online",
        other=Network("momentum", ("state_dict",), "encoder_k."),
        inside={"fc": _PROJECTOR, "fpn_lateral*": _PYRAMID, "fpn_output*": _PYRAMID},
        drops={"queue": _QUEUE, "queue_ptr": _QUEUE},
        traps=(_MOMENTUM_TRAP, "a feature pyramid stands inside the encoder"),
    ),
    Layout(
        name="msf",
        selfsup="msf",
        methods=("MSF",),
        source="https://github.com/UMBCvision/MSF: train_msf.py",
        container=("state_dict",),
        prefix="encoder_q.",
        signature=("encoder_q", "encoder_t", "predict_q"),
        branch="online",
        other=Network("momentum", ("state_dict",), "encoder_t."),
        inside={"fc": _PROJECTOR},
        drops={
            "encoder_t.fc": _MOMENTUM_HEAD,
            "predict_q": _PREDICTOR,
            "queue": _QUEUE,
            "queue_ptr": _QUEUE,
            "labels": "labels of the queue",
        },
        traps=(_MOMENTUM_TRAP, "DataParallel's module. stands behind encoder_q."),
    ),
    Layout(
        name="slotcon",
        selfsup="slotcon",
        methods=("SlotCon",),
        source="https://github.com/CVMI-Lab/SlotCon: main_pretrain.py, models/slotcon.py, models/resnet.py, "
        "transfer/detection/convert_pretrain_to_d2.py",
        container=("model",),
        prefix="encoder_k.",
        signature=("encoder_q", "encoder_k", "grouping_q", "grouping_k"),
        branch="momentum",
        other=Network("online", ("model",), "encoder_q."),
        drops={
            "projector_q": _PROJECTOR,
            "projector_k": _MOMENTUM_HEAD,
            "grouping_q": "slots of the pretraining",
            "grouping_k": "slots of the pretraining",
            "predictor_slot": _PREDICTOR,
            "center": "state of the loss",
        },
        traps=("its own conversion takes the momentum network, encoder_k",),
    ),
    Layout(
        name="seco",
        selfsup="seco",
        methods=("SeCo",),
        source="https://github.com/ServiceNow/seasonal-contrast: models/moco2_module.py, "
        "datasets/seco_dataset.py",
        container=("state_dict",),
        prefix="encoder_q.",
        signature=("encoder_q.0", "encoder_k.0", "heads_q", "heads_k"),
        branch="online",
        other=Network("momentum", ("state_dict",), "encoder_k."),
        renames=INDEX_NAMES,
        drops={
            "heads_q": _PROJECTOR,
            "heads_k": _MOMENTUM_HEAD,
            "queue": _QUEUE,
            "queue_ptr": _QUEUE,
        },
        traps=(
            "no layerN in its names",
            "its images are Sentinel-2's red, green and blue, stretched between quantiles to 0-255",
        ),
    ),
    # SwAV's repository
    Layout(
        name="swav",
        selfsup="swav",
        methods=("SwAV",),
        source=f"{_SWAV}: hubconf.py, src/resnet50.py",
        container=(),
        prefix="",
        signature=("projection_head",),
        absent=("prototypes.prototypes*", *_OTHER_PROJECTS),
        drops=_SWAV_DROPS,
        traps=_SWAV_TRAP,
    ),
    Layout(
        name="swav-training",
        selfsup="swav",
        methods=("SwAV",),
        source=f"{_SWAV}: main_swav.py, src/resnet50.py",
        container=("state_dict",),
        prefix="",
        signature=("projection_head",),
        absent=("prototypes.prototypes*", *_OTHER_PROJECTS),
        drops=_SWAV_DROPS,
        traps=_SWAV_TRAP,
    ),
    Layout(
        name="deepcluster-v2",
        selfsup="deepclusterv2",
        methods=("DeepCluster-v2", "SeLa-v2"),
        source=f"{_SWAV}: eval_linear.py, README.md, src/resnet50.py (MultiPrototypes)",
        container=(),
        prefix="",
        signature=("projection_head", "prototypes.prototypes*"),
        absent=_OTHER_PROJECTS,
        drops=_SWAV_DROPS,
        also=("selav2",),
        traps=_SWAV_TRAP,
        inferred="SeLa-v2's training code is not published; its file is taken to be of this repository's "
        "network, with several sets of prototypes (with one set it is the row swav)",
    ),
    Layout(
        name="deepcluster-v2-training",
        selfsup="deepclusterv2",
        methods=("DeepCluster-v2",),
        source=f"{_SWAV}: main_deepclusterv2.py, src/resnet50.py",
        container=("state_dict",),
        prefix="",
        signature=("projection_head", "prototypes.prototypes*"),
        absent=_OTHER_PROJECTS,
        drops=_SWAV_DROPS,
        traps=_SWAV_TRAP,
    ),
    # The backbone alone, and the training files of the projects that publish it so
    Layout(
        name="backbone",
        selfsup="backbone",
        methods=(
            *("DINO", "Barlow Twins", "VICReg", "VICRegL", "VISSL after its own conversion"),
            "SparK",
        ),
        source="https://github.com/facebookresearch/dino: hubconf.py; "
        "https://github.com/facebookresearch/barlowtwins: main.py, hubconf.py; "
        "https://github.com/facebookresearch/vicreg: main_vicreg.py, hubconf.py; "
        "https://github.com/facebookresearch/VICRegL: hubconf.py; "
        "https://github.com/facebookresearch/vissl: extra_scripts/convert_vissl_to_torchvision.py; "
        f"{_SPARK}pretrain/utils/misc.py (`save_checkpoint_model_weights_only`)",
        container=(),
        prefix="",
        signature=("conv1", "layer4"),
        absent=("fc",),
        closed=True,
        also=("dino", "barlowtwins", "vicreg", "vicregl", "vissl", "spark"),
        traps=(
            "nothing in these files names the method",
            "VICReg's stem pads like SwAV's: the weights are taken unchanged",
        ),
    ),
    Layout(
        name="dino-training",
        selfsup="dino",
        methods=("DINO",),
        source="https://github.com/facebookresearch/dino: main_dino.py, utils.py (MultiCropWrapper)",
        container=("teacher",),
        prefix="backbone.",
        signature=("backbone",),
        entries=("student",),
        branch="teacher",
        other=Network("student", ("student",), "backbone."),
        inside={"fc": _UNUSED},
        drops={"head": _HEAD},
        beside=TRAINING | {"dino_loss": "state of the loss"},
        traps=("the published evaluation uses the teacher", "ViT and XCiT come likewise"),
    ),
    Layout(
        name="barlowtwins-training",
        selfsup="barlowtwins",
        methods=("Barlow Twins",),
        source="https://github.com/facebookresearch/barlowtwins: main.py",
        container=("model",),
        prefix="backbone.",
        signature=("backbone", "projector", "bn"),
        drops={"projector": _PROJECTOR, "bn": "batch norm of the loss"},
        traps=("the top-level bn is the loss's, not the stem's",),
    ),
    Layout(
        name="vicreg-training",
        selfsup="vicreg",
        methods=("VICReg",),
        source="https://github.com/facebookresearch/vicreg: main_vicreg.py, resnet.py",
        container=("model",),
        prefix="backbone.",
        signature=("backbone", "projector"),
        absent=("bn", "classifier", "maps_projector"),
        drops={"projector": _PROJECTOR},
        traps=("the optimizer beside it holds a function of the training script",),
    ),
    Layout(
        name="vicregl-training",
        selfsup="vicregl",
        methods=("VICRegL",),
        source="https://github.com/facebookresearch/VICRegL: main_vicregl.py, utils.py, resnet.py",
        container=("model",),
        prefix="backbone.",
        signature=("backbone", "classifier.weight"),
        closed=True,
        drops={
            "projector": _PROJECTOR,
            "maps_projector": "projection head of the feature maps",
            "classifier": "online classifier",
        },
        traps=("ConvNeXts come in the same container: refused",),
    ),
    Layout(
        name="simsiam",
        selfsup="simsiam",
        methods=("SimSiam",),
        source="https://github.com/facebookresearch/simsiam: main_simsiam.py, simsiam/builder.py",
        container=("state_dict",),
        prefix="encoder.",
        signature=("encoder.fc", "predictor"),
        inside={"fc": _PROJECTOR},
        drops={"predictor": _PREDICTOR},
    ),
    Layout(
        name="augnet",
        selfsup="augnet",
        methods=("AugNet",),
        source="https://github.com/chenmingxiang110/AugNet: res50_model_training_with_ImageNet.py, "
        "lib/utils.py; https://pypi.org/project/imgsim: imgsim/imgsim.py (the input as well)",
        container=(),
        prefix="pre.",
        signature=("pre.conv1", "pre.layer4", "pre.fc"),
        closed=True,
        inside={"fc": _PROJECTOR},
        traps=(
            "files of its ResNet-34 for STL-10 have no fc, and were trained with one mean and one "
            "deviation for all channels: they have no row",
        ),
    ),
    # Ports of BYOL and SimCLR to PyTorch
    Layout(
        name="byol-pytorch",
        selfsup="byol",
        methods=("BYOL (lucidrains)",),
        source="https://github.com/lucidrains/byol-pytorch: byol_pytorch/byol_pytorch.py",
        container=(),
        prefix="online_encoder.net.",
        signature=("online_encoder.net", "target_encoder.net"),
        branch="online",
        other=Network("momentum", (), "target_encoder.net."),
        duplicate="net.",
        inside={"fc": _UNUSED},
        drops={
            "online_encoder.projector": _PROJECTOR,
            "target_encoder.projector": _MOMENTUM_HEAD,
            "online_predictor": _PREDICTOR,
        },
        traps=(_TWICE, "the file that its README saves is the plain network: row torchvision"),
    ),
    Layout(
        name="byol-pytorch-lightning",
        selfsup="byol",
        methods=("BYOL (lucidrains)",),
        source="https://github.com/lucidrains/byol-pytorch: examples/lightning/train.py",
        container=("state_dict",),
        prefix="learner.online_encoder.net.",
        signature=("learner.online_encoder.net", "learner.target_encoder.net"),
        branch="online",
        other=Network("momentum", ("state_dict",), "learner.target_encoder.net."),
        duplicate="learner.net.",
        inside={"fc": _UNUSED},
        drops={
            "learner.online_encoder.projector": _PROJECTOR,
            "learner.target_encoder.projector": _MOMENTUM_HEAD,
            "learner.online_predictor": _PREDICTOR,
        },
        traps=(_TWICE,),
    ),
    Layout(
        name="byol-sthalles",
        selfsup="byol",
        methods=("BYOL (sthalles)",),
        source="https://github.com/sthalles/PyTorch-BYOL: trainer.py, models/resnet_base_network.py, "
        "data/transforms.py",
        container=("online_network_state_dict",),
        prefix="encoder.",
        signature=("encoder.0", "projetion"),
        branch="online",
        other=Network("momentum", ("target_network_state_dict",), "encoder."),
        renames=INDEX_NAMES,
        drops={"projetion": _PROJECTOR},
        input=UNIT_INPUT,
        traps=("no layerN in its names", "its images are not normalised: mean 0 and std 255"),
    ),
    Layout(
        name="byol-yaox12",
        selfsup="byol",
        methods=("BYOL (yaox12)",),
        source="https://github.com/yaox12/BYOL-PyTorch: trainer/byol_trainer.py, model/byol_model.py, "
        "model/basic_modules.py, data/byol_transform.py",
        container=("model",),
        prefix="online_network.encoder.",
        signature=("online_network.encoder", "target_network.encoder"),
        branch="online",
        other=Network("momentum", ("model",), "target_network.encoder."),
        renames=INDEX_NAMES,
        drops={
            "online_network.projetion": _PROJECTOR,
            "target_network.projetion": _MOMENTUM_HEAD,
            "predictor": _PREDICTOR,
        },
        traps=("no layerN in its names", _MOMENTUM_TRAP),
    ),
    Layout(
        name="simclr-pytorch",
        selfsup="simclr",
        methods=("SimCLR (AndrewAtanov)",),
        source="https://github.com/AndrewAtanov/simclr-pytorch: models/ssl.py, models/encoder.py, "
        "models/resnet.py, train.py",
        container=("state_dict",),
        prefix="convnet.",
        signature=("convnet", "projection"),
        inside={"fc": _UNUSED},
        drops={"projection": _PROJECTOR},
        input=UNIT_INPUT,
        traps=(
            "its images are not normalised: mean 0 and std 255",
            "with CIFAR the stem is a 3x3 convolution: refused",
        ),
    ),
    Layout(
        name="simclr-v2",
        selfsup="simclrv2",
        methods=("SimCLR v2 (Separius)",),
        source="https://github.com/Separius/SimCLRv2-Pytorch: convert.py, resnet.py",
        container=("resnet",),
        prefix="",
        signature=("net.0.0", "net.1.blocks"),
        renames=SIMCLR_V2_NAMES,
        inside={"fc": _CLASSIFIER},
        beside=TRAINING | {"head": _PROJECTOR},
        input=UNIT_INPUT,
        traps=(
            "its images are not normalised: mean 0 and std 255",
            "networks with selective kernels (sk1) are refused",
        ),
    ),
    Layout(
        name="simclr-sthalles",
        selfsup="simclr",
        methods=("SimCLR (sthalles)",),
        source="https://github.com/sthalles/SimCLR: simclr.py, models/resnet_simclr.py, "
        "data_aug/contrastive_learning_dataset.py",
        container=("state_dict",),
        prefix="backbone.",
        signature=("backbone.conv1", "backbone.fc.0", "backbone.fc.2"),
        absent=("backbone.fc.1",),
        closed=True,
        inside={"fc": _PROJECTOR},
        input=UNIT_INPUT,
        traps=("its images are not normalised: mean 0 and std 255",),
    ),
    Layout(
        name="simclr-spijkervet",
        selfsup="simclr",
        methods=("SimCLR (Spijkervet)",),
        source="https://github.com/Spijkervet/SimCLR: model.py, simclr/simclr.py, "
        "simclr/modules/transformations/simclr.py",
        container=(),
        prefix="encoder.",
        signature=("encoder.conv1", "projector.0", "projector.2"),
        absent=("projector.0.bias", "projector.2.bias"),
        closed=True,
        drops={"projector": _PROJECTOR},
        input=UNIT_INPUT,
        traps=(
            "its images are not normalised: mean 0 and std 255",
            "simclr/modules/resnet_hacks.py puts the stride in the 1x1 convolution; its training does not "
            "call it, and no tensor would show it",
        ),
    ),
    # Other networks by themselves, or nearly so
    Layout(
        name="paws",
        selfsup="paws",
        methods=("PAWS",),
        source="https://github.com/facebookresearch/suncet: src/paws_train.py, src/resnet.py, "
        "src/data_manager.py, configs/paws/imgnt_train.yaml",
        container=("encoder",),
        prefix="",
        signature=("conv1", "layer4", "fc.fc1", "fc.fc3"),
        closed=True,
        inside={"fc": _PROJECTOR, "pred": _PREDICTOR},
        beside=TRAINING
        | dict.fromkeys(
            ("unlabel_prob", "s_batch_size", "u_batch_size", "world_size", "lr", "temperature"),
            _STATE,
        ),
        traps=("fc.bn1 and pred.bn1 are not the stem's",),
    ),
    Layout(
        name="w-mse",
        selfsup="wmse",
        methods=("W-MSE", "InfoNCE (W-MSE's repository)"),
        source="https://github.com/htdt/self-supervised: train.py, model.py, methods/base.py, "
        "methods/w_mse.py, datasets/imagenet.py",
        container=(),
        prefix="model.",
        signature=("model.conv1", "head.0"),
        closed=True,
        drops={"head": _PROJECTOR},
        traps=(
            "DataParallel's module. stands behind model.",
            "with CIFAR, STL and Tiny ImageNet the stem is a 3x3 convolution: refused",
        ),
    ),
    Layout(
        name="spark-training",
        selfsup="spark",
        methods=("SparK",),
        source=f"{_SPARK}pretrain/main.py, pretrain/spark.py, pretrain/encoder.py, pretrain/utils/misc.py",
        container=("module",),
        prefix="sparse_encoder.sp_cnn.",
        signature=("sparse_encoder.sp_cnn", "dense_decoder"),
        drops={
            "dense_decoder": "decoder of the pretraining",
            "densify_norms": "decoder of the pretraining",
            "densify_projs": "decoder of the pretraining",
            "mask_tokens": "decoder of the pretraining",
            "imn_m": "statistics of the input",
            "imn_s": "statistics of the input",
            "norm_black": "statistics of the input",
            "config": _STATE,
        },
        beside=TRAINING | dict.fromkeys(("input_size", "performance_desc", "is_pretrain"), _STATE),
        traps=(
            "module is an entry of the file here, and no wrapper",
            "ConvNeXts come in the same container: refused",
        ),
    ),
    Layout(
        **_OBOW_ROW,
        name="obow-training",
        source=f"{_OBOW}obow/builder_obow.py, obow/feature_extractor.py, obow/solver.py",
        prefix="feature_extractor.",
        signature=("feature_extractor._feature_blocks", "feature_extractor_teacher"),
        branch="student",
        other=Network("teacher", ("network",), "feature_extractor_teacher."),
        renames=_OBOW_NAMES,
        drops={
            "bow_predictor": _PREDICTOR,
            "bow_extractor": "visual words of the pretraining",
            "linear_classifier": "online classifier",
            "_alpha": _STATE,
            "_iteration": _STATE,
        },
        traps=("the student is the one to use",),
    ),
    Layout(
        **_OBOW_ROW,
        name="obow",
        source=f"{_OBOW}obow/builder_obow.py (`save_feature_extractor`), obow/feature_extractor.py",
        prefix="",
        signature=("_feature_blocks.0.Conv", "_feature_blocks.4"),
        renames=_OBOW_NAMES,
    ),
    Layout(
        **_OBOW_ROW,
        name="obow-torchvision",
        source=f"{_OBOW}obow/builder_obow.py (`save_feature_extractor_in_torchvision_format`)",
        prefix="",
        signature=("conv1", "layer4", "fc"),
        closed=True,
        inside={"fc": "visual words of the pretraining"},
    ),
    # Averages of anybody's network
    Layout(
        name="averaged-model",
        selfsup="averaged",
        methods=("any, averaged by torch's AveragedModel (SWA, EMA)",),
        source="https://github.com/pytorch/pytorch: torch/optim/swa_utils.py",
        container=(),
        prefix="",
        signature=("n_averaged", "conv1", "layer4"),
        closed=True,
        inside={"fc": _CLASSIFIER},
        drops={"n_averaged": "how many models were averaged"},
        input=ASSUMED_INPUT,
        traps=(
            "without use_buffers or update_bn the batch norms' statistics are those of the first model "
            "that was averaged, and no tensor shows it",
        ),
    ),
    Layout(
        name="ema-pytorch",
        selfsup="ema",
        methods=("any, averaged by ema-pytorch (lucidrains)",),
        source="https://github.com/lucidrains/ema-pytorch: ema_pytorch/ema_pytorch.py",
        container=(),
        prefix="ema_model.",
        signature=("ema_model.conv1", "initted", "step"),
        closed=True,
        branch="momentum",
        other=Network("online", (), "online_model."),
        inside={"fc": _CLASSIFIER},
        drops={"initted": _STATE, "step": _STATE},
        input=ASSUMED_INPUT,
        traps=("the average is the one to use, as its class itself does when it is called",),
    ),
    # PyContrast and CMC
    Layout(
        **_PYCONTRAST_ROW,
        name="pycontrast-linear",
        selfsup="insdis",
        methods=("InsDis (PyContrast)", "MoCo (PyContrast)"),
        signature=("encoder", "head.0"),
        absent=("encoder_k", "head.2", "head_jig", "neck", "projector"),
    ),
    Layout(
        **_PYCONTRAST_ROW,
        name="pycontrast-mlp",
        selfsup="pycontrast_mocov2",
        methods=("MoCo v2 (PyContrast)", "SupContrast"),
        signature=("encoder", "head.0", "head.2"),
        absent=("encoder_k", "head_jig", "neck", "projector"),
        also=("supcon",),
    ),
    Layout(
        **_PYCONTRAST_ROW,
        name="pycontrast-jigsaw-linear",
        selfsup="pirl",
        methods=("PIRL (PyContrast)",),
        signature=("encoder", "head.0", "head_jig"),
        absent=("head.2",),
    ),
    Layout(
        **_PYCONTRAST_ROW,
        name="pycontrast-jigsaw-mlp",
        selfsup="infomin",
        methods=("InfoMin",),
        signature=("encoder", "head.0", "head.2", "head_jig"),
    ),
    Layout(
        name="cmc-repository",
        selfsup="insdis",
        methods=("InsDis (CMC repository)", "MoCo (CMC repository)"),
        source="https://github.com/HobbitLong/CMC: train_moco_ins.py, models/resnet.py (InsResNet50)",
        container=("model",),
        prefix="encoder.",
        signature=("encoder.conv1", "encoder.fc"),
        closed=True,
        branch="online",
        other=Network("momentum", ("model_ema",), "encoder."),
        inside={"fc": _PROJECTOR},
        beside=TRAINING | {"contrast": "memory bank or queue of negatives"},
        traps=("module. stands inside the name, behind encoder.",),
    ),
    # Pretraining for dense tasks
    Layout(
        name="pixpro",
        selfsup="pixpro",
        methods=("PixPro",),
        source="https://github.com/zdaxie/PixPro: main_pretrain.py, contrast/models/PixPro.py, "
        "contrast/resnet.py, publish_model.py",
        container=("model",),
        prefix="encoder.",
        signature=("encoder", "encoder_k", "projector", "projector_k"),
        absent=("neck", "queue"),
        branch="online",
        other=Network("momentum", ("model",), "encoder_k."),
        drops={
            "projector": _PROJECTOR,
            "projector_k": _MOMENTUM_HEAD,
            "projector_instance": _PROJECTOR,
            "projector_instance_k": _MOMENTUM_HEAD,
            "predictor": _PREDICTOR,
            "value_transform": _HEAD,
        },
        traps=("projector.bn1 is not the stem's", "encoder_k begins like encoder"),
    ),
    Layout(
        name="soco-c4",
        selfsup="soco",
        methods=("SoCo (C4)",),
        source="https://github.com/hologerry/SoCo: main_pretrain.py, contrast/models/SoCo_C4.py, mlps.py",
        container=("model",),
        prefix="encoder.",
        signature=("encoder", "encoder_k", "projector", "queue"),
        absent=("neck",),
        branch="online",
        other=Network("momentum", ("model",), "encoder_k."),
        drops={
            "projector": _PROJECTOR,
            "projector_k": _MOMENTUM_HEAD,
            "predictor": _PREDICTOR,
            "queue": _QUEUE,
            "queue_ptr": _QUEUE,
        },
        traps=("projector.bn1 is not the stem's", "encoder_k begins like encoder"),
    ),
    Layout(
        name="soco-fpn",
        selfsup="soco",
        methods=("SoCo (FPN)", "SoCo* (FPN)"),
        source="https://github.com/hologerry/SoCo: main_pretrain.py, contrast/models/SoCo_FPN.py, "
        "SoCo_FPN_Star.py, mlps.py",
        container=("model",),
        prefix="encoder.",
        signature=("encoder", "encoder_k", "neck", "neck_k"),
        branch="online",
        other=Network("momentum", ("model",), "encoder_k."),
        drops={
            "neck": _PYRAMID,
            "neck_k": _MOMENTUM_HEAD,
            "head": "box head of the pretraining, which a Mask R-CNN has under other names",
            "head_k": _MOMENTUM_HEAD,
            "projector": _PROJECTOR,
            "projector_k": _MOMENTUM_HEAD,
            "predictor": _PREDICTOR,
        },
        traps=("FPN and box head are pretrained as well; only the backbone is taken",),
    ),
    # OpenSelfSup, mmselfsup to 0.x (the same models) and DenseCL, which is built on them
    Layout(
        **_MM_TWICE,
        name="openselfsup-moco",
        selfsup="openselfsup",
        methods=("MoCo v1 (OpenSelfSup)", "MoCo v2 (OpenSelfSup, mmselfsup 0.x)"),
        source=f"{_OPENSELFSUP}moco.py; {_MMSELFSUP}moco.py of 0.x",
        signature=("backbone", "encoder_q.0", "encoder_k.0"),
        absent=("queue2",),
        branch="online",
        other=Network("momentum", ("state_dict",), "encoder_k.0."),
        duplicate="encoder_q.0.",
        drops=_MM_DROPS | {"encoder_q.1": _PROJECTOR, "encoder_k.1": _MOMENTUM_HEAD},
        also=("mmselfsup",),
    ),
    Layout(
        **_MM_TWICE,
        name="densecl",
        selfsup="densecl",
        methods=("DenseCL",),
        source="https://github.com/WXinlong/DenseCL: openselfsup/models/densecl.py, necks.py",
        signature=("backbone", "encoder_q.0", "encoder_k.0", "queue2"),
        branch="online",
        other=Network("momentum", ("state_dict",), "encoder_k.0."),
        duplicate="encoder_q.0.",
        drops=_MM_DROPS | {"encoder_q.1": _PROJECTOR, "encoder_k.1": _MOMENTUM_HEAD},
        also=("mmselfsup",),
    ),
    Layout(
        **_MM_TWICE,
        name="openselfsup-byol",
        selfsup="openselfsup",
        methods=("BYOL (OpenSelfSup, mmselfsup 0.x)",),
        source=f"{_OPENSELFSUP}byol.py; {_MMSELFSUP}byol.py of 0.x",
        signature=("backbone", "online_net.0", "target_net.0"),
        branch="online",
        other=Network("momentum", ("state_dict",), "target_net.0."),
        duplicate="online_net.0.",
        drops=_MM_DROPS | {"online_net.1": _PROJECTOR, "target_net.1": _MOMENTUM_HEAD},
        also=("mmselfsup",),
    ),
    Layout(
        **_MM_TWICE,
        name="mmselfsup-0.x-simsiam",
        selfsup="mmselfsup",
        methods=("SimSiam (mmselfsup 0.x)",),
        source=f"{_MMSELFSUP}simsiam.py of 0.x",
        signature=("backbone", "encoder.0", "encoder.1"),
        duplicate="encoder.0.",
        drops=_MM_DROPS | {"encoder.1": _PROJECTOR},
    ),
    Layout(
        **_MM_TWICE,
        name="mmselfsup-0.x-mocov3",
        selfsup="mmselfsup",
        methods=("MoCo v3 (mmselfsup 0.x)",),
        source=f"{_MMSELFSUP}mocov3.py of 0.x",
        signature=("backbone", "base_encoder.0", "momentum_encoder.0"),
        branch="online",
        other=Network("momentum", ("state_dict",), "momentum_encoder.0."),
        duplicate="base_encoder.0.",
        drops=_MM_DROPS | {"base_encoder.1": _PROJECTOR, "momentum_encoder.1": _MOMENTUM_HEAD},
    ),
    # mmselfsup 1.x and mmpretrain, which took it over
    Layout(
        **_MM_RESNET,
        name="mmselfsup-moco",
        selfsup="mmselfsup",
        methods=("MoCo v2 (mmselfsup, mmpretrain)",),
        source=f"{_MMSELFSUP}moco.py, ../utils/ema.py",
        signature=("backbone", "encoder_k.0"),
        absent=("queue2", "encoder_q"),
        branch="online",
        other=Network("momentum", ("state_dict",), "encoder_k.0."),
        drops=_MM_DROPS | {"encoder_k.1": _MOMENTUM_HEAD, "encoder_k.steps": _STATE},
        also=("mmpretrain",),
    ),
    Layout(
        **_MM_RESNET,
        name="mmselfsup-densecl",
        selfsup="mmselfsup",
        methods=("DenseCL (mmselfsup, mmpretrain)",),
        source=f"{_MMSELFSUP}densecl.py, ../utils/ema.py",
        signature=("backbone", "encoder_k.0", "queue2"),
        absent=("encoder_q",),
        branch="online",
        other=Network("momentum", ("state_dict",), "encoder_k.0."),
        drops=_MM_DROPS | {"encoder_k.1": _MOMENTUM_HEAD, "encoder_k.steps": _STATE},
        also=("mmpretrain", "densecl"),
    ),
    Layout(
        **_MM_RESNET,
        name="mmselfsup-byol",
        selfsup="mmselfsup",
        methods=("BYOL (mmselfsup, mmpretrain)",),
        source=f"{_MMSELFSUP}byol.py, ../utils/ema.py",
        signature=("backbone", "target_net.0"),
        absent=("online_net",),
        branch="online",
        other=Network("momentum", ("state_dict",), "target_net.0."),
        drops=_MM_DROPS | {"target_net.1": _MOMENTUM_HEAD, "target_net.steps": _STATE},
        also=("mmpretrain", "byol"),
    ),
    Layout(
        **_MM_RESNET,
        name="mmselfsup-mocov3",
        selfsup="mmselfsup",
        methods=("MoCo v3 (mmselfsup, mmpretrain)",),
        source=f"{_MMSELFSUP}mocov3.py, ../utils/ema.py; "
        "https://github.com/open-mmlab/mmpretrain: mmpretrain/models/selfsup/mocov3.py",
        signature=("backbone", "momentum_encoder.0"),
        absent=("base_encoder",),
        branch="online",
        other=Network("momentum", ("state_dict",), "momentum_encoder.0."),
        drops=_MM_DROPS | {"momentum_encoder.1": _MOMENTUM_HEAD, "momentum_encoder.steps": _STATE},
        also=("mmpretrain", "mocov3"),
    ),
    Layout(
        **_MM_RESNET,
        name="mmselfsup",
        selfsup="mmselfsup",
        methods=(
            *("SimCLR", "SimSiam", "SwAV", "Barlow Twins", "NPID", "ODC", "DeepCluster"),
            "relative location",
        ),
        source=f"{_MMSELFSUP}base.py, simclr.py, simsiam.py, swav.py, barlowtwins.py; "
        f"{_OPENSELFSUP}simclr.py, npid.py, odc.py, deepcluster.py, relative_loc.py",
        signature=("backbone", "neck"),
        closed=True,
        drops=_MM_DROPS,
        also=("openselfsup", "mmpretrain"),
    ),
    Layout(
        **_MM_RESNET,
        name="mm-classifier",
        selfsup="mmpretrain",
        methods=("supervised (mmpretrain, mmcls)", "rotation prediction"),
        source=f"{_MMSELFSUP}rotation_pred.py; {_OPENSELFSUP}rotation_pred.py",
        signature=("backbone", "head"),
        closed=True,
        drops={"head": _CLASSIFIER, "data_preprocessor": "statistics of the input"},
        also=("mmselfsup", "openselfsup"),
        inferred="mmpretrain's ImageClassifier was not read; its names are those of rotation_pred.py",
    ),
    Layout(
        name="mm-extracted",
        selfsup="mmselfsup",
        methods=("any of mmselfsup, OpenSelfSup or DenseCL, extracted",),
        source="https://github.com/open-mmlab/mmselfsup: tools/model_converters/"
        "extract_backbone_weights.py; the same of OpenSelfSup and DenseCL in tools/",
        container=("state_dict",),
        prefix="",
        signature=("conv1", "layer4"),
        entries=("author",),
        closed=True,
        also=("openselfsup", "densecl"),
        traps=("nothing in these files names the method",),
    ),
    Layout(
        **_MM_RESNET,
        name="mmdet-backbone",
        selfsup="mmdet",
        methods=("SoCo, converted for MMDetection", "any of mmselfsup, its backbone alone"),
        source="https://github.com/hologerry/SoCo: converter_mmdetection/convert_mmdetection_Backbone.py",
        signature=("backbone",),
        closed=True,
        also=("soco",),
    ),
    Layout(
        name="selfsup2mmdet",
        selfsup="mmdet",
        methods=("MoCo v1 or v2, converted for MMDetection",),
        source="https://github.com/open-mmlab/mmdetection: tools/model_converters/selfsup2mmdet.py",
        container=("state_dict",),
        prefix="",
        signature=("conv1", "layer4"),
        no_entries=("author", "arch"),
        closed=True,
        inside={"fc": _PROJECTOR},
        also=("moco",),
    ),
    # Frameworks
    Layout(
        **_SOLO_ROW,
        name="solo-learn",
        source="https://github.com/vturrisi/solo-learn: solo/methods/base.py and the methods' files",
        prefix="backbone.",
        signature=("backbone", "classifier.weight"),
        absent=("encoder", "maps_projector"),
        other=Network("momentum", ("state_dict",), "momentum_backbone."),
    ),
    Layout(
        **_SOLO_ROW,
        name="solo-learn-old",
        source="https://github.com/vturrisi/solo-learn: solo/methods/base.py before 2022; main_linear.py",
        prefix="encoder.",
        signature=("encoder", "classifier.weight"),
        absent=("backbone",),
        other=Network("momentum", ("state_dict",), "momentum_encoder."),
    ),
    Layout(
        **_VISSL_ROW,
        name="vissl",
        source=f"{_VISSL}base_ssl_model.py, vissl/hooks/log_hooks.py",
        container=("classy_state_dict", "base_model", "model", "trunk"),
        prefix="_feature_blocks.",
        signature=("_feature_blocks",),
    ),
    Layout(
        **_VISSL_ROW,
        name="vissl-linear",
        source=f"{_VISSL}feature_extractor.py",
        container=("classy_state_dict", "base_model", "model", "trunk"),
        prefix="base_model._feature_blocks.",
        signature=("base_model._feature_blocks",),
    ),
    Layout(
        **_VISSL_ROW,
        name="vissl-model-state",
        source=f"{_VISSL}extra_scripts/convert_classy_vision_to_vissl_resnet.py",
        container=("model_state_dict",),
        prefix="_feature_blocks.",
        signature=("_feature_blocks",),
    ),
    Layout(
        **_LIGHTLY_ROW,
        name="lightly",
        methods=(
            *("MoCo", "SimCLR", "BYOL", "SimSiam", "SwAV", "Barlow Twins", "VICReg", "NNCLR"),
            *("DCL", "TiCo"),
        ),
        source=f"{_LIGHTLY}examples/pytorch_lightning/ moco.py, simclr.py, byol.py, simsiam.py, swav.py, "
        "barlowtwins.py, vicreg.py, nnclr.py, dcl.py, tico.py",
        prefix="backbone.",
        signature=("backbone.0", "backbone.7", "projection_head"),
        branch="online",
        other=Network("momentum", ("state_dict",), "backbone_momentum."),
        renames=INDEX_NAMES,
        traps=("no layerN in its names", "backbone_momentum begins like backbone"),
    ),
    Layout(
        **_LIGHTLY_ROW,
        name="lightly-dino",
        methods=("DINO",),
        source=f"{_LIGHTLY}examples/pytorch_lightning/dino.py",
        prefix="teacher_backbone.",
        signature=("teacher_backbone.0", "student_backbone.0"),
        branch="teacher",
        other=Network("student", ("state_dict",), "student_backbone."),
        renames=INDEX_NAMES,
        traps=("no layerN in its names", "the teacher is the one to use"),
    ),
    Layout(
        **_LIGHTLY_BENCHMARK,
        name="lightly-benchmark",
        methods=("SimCLR", "SwAV", "Barlow Twins", "VICReg", "DCL"),
        source=f"{_LIGHTLY}benchmarks/imagenet/resnet50/ simclr.py, swav.py, barlowtwins.py, vicreg.py, "
        "dcl.py",
        signature=("backbone.conv1", "projection_head", "online_classifier"),
        absent=_LIGHTLY_MODULES,
    ),
    Layout(
        **_LIGHTLY_BENCHMARK,
        name="lightly-benchmark-byol",
        methods=("BYOL",),
        source=f"{_LIGHTLY}benchmarks/imagenet/resnet50/byol.py",
        signature=("backbone.conv1", "teacher_backbone", "online_classifier"),
        branch="online",
        other=Network("momentum", ("state_dict",), "teacher_backbone."),
    ),
    Layout(
        **_LIGHTLY_BENCHMARK,
        name="lightly-benchmark-moco",
        methods=("MoCo v2",),
        source=f"{_LIGHTLY}benchmarks/imagenet/resnet50/mocov2.py",
        signature=("backbone.conv1", "key_backbone", "online_classifier"),
        branch="online",
        other=Network("momentum", ("state_dict",), "key_backbone."),
    ),
    Layout(
        **_LIGHTLY_BENCHMARK,
        name="lightly-benchmark-tico",
        methods=("TiCo",),
        source=f"{_LIGHTLY}benchmarks/imagenet/resnet50/tico.py",
        signature=("backbone.conv1", "backbone_momentum", "online_classifier"),
        branch="online",
        other=Network("momentum", ("state_dict",), "backbone_momentum."),
    ),
    Layout(
        **_LIGHTLY_BENCHMARK,
        name="lightly-benchmark-dino",
        methods=("DINO",),
        source=f"{_LIGHTLY}benchmarks/imagenet/resnet50/dino.py",
        signature=("backbone.conv1", "student_backbone", "online_classifier"),
        branch="teacher",
        other=Network("student", ("state_dict",), "student_backbone."),
        traps=("its plain backbone is the teacher",),
    ),
    Layout(
        **_LIGHTLY_TRAIN_ROW,
        name="lightly-train",
        methods=("SimCLR", "DetCon"),
        source=f"{_LIGHTLY_TRAIN}_methods/simclr/simclr.py, _methods/detcon/detcon.py",
        prefix="embedding_model.wrapped_model._features.",
        signature=("embedding_model.wrapped_model._features", "projection_head"),
        branch="online",
        other=Network(
            "momentum", ("state_dict",), "embedding_model_momentum.wrapped_model._features."
        ),
    ),
    Layout(
        **_LIGHTLY_TRAIN_ROW,
        name="lightly-train-dino",
        methods=("DINO",),
        source=f"{_LIGHTLY_TRAIN}_methods/dino/dino.py",
        prefix="teacher_embedding_model.wrapped_model._features.",
        signature=(
            "teacher_embedding_model.wrapped_model._features",
            "student_embedding_model.wrapped_model._features",
        ),
        branch="teacher",
        other=Network(
            "student", ("state_dict",), "student_embedding_model.wrapped_model._features."
        ),
        traps=("the teacher is the one to use, as its own export does",),
    ),
    Layout(
        **_LIGHTLY_TRAIN_ROW,
        name="lightly-train-distillation",
        methods=("distillation",),
        source=f"{_LIGHTLY_TRAIN}_methods/distillation/distillation.py",
        prefix="student_embedding_model.wrapped_model._features.",
        signature=("student_embedding_model.wrapped_model._features",),
        absent=("teacher_embedding_model.wrapped_model._features",),
    ),
    Layout(
        **_LIGHTLY_TRAIN_ROW,
        name="lightly-train-densecl",
        methods=("DenseCL",),
        source=f"{_LIGHTLY_TRAIN}_methods/densecl/densecl.py",
        prefix="query_encoder.embedding_model.wrapped_model._features.",
        signature=("query_encoder.embedding_model.wrapped_model._features", "key_encoder"),
        branch="online",
        other=Network(
            "momentum", ("state_dict",), "key_encoder.embedding_model.wrapped_model._features."
        ),
    ),
    # Supervised controls, and whatever keeps a plain torchvision network
    Layout(
        name="sequential",
        selfsup="backbone",
        methods=("any that keeps nn.Sequential(*resnet.children()) as backbone", "RadImageNet"),
        source="https://github.com/BMEII-AI/RadImageNet: acl/acl_pytorch_train.ipynb",
        container=(),
        prefix="backbone.",
        signature=("backbone.0", "backbone.7"),
        closed=True,
        renames=INDEX_NAMES,
        input=ASSUMED_INPUT,
        inputs={"radimagenet": HALF_INPUT},
        also=("radimagenet",),
        traps=(
            "no layerN in its names",
            "nothing in these files names the method nor the input: --selfsup radimagenet says which",
            "RadImageNet's images are grey, so that their channels have no order",
        ),
    ),
    Layout(
        name="torchvision",
        selfsup="torchvision",
        methods=("supervised (torchvision, timm)", "BYOL (lucidrains), the improved network"),
        source="https://github.com/pytorch/vision: torchvision/models/resnet.py; "
        "https://github.com/huggingface/pytorch-image-models: timm/models/resnet.py; "
        "https://github.com/lucidrains/byol-pytorch: README.md, byol_pytorch/trainer.py",
        container=(),
        prefix="",
        signature=("conv1", "layer4", "fc"),
        closed=True,
        inside={"fc": _CLASSIFIER},
        also=("timm", "byol", "dino"),
        traps=(
            "timm's d, s, t and SE variants have other stems, shortcuts or blocks: refused",
            "timm's resnetblur50 has exactly ResNet-50's tensors (its blur filters are not saved): "
            "nothing in a file tells it",
        ),
        inferred="whether DINO's published ResNet-50 holds an fc was not seen; with one it looks like this",
    ),
    Layout(
        name="classifier-training",
        selfsup="torchvision",
        methods=("supervised (PyTorch's ImageNet example, timm without averaging)",),
        source="https://github.com/pytorch/examples: imagenet/main.py",
        container=("state_dict",),
        prefix="",
        signature=("conv1", "layer4", "fc"),
        entries=("arch",),
        no_entries=("state_dict_ema",),
        closed=True,
        inside={"fc": _CLASSIFIER},
        also=("timm",),
    ),
    Layout(
        name="timm-training",
        selfsup="timm",
        methods=("supervised (timm with weight averaging)",),
        source="https://github.com/huggingface/pytorch-image-models: timm/utils/checkpoint_saver.py",
        container=("state_dict",),
        prefix="",
        signature=("conv1", "layer4", "fc"),
        entries=("arch", "state_dict_ema"),
        closed=True,
        branch="online",
        other=Network("momentum", ("state_dict_ema",), ""),
        inside={"fc": _CLASSIFIER},
        inferred="read in copies of checkpoint_saver.py inside other projects",
    ),
    Layout(
        name="torchvision-training",
        selfsup="torchvision",
        methods=("supervised (torchvision's references)",),
        source="https://github.com/pytorch/vision: references/classification/train.py",
        container=("model",),
        prefix="",
        signature=("conv1", "layer4", "fc"),
        entries=("lr_scheduler", "args"),
        closed=True,
        inside={"fc": _CLASSIFIER},
        beside=TRAINING | {"model_ema": "moving average of the weights"},
    ),
    Layout(
        name="hugging-face-model",
        selfsup="huggingface",
        methods=("ResNetModel, ResNetBackbone",),
        source="https://github.com/huggingface/transformers: models/resnet/modeling_resnet.py",
        container=(),
        prefix="",
        signature=("embedder.embedder.convolution", "encoder.stages.3"),
        renames=HUGGING_FACE_NAMES,
        traps=("a config with downsample_in_bottleneck puts the stride in the 1x1 convolution",),
    ),
    Layout(
        name="hugging-face-classifier",
        selfsup="huggingface",
        methods=("ResNetForImageClassification",),
        source="https://github.com/huggingface/transformers: models/resnet/modeling_resnet.py",
        container=(),
        prefix="resnet.",
        signature=("resnet.embedder.embedder.convolution", "resnet.encoder.stages.3"),
        renames=HUGGING_FACE_NAMES,
        drops={"classifier": _CLASSIFIER},
        traps=("a config with downsample_in_bottleneck puts the stride in the 1x1 convolution",),
    ),
)

IMAGES = {key: IMAGENET_INPUT[key] for key in ("format", "pixel_mean", "pixel_std")}
"""Of networks that have no strides in another place."""

CONVNEXT_NAMES: Renames = (
    ("downsample_layers.0", "stem"),
    ("downsample_layers.*", "stages.*.downsample"),
    ("stages.*.*.dwconv", "stages.*.blocks.*.conv_dw"),
    ("stages.*.*.norm", "stages.*.blocks.*.norm"),
    ("stages.*.*.pwconv1", "stages.*.blocks.*.mlp.fc1"),
    ("stages.*.*.pwconv2", "stages.*.blocks.*.mlp.fc2"),
    ("stages.*.*.grn.gamma", "stages.*.blocks.*.mlp.grn.weight"),
    ("stages.*.*.grn.beta", "stages.*.blocks.*.mlp.grn.bias"),
    ("stages.*.*.gamma", "stages.*.blocks.*.gamma"),
)
"""From those of facebookresearch/ConvNeXt (models/convnext.py), which most projects kept."""

SPARSE_CONVNEXT_NAMES: Renames = (
    *CONVNEXT_NAMES,
    ("stages.*.downsample.0.ln", "stages.*.downsample.0"),
    ("stages.*.blocks.*.norm.ln", "stages.*.blocks.*.norm"),
    ("stages.*.blocks.*.mlp.fc1.linear", "stages.*.blocks.*.mlp.fc1"),
    ("stages.*.blocks.*.mlp.fc2.linear", "stages.*.blocks.*.mlp.fc2"),
)

TORCHVISION_CONVNEXT_NAMES: Renames = (
    ("features.0", "stem"),
    *((f"features.{2 * stage}", f"stages.{stage}.downsample") for stage in (1, 2, 3)),
    *((f"features.{2 * stage + 1}.*", f"stages.{stage}.blocks.*") for stage in range(4)),
    ("stages.*.blocks.*.block.0", "stages.*.blocks.*.conv_dw"),
    ("stages.*.blocks.*.block.2", "stages.*.blocks.*.norm"),
    ("stages.*.blocks.*.block.3", "stages.*.blocks.*.mlp.fc1"),
    ("stages.*.blocks.*.block.5", "stages.*.blocks.*.mlp.fc2"),
    ("stages.*.blocks.*.layer_scale", "stages.*.blocks.*.gamma"),
)

HUGGING_FACE_CONVNEXT_NAMES: Renames = (
    ("embeddings.patch_embeddings", "stem.0"),
    ("embeddings.layernorm", "stem.1"),
    ("encoder.stages.*.downsampling_layer", "stages.*.downsample"),
    ("encoder.stages.*.layers.*.dwconv", "stages.*.blocks.*.conv_dw"),
    ("encoder.stages.*.layers.*.layernorm", "stages.*.blocks.*.norm"),
    ("encoder.stages.*.layers.*.pwconv1", "stages.*.blocks.*.mlp.fc1"),
    ("encoder.stages.*.layers.*.pwconv2", "stages.*.blocks.*.mlp.fc2"),
    ("encoder.stages.*.layers.*.grn", "stages.*.blocks.*.mlp.grn"),
    ("encoder.stages.*.layers.*.layer_scale_parameter", "stages.*.blocks.*.gamma"),
)

HUGGING_FACE_DINOV3_CONVNEXT_NAMES: Renames = (
    ("stages.0.downsample_layers", "stem"),
    ("stages.*.downsample_layers", "stages.*.downsample"),
    ("stages.*.layers.*.depthwise_conv", "stages.*.blocks.*.conv_dw"),
    ("stages.*.layers.*.layer_norm", "stages.*.blocks.*.norm"),
    ("stages.*.layers.*.pointwise_conv1", "stages.*.blocks.*.mlp.fc1"),
    ("stages.*.layers.*.pointwise_conv2", "stages.*.blocks.*.mlp.fc2"),
    ("stages.*.layers.*.gamma", "stages.*.blocks.*.gamma"),
)

_CONVNEXT = "https://github.com/facebookresearch/ConvNeXt: models/convnext.py, utils.py"
_CONVNEXT_V2 = "https://github.com/facebookresearch/ConvNeXt-V2: models/fcmae.py, utils.py"
_DINOV3 = "https://github.com/facebookresearch/dinov3: dinov3/models/convnext.py"
_FINAL_NORM = "norm after the pooling, before the classifier"
_CONVNEXT_ROW = {
    "family": "convnext",
    "prefix": "",
    "renames": CONVNEXT_NAMES,
    "input": IMAGES,
    "closed": True,
}
_CONVNEXT_HEAD = {"norm": _FINAL_NORM, "head": _CLASSIFIER}
_NON_COMMERCIAL = "CC-BY-NC-4.0"
_FCMAE_ROW = _CONVNEXT_ROW | {
    "license": _NON_COMMERCIAL,
    "selfsup": "fcmae",
    "methods": ("FCMAE",),
    "source": _CONVNEXT_V2,
    "container": ("model",),
    "renames": SPARSE_CONVNEXT_NAMES,
    "drops": {
        "mask_token": "mask token of the pretraining",
        "proj": "decoder of the pretraining",
        "decoder": "decoder of the pretraining",
        "pred": "decoder of the pretraining",
    },
    "traps": (
        "sparse convolutions have flat kernels, inputs before outputs, positions column by column",
    ),
}

CONVNEXT_LAYOUTS = (
    Layout(
        name="convnext",
        selfsup="convnext",
        methods=("supervised ConvNeXt", "fine-tuned ConvNeXt-V2"),
        source=f"{_CONVNEXT}; {_CONVNEXT_V2}",
        container=("model",),
        signature=("downsample_layers.3.1.weight", "stages.3.0.pwconv2", "norm", "head"),
        inside=_CONVNEXT_HEAD,
        beside=TRAINING | {"model_ema": "moving average of the weights"},
        traps=("version 2 has a response normalisation (GRN) for version 1's layer scale",),
        **_CONVNEXT_ROW,
    ),
    Layout(
        name="convnext-fcmae",
        signature=("encoder.downsample_layers.3.1.kernel", "mask_token"),
        **(_FCMAE_ROW | {"prefix": "encoder."}),
    ),
    Layout(
        name="convnext-fcmae-encoder",
        signature=("downsample_layers.3.1.kernel", "stages.3.0.dwconv.kernel"),
        inferred="whether published encoders lie under model was not seen",
        **_FCMAE_ROW,
    ),
    Layout(
        name="dinov3-convnext",
        selfsup="dinov3",
        methods=("DINOv3, distilled into a ConvNeXt",),
        source=_DINOV3,
        license="DINOv3 License",
        container=(),
        signature=("downsample_layers.3.1.weight", "stages.3.0.gamma", "norms.3"),
        inside={"norm": _FINAL_NORM, "norms": "the same norm under a second name"},
        traps=("the final norm stands there twice",),
        **_CONVNEXT_ROW,
    ),
    Layout(
        name="dinov3-convnext-training",
        selfsup="dinov3",
        methods=("DINOv3, distilled into a ConvNeXt",),
        source=f"{_DINOV3}, dinov3/train/ssl_meta_arch.py",
        license="DINOv3 License",
        container=("teacher",),
        signature=("backbone.downsample_layers.3.1.weight", "dino_head"),
        inside={"norm": _FINAL_NORM, "norms": "the same norm under a second name"},
        drops={"dino_head": _PROJECTOR, "ibot_head": _PROJECTOR},
        **(_CONVNEXT_ROW | {"prefix": "backbone."}),
    ),
    Layout(
        name="convnext-backbone",
        selfsup="vicregl",
        methods=("VICRegL",),
        source="https://github.com/facebookresearch/VICRegL: convnext.py, hubconf.py",
        license=_NON_COMMERCIAL,
        container=(),
        signature=("downsample_layers.3.1.weight", "stages.3.0.pwconv2"),
        absent=("norms.3", "head"),
        inside={"norm*": _FINAL_NORM},
        also=("convnext",),
        **_CONVNEXT_ROW,
    ),
    Layout(
        name="vicregl-convnext",
        selfsup="vicregl",
        methods=("VICRegL",),
        source="https://github.com/facebookresearch/VICRegL: main_vicregl.py, utils.py",
        license=_NON_COMMERCIAL,
        container=("model",),
        signature=("backbone.downsample_layers.3.1.weight", "backbone.stages.3.0.pwconv2"),
        inside={"norm*": _FINAL_NORM},
        drops={
            "projector": _PROJECTOR,
            "maps_projector": _PROJECTOR,
            "classifier": "online classifier",
        },
        **(_CONVNEXT_ROW | {"prefix": "backbone."}),
    ),
    Layout(
        name="timm-convnext",
        selfsup="timm",
        methods=("supervised, CLIP and DINOv3 ConvNeXts in timm's form",),
        source="https://github.com/huggingface/pytorch-image-models: timm/models/convnext.py",
        container=(),
        signature=("stem.0.weight", "stages.3.blocks.0.conv_dw", "stages.3.downsample.1"),
        inside={"head": _CLASSIFIER, "norm_pre": _FINAL_NORM},
        **(_CONVNEXT_ROW | {"renames": ()}),
    ),
    Layout(
        name="torchvision-convnext",
        selfsup="torchvision",
        methods=("supervised",),
        source="https://github.com/pytorch/vision: torchvision/models/convnext.py",
        container=(),
        signature=("features.0.0.weight", "features.7.0.block.5", "features.7.0.layer_scale"),
        inside={"classifier": _CLASSIFIER},
        **(_CONVNEXT_ROW | {"renames": TORCHVISION_CONVNEXT_NAMES}),
    ),
    *(
        Layout(
            name=f"hugging-face-{name}",
            selfsup="huggingface",
            methods=("ConvNextModel, ConvNextV2Model and their classifiers",),
            source="https://github.com/huggingface/transformers: models/convnext, models/convnextv2",
            container=(),
            signature=(f"{prefix}encoder.stages.3.layers.0.pwconv2",),
            inside={"layernorm": _FINAL_NORM},
            drops={"classifier": _CLASSIFIER},
            **(
                _CONVNEXT_ROW
                | {
                    "prefix": prefix,
                    "renames": HUGGING_FACE_CONVNEXT_NAMES,
                }
            ),
        )
        for name, prefix in (
            ("convnext", "convnext."),
            ("convnextv2", "convnextv2."),
            ("convnext-model", ""),
        )
    ),
    Layout(
        name="hugging-face-dinov3-convnext",
        selfsup="huggingface",
        methods=("DINOv3ConvNextModel",),
        source="https://github.com/huggingface/transformers: models/dinov3_convnext",
        container=(),
        signature=("stages.3.layers.0.pointwise_conv2", "stages.3.downsample_layers.1"),
        inside={"layer_norm": _FINAL_NORM},
        **(_CONVNEXT_ROW | {"renames": HUGGING_FACE_DINOV3_CONVNEXT_NAMES}),
    ),
)
LAYOUTS += CONVNEXT_LAYOUTS

DINO_VIT_NAMES: Renames = (
    ("register_tokens", "reg_token"),
    ("storage_tokens", "reg_token"),
    # DINOv2's giant has its gate packed, DINOv3's networks have it apart.
    ("blocks.*.mlp.w12", "blocks.*.mlp.fc1"),
    ("blocks.*.*.mlp.w12", "blocks.*.*.mlp.fc1"),
    ("blocks.*.mlp.w1", "blocks.*.mlp.fc1_g"),
    ("blocks.*.mlp.w2", "blocks.*.mlp.fc1_x"),
    ("blocks.*.mlp.w3", "blocks.*.mlp.fc2"),
    ("blocks.*.*.mlp.w3", "blocks.*.*.mlp.fc2"),
)
EVA_NAMES: Renames = (
    ("blocks.*.attn.q_bias", "blocks.*.attn.q.bias"),
    ("blocks.*.attn.v_bias", "blocks.*.attn.v.bias"),
    ("blocks.*.gamma_1", "blocks.*.ls1.gamma"),
    ("blocks.*.gamma_2", "blocks.*.ls2.gamma"),
)
"""timm's of an EVA, as it has DINOv3's networks, and iBOT's of a layer scale."""

HUGGING_FACE_VIT_NAMES: Renames = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.patch_embeddings", "patch_embed.proj"),
    *((blocks, "blocks") for blocks in ("encoder.layer", "model.layer", "layer", "layers")),
    ("blocks.*.layernorm_before", "blocks.*.norm1"),
    ("blocks.*.layernorm_after", "blocks.*.norm2"),
    ("blocks.*.attention.attention.query", "blocks.*.attn.q"),
    ("blocks.*.attention.attention.key", "blocks.*.attn.k"),
    ("blocks.*.attention.attention.value", "blocks.*.attn.v"),
    ("blocks.*.attention.output.dense", "blocks.*.attn.proj"),
    *((f"blocks.*.attention.{part}_proj", f"blocks.*.attn.{part}") for part in "qkv"),
    ("blocks.*.attention.o_proj", "blocks.*.attn.proj"),
    ("blocks.*.intermediate.dense", "blocks.*.mlp.fc1"),
    ("blocks.*.output.dense", "blocks.*.mlp.fc2"),
    ("blocks.*.mlp.weights_in", "blocks.*.mlp.fc1"),
    ("blocks.*.mlp.weights_out", "blocks.*.mlp.fc2"),
    ("blocks.*.mlp.gate_proj", "blocks.*.mlp.fc1_g"),
    ("blocks.*.mlp.up_proj", "blocks.*.mlp.fc1_x"),
    ("blocks.*.mlp.down_proj", "blocks.*.mlp.fc2"),
    ("blocks.*.layer_scale1.lambda1", "blocks.*.ls1.gamma"),
    ("blocks.*.layer_scale2.lambda1", "blocks.*.ls2.gamma"),
    ("layernorm", "norm"),
)
"""As files of every version of transformers have them, of ViT's, DINOv2's and DINOv3's classes."""

_MASK_TOKEN = "mask token of the pretraining"
_MASKS = {"mask_token": _MASK_TOKEN, "masked_embed": _MASK_TOKEN}
_HF_MASK = {"embeddings.mask_token": _MASK_TOKEN}
_CLASSES = {"head": _CLASSIFIER, "fc_norm": _FINAL_NORM}


def _positions(offset: float, antialias: bool, eps: float = 1e-6, **more: object) -> dict:
    """What no tensor of a ViT shows: by the project's `interpolate_pos_encoding` and its norms."""
    found = {"interpolate_offset": offset, "interpolate_antialias": antialias}
    return {"norm_eps": eps, **found, **more}


_BOTH = ["interpolate_antialias", "interpolate_offset"]
_DINO = _positions(0.1, False, head_dim=64)
_REGISTERS = _positions(0.0, True, head_dim=64)
_PLAIN = _positions(0.0, False)
_MOCO_V3 = _PLAIN | {"num_heads": 12}
_TIMM = _positions(0.0, True, assumed=["num_heads"])

_VIT_ROW = {
    "family": "vit",
    "prefix": "",
    "container": (),
    "input": IMAGES,
    "closed": True,
    "network": _DINO,
    "inside": _MASKS,
}
_VIT = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks")
_IN_TRAINING = tuple(f"backbone.{name}" for name in _VIT)
_DINO_ROW = _VIT_ROW | {
    "selfsup": "dino",
    "methods": ("DINO",),
    "source": "https://github.com/facebookresearch/dino: vision_transformer.py, main_dino.py",
    "license": "Apache-2.0",
}
_IBOT_ROW = _VIT_ROW | {
    "selfsup": "ibot",
    "methods": ("iBOT",),
    "source": "https://github.com/bytedance/ibot: models/vision_transformer.py, main_ibot.py",
    "license": "Apache-2.0",
    "renames": EVA_NAMES,
}
_TEACHER = {
    "container": ("teacher",),
    "prefix": "backbone.",
    "signature": _IN_TRAINING,
    "branch": "teacher",
    "other": Network("student", ("student",), "backbone."),
    "drops": {"head": _HEAD},
}
_MOCO_V3_ROW = _VIT_ROW | {
    "selfsup": "mocov3",
    "methods": ("MoCo v3",),
    "source": "https://github.com/facebookresearch/moco-v3: vits.py, moco/builder.py, main_moco.py",
    "license": _NON_COMMERCIAL,
    "container": ("state_dict",),
    "network": _MOCO_V3,
    "traps": ("its ViT-S has 12 heads, all others' 6, and no tensor shows it",),
    "inferred": "how positions are interpolated: it trains and tests at one size, with fixed sines",
}
_DINOV2_ROW = _VIT_ROW | {
    "selfsup": "dinov2",
    "methods": ("DINOv2", "what lightly-train exports of it"),
    "source": "https://github.com/facebookresearch/dinov2: dinov2/models/vision_transformer.py, hub/",
    "license": "Apache-2.0",
    "renames": DINO_VIT_NAMES,
    "traps": ("the hub interpolates positions otherwise where there are registers",),
}
_DINOV3_ROW = _VIT_ROW | {
    "selfsup": "dinov3",
    "methods": ("DINOv3", "what lightly-train exports of it"),
    "source": "https://github.com/facebookresearch/dinov3: dinov3/models/vision_transformer.py, hub/",
    "license": "DINOv3 License",
    "renames": DINO_VIT_NAMES,
    "network": {"norm_eps": 1e-5},
    "inside": _MASKS | dict.fromkeys(("cls_norm", "local_cls_norm"), "norm of the class token"),
    "traps": ("the bias of keys is masked to 0", "the norms' eps is 1e-5, unlike all others'"),
}
_META_HEADS = {"dino_head": _PROJECTOR, "ibot_head": _PROJECTOR, "gram_backbone": _STATE}
_META_TRAINING = {
    f"{of}{n}": why for of in ("teacher.", "student.") for n, why in _META_HEADS.items()
}
_META_TRAINING |= dict.fromkeys(("dino_loss", "ibot_patch_loss", "koleo_loss"), _STATE)
_LIGHTLY_TRAIN_VIT = "{}_embedding_model.wrapped_model._model."
_TIMM_ROW = _VIT_ROW | {
    "selfsup": "timm",
    "methods": ("supervised and self-supervised ViTs in timm's form",),
    "source": "https://github.com/huggingface/pytorch-image-models: timm/models/vision_transformer.py",
    "network": _TIMM,
    "absent": ("mask_token", "register_tokens", "decoder_embed"),
    "inside": _CLASSES,
}
_HF_ROW = _VIT_ROW | {
    "selfsup": "huggingface",
    "source": "https://github.com/huggingface/transformers: models/vit, vit_mae, dinov2, dinov3_vit",
    "renames": HUGGING_FACE_VIT_NAMES,
    "inside": _HF_MASK | {"pooler": _CLASSIFIER},
    "drops": {"classifier": _CLASSIFIER, "decoder": "decoder of the pretraining"},
}
VIT_LAYOUTS = (
    Layout(
        name="dino-vit",
        signature=_VIT,
        absent=("head", "fc_norm", "reg_token", "register_tokens", "**.ls1", "decoder_embed"),
        also=("ibot", "timm", "mae", "mocov3"),
        networks={"timm": _TIMM, "mae": _PLAIN, "ibot": _DINO, "mocov3": _MOCO_V3},
        traps=("timm's files without a head and MAE's have the same names: --selfsup says which",),
        **(_DINO_ROW | {"network": _DINO | {"assumed": _BOTH}}),
    ),
    Layout(
        name="dino-vit-training",
        entries=("student",),
        no_entries=("ibot_loss",),
        beside=TRAINING | {"dino_loss": "state of the loss"},
        traps=("the published evaluation uses the teacher",),
        **(_DINO_ROW | _TEACHER),
    ),
    Layout(
        name="ibot-training",
        entries=("student", "ibot_loss"),
        beside=TRAINING | {"ibot_loss": "state of the loss"},
        **(_IBOT_ROW | _TEACHER),
    ),
    Layout(
        name="ibot",
        signature=_VIT,
        no_entries=("version",),
        **(_IBOT_ROW | {"container": ("state_dict",), "network": _DINO | {"assumed": _BOTH}}),
    ),
    Layout(
        name="moco-v3-vit",
        signature=("base_encoder.cls_token", "base_encoder.blocks", "momentum_encoder"),
        branch="online",
        other=Network("momentum", ("state_dict",), "momentum_encoder."),
        drops={"predictor": _PREDICTOR},
        **(_MOCO_V3_ROW | {"prefix": "base_encoder.", "inside": {"head": _PROJECTOR}}),
    ),
    Layout(
        name="moco-v3-vit-head",
        signature=(*_VIT, "head"),
        entries=("arch", "best_acc1"),
        no_entries=("version",),
        **(_MOCO_V3_ROW | {"inside": {"head": _CLASSIFIER}}),
    ),
    Layout(
        name="mae",
        selfsup="mae",
        methods=("MAE", "MAE, fine-tuned"),
        source="https://github.com/facebookresearch/mae: models_mae.py, models_vit.py, util/",
        license=_NON_COMMERCIAL,
        signature=_VIT,
        absent=("**.ls1", "reg_token"),
        drops=dict.fromkeys(
            (
                *("decoder_embed", "decoder_pos_embed", "decoder_blocks"),
                *("decoder_norm", "decoder_pred"),
            ),
            "decoder of the pretraining",
        ),
        also=("mocov3",),
        networks={"mocov3": _MOCO_V3},
        traps=(
            "ViT-H has 16 heads of 80 channels",
            "MoCo v3's convert_to_deit.py writes the same names, with 12 heads in a ViT-S",
        ),
        **(_VIT_ROW | {"container": ("model",), "network": _PLAIN, "inside": _MASKS | _CLASSES}),
    ),
    Layout(
        name="dinov2",
        signature=("pos_embed", "mask_token", "**.ls1.gamma", "patch_embed.proj.weight"),
        absent=("register_tokens", "reg_token"),
        **_DINOV2_ROW,
    ),
    Layout(
        name="dinov2-reg",
        signature=("pos_embed", "mask_token", "register_tokens", "**.ls1.gamma"),
        **(_DINOV2_ROW | {"network": _REGISTERS}),
    ),
    *(
        Layout(
            name=f"dinov2{registers}-{name}",
            signature=(
                *(f"{of}backbone.{part}" for part in ("pos_embed", "blocks")),
                f"{of}dino_head",
                *((f"{of}backbone.register_tokens",) if registers else ()),
            ),
            absent=() if registers else (f"{of}backbone.register_tokens",),
            drops=_META_TRAINING if of else _META_HEADS,
            branch="teacher" if of else "",
            other=Network("student", ("model",), "student.backbone.") if of else None,
            **(
                _DINOV2_ROW
                | {"container": (container,), "prefix": f"{of}backbone."}
                # A training's config may have either.
                | {"network": (_REGISTERS | {"assumed": _BOTH}) if registers else _DINO}
            ),
        )
        for registers in ("", "-reg")
        for name, container, of in (("training", "model", "teacher."), ("teacher", "teacher", ""))
    ),
    Layout(
        name="dinov3-vit",
        signature=("cls_token", "rope_embed.periods", "patch_embed.proj.weight", "blocks"),
        absent=("head",),
        **_DINOV3_ROW,
    ),
    Layout(
        name="dinov3-vit-training",
        signature=("backbone.rope_embed.periods", "backbone.blocks", "dino_head"),
        drops=_META_HEADS,
        **(
            _DINOV3_ROW
            | {"container": ("teacher",), "prefix": "backbone."}
            | {"network": {"norm_eps": 1e-5, "assumed": ["norm_eps"]}}
            | {"traps": ("its default config has an eps of 1e-6, and turns in bfloat16: 1e-3 off",)}
        ),
    ),
    *(
        Layout(
            name=f"lightly-train-vit{registers}",
            selfsup="lightly_train",
            methods=("DINOv2 of lightly-train",),
            source=f"{_LIGHTLY_TRAIN}_models/dinov2_vit/dinov2_vit.py, _methods/dinov2/dinov2.py",
            signature=(
                f"{_LIGHTLY_TRAIN_VIT.format('teacher')}pos_embed",
                *((f"{_LIGHTLY_TRAIN_VIT.format('teacher')}register_tokens",) if registers else ()),
            ),
            absent=() if registers else (f"{_LIGHTLY_TRAIN_VIT.format('teacher')}register_tokens",),
            branch="teacher",
            other=Network("student", ("state_dict",), _LIGHTLY_TRAIN_VIT.format("student")),
            drops=_LIGHTLY_TRAIN_ROW["drops"]
            | {"teacher_head": _MOMENTUM_HEAD, "student_head": _PROJECTOR},
            beside=_LIGHTLY_TRAIN_ROW["beside"],
            **(
                _VIT_ROW
                | {"container": ("state_dict",), "prefix": _LIGHTLY_TRAIN_VIT.format("teacher")}
                | {"renames": DINO_VIT_NAMES, "closed": False}
                | {"network": (_REGISTERS if registers else _DINO) | {"assumed": _BOTH}}
            ),
        )
        for registers in ("", "-reg")
    ),
    Layout(name="timm-vit", signature=(*_VIT, "head"), **_TIMM_ROW),
    Layout(
        name="timm-dinov2",
        signature=(*_VIT, "blocks.0.ls1.gamma"),
        **(_TIMM_ROW | {"absent": (*_TIMM_ROW["absent"], "head")}),
    ),
    Layout(
        name="timm-vit-training",
        signature=_VIT,
        entries=("version",),
        **(_TIMM_ROW | {"container": ("state_dict",)}),
    ),
    Layout(
        name="timm-dinov3-vit",
        signature=("cls_token", "reg_token", "blocks.0.gamma_1", "blocks.0.attn.qkv.weight"),
        traps=("names without _qkvb lack the biases of queries and values: up to 0.30 off",),
        **(
            _TIMM_ROW
            | {"absent": ("pos_embed",), "renames": EVA_NAMES}
            | {"network": {"norm_eps": 1e-5, "assumed": ["rope_periods"]}}
        ),
    ),
    *(
        Layout(
            name=f"hugging-face-{name}{'-head' if prefix else ''}",
            methods=(methods,),
            signature=tuple(
                part if part.startswith("**.") else f"{prefix}{part}" for part in signature
            ),
            absent=tuple(f"{prefix}{part}" for part in absent),
            **(_HF_ROW | {"prefix": prefix, "network": network}),
        )
        for name, methods, prefixes, signature, absent, network in (
            (
                *("vit", "ViTModel, ViTMAEModel, ViTMSNModel: DINO, MAE and MSN in them"),
                *(("", "vit."), ("embeddings.position_embeddings", "**.layernorm_before"), ()),
                _positions(0.0, False, 1e-12, assumed=["norm_eps", "num_heads"]),
            ),
            (
                *("dinov2", "Dinov2Model", ("", "dinov2.")),
                ("embeddings.position_embeddings", "**.layer_scale1.lambda1"),
                ("embeddings.register_tokens",),
                _positions(0.0, False, head_dim=64),
            ),
            (
                *("dinov2-reg", "Dinov2WithRegistersModel", ("", "dinov2_with_registers.")),
                ("embeddings.position_embeddings", "embeddings.register_tokens"),
                *((), _REGISTERS),
            ),
            (
                *("dinov3-vit", "DINOv3ViTModel", ("",)),
                ("embeddings.patch_embeddings.weight", "embeddings.register_tokens", "norm"),
                ("embeddings.position_embeddings",),
                {"norm_eps": 1e-5, "assumed": ["rope_periods"]},
            ),
        )
        for prefix in prefixes
    ),
)
LAYOUTS += VIT_LAYOUTS

_HALVES = "CMC's two half networks, one for lightness and one for colour"
HALF_NETWORKS = dict.fromkeys(("**.encoder1", "**.encoder2", "**.l_to_ab", "**.ab_to_l"), _HALVES)
"""Where ResNets lie that read one or two channels, and which by themselves see no whole image."""

OTHER_NETWORKS = {
    "**.attnpool": "CLIP's ResNet, whose stem of three convolutions is not Detectron2's",
    "**.conv2_kxk": "a ByobNet of timm, as its CLIP ResNets are",
    "**.cls_attn_blocks": "an XCiT",
    "**.patch_embed*": "a Vision Transformer",
    "**.cls_token": "a Vision Transformer",
    "**.class_token": "a Vision Transformer",
    "**.class_embedding": "a Vision Transformer",
    "**.pos_embed*": "a Vision Transformer",
    "**.relative_position_bias_table": "a Swin Transformer",
    "**.dwconv": "a ConvNeXt",
    "**.conv_dw": "a ConvNeXt",
    "**.trunk_output": "a RegNet",
    "**.stages.*.blocks.*.norm1": "a pre-activation ResNet (ResNetV2)",
    "**.main_conv": "a ResNet with selective kernels (SimCLR v2's sk1)",
    "**.encoder1": _HALVES,
    "**.l_to_ab": _HALVES,
    "**.conv1_v1": _HALVES,
    "**.conv*.parametrizations": "a network whose weights are computed from others (torch's parametrize)",
    "**.conv*.weight_orig": "a pruned network (torch.nn.utils.prune) that still has its masks",
    "**.conv*.weight_g": "a network whose weights are normalised (torch's weight_norm)",
    "**.stem.0": "a ResNet with a deep stem (ResNetV1c or V1d)",
}
"""Names that give away a network that is no ResNet, and what it is. What differs from a ResNet in a few
tensors only is known by its shapes, in `resnet.py`."""

HAIKU = (
    "is a checkpoint of JAX and haiku, as BYOL and DetCon publish, whose network pads as TensorFlow does "
    "and not as Detectron2's: give a checkpoint that was trained with PyTorch"
)
