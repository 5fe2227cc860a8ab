"""Proves a conversion: one input through the source's network and Detectron2's gives one result.

The source's network is torchvision's. In float32 both run the same kernels in the same order, so
that a right conversion differs by nothing at all; in float64 torchvision's runs on another memory
format, hence by other kernels, and rounding is all that a right conversion may differ by. The same
comparison is made with conversions that are wrong on purpose, so that its reader sees that it can
fail, and by how much.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..modeling.architectures import Architecture, detectron2_name

if TYPE_CHECKING:
    from .extraction import Loaded

TOLERANCES = {"float64": 1e-10, "float32": 1e-5}
"""Largest difference allowed in a stage, relative to its largest value: far above rounding, and far
below the 1e-2 of a single wrong tensor."""

_INPUT_SIZE = (65, 98)  # odd and even sides: both roundings of a stride occur
_TORCHVISION_STAGES = {"res2": "layer1", "res3": "layer2", "res4": "layer3", "res5": "layer4"}

Tensors = Mapping[str, np.ndarray]
Features = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """Largest difference in a stage: as it is, and relative to the stage's largest value."""

    absolute: float
    relative: float


@dataclass(frozen=True)
class Proof:
    """What the comparison found.

    Attributes:
        stages: "float64" and "float32", then res2..res5, to the largest difference.
        controls: what is wrong in a wrong conversion to the largest relative difference that it
            shows, or None where the mistake changes nothing in these weights.
        other_branch: the same for the other network of the file, in place of the one that was
            taken; None where there is none. It may be small: a momentum copy ends near its model.
        tolerances: relative difference allowed, by precision.
    """

    stages: Mapping[str, Mapping[str, Difference]]
    controls: Mapping[str, float | None]
    other_branch: float | None
    tolerances: Mapping[str, float]

    @property
    def margin(self) -> float | None:
        """How many times float32's tolerance the least of the wrong conversions differs."""
        scores = [score for score in self.controls.values() if score is not None]
        return min(scores) / self.tolerances["float32"] if scores else None

    def to_dict(self) -> dict:
        return asdict(self) | {"margin": self.margin}


def prove(
    source: Tensors,
    converted: Tensors,
    architecture: Architecture,
    other_branch: Tensors | None = None,
    *,
    stride_in_1x1: bool = False,
) -> Proof:
    """Compare res2..res5 of torchvision's network and Detectron2's on one fixed input, on the CPU.

    Args:
        source: the file's tensors under torchvision's names.
        converted: the same under Detectron2's names, as they are written.
        other_branch: the tensors that would be written from the file's other network.
        stride_in_1x1: whether both networks have their strides in the 1x1 convolutions.

    Raises:
        InputError: a stage differs by more than `TOLERANCES`, or a wrong conversion does not; torch,
            torchvision or Detectron2 cannot be imported.
    """
    _import_networks()
    with _one_thread():
        expected = _torchvision_features(source, architecture, stride_in_1x1)
        _refuse_spoilt(expected["float32"])
        network = _detectron2_network(architecture, stride_in_1x1)
        converted = {name: _for_torch(array) for name, array in converted.items()}

        def compare(tensors: Tensors, precision: str, network=network) -> dict[str, Difference]:
            return _differences(expected[precision], _run(network, tensors, precision))

        def score(tensors: Tensors | None, network=network) -> float | None:
            if tensors is None:
                return None
            stages = compare(tensors, "float32", network)
            return max(difference.relative for difference in stages.values())

        controls = {name: score(wrong) for name, wrong in _wrong_conversions(converted).items()}
        if architecture.has_bottlenecks:  # or there is no 1x1 convolution to put a stride in
            moved = _detectron2_network(architecture, not stride_in_1x1)
            kernel = "3x3" if stride_in_1x1 else "1x1"
            controls[f"stride in the {kernel}"] = score(converted, moved)
        proof = Proof(
            stages={precision: compare(converted, precision) for precision in TOLERANCES},
            controls=controls,
            other_branch=score(other_branch),
            tolerances=dict(TOLERANCES),
        )
    _refuse_unproved(proof)
    return proof


def prove_loaded(loaded: Loaded, source: Loaded | None = None) -> Proof:
    """The proof of what would be written of a file's backbone, or was written of `source`'s."""
    source = source or loaded
    # What the file records counts: its source may have lost the text beside it that said so.
    recorded = loaded if loaded.origin["input"] else source
    model = {detectron2_name(name): array for name, array in loaded.backbone.tensors.items()}
    return prove(
        source.backbone.tensors,
        model,
        loaded.backbone.architecture,
        source.other_branch,
        stride_in_1x1=recorded.stride_in_1x1,
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """So little work is done soonest by one thread, above all where others keep the cores busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _import_networks() -> None:
    try:
        with warnings.catch_warnings():  # these libraries warn of each other's ageing parts
            warnings.simplefilter("ignore")
            import detectron2.modeling  # noqa: F401
            import torchvision  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"cannot be proved without PyTorch, torchvision and Detectron2 ({error}); install them, "
            "or convert without the proof (--no-verify)"
        ) from error


def _refuse_spoilt(features: Features) -> None:
    for stage, values in features.items():
        largest = np.abs(values).max()
        if not 0 < largest < np.inf:
            raise InputError(
                f"holds weights whose own network gives features of size {largest} in {stage}: the "
                "training went wrong; give another checkpoint of it"
            )


def _refuse_unproved(proof: Proof) -> None:
    for precision, stages in proof.stages.items():
        allowed = proof.tolerances[precision]
        for stage, difference in stages.items():
            if difference.relative > allowed:
                raise InputError(
                    f"failed the proof: {stage} of Detectron2's network in {precision} differs from "
                    f"torchvision's by {difference.relative:.1e} of its largest value, more than "
                    f"{allowed:.0e}; please report this with the file"
                )
    for name, score in proof.controls.items():
        if score is not None and score <= proof.tolerances["float32"]:
            raise InputError(
                f"cannot be proved: a conversion with {name} gives the same features within "
                f"{score:.1e}, so the comparison shows nothing; the weights look untrained or dead "
                "(--no-verify converts without the proof)"
            )


def _differences(expected: Features, features: Features) -> dict[str, Difference]:
    differences = {}
    for stage, values in expected.items():
        absolute = np.abs(np.asarray(features[stage]) - values).max()
        # NaN and infinity, which a wrong conversion may give, have no place in JSON.
        both = (absolute, absolute / np.abs(values).max())
        differences[stage] = Difference(*(_finite(difference) for difference in both))
    return differences


def _finite(value: np.floating) -> float:
    largest = float(np.finfo(np.float32).max)
    return float(np.nan_to_num(value, nan=largest, posinf=largest))


def _wrong_conversions(tensors: Tensors) -> dict[str, Tensors | None]:
    """Mistakes in the stem, which every later feature depends on.

    Statistics in BGR's order feed a network with its input channels reversed, which is what a first
    convolution with reversed input channels computes.
    """
    norm = "stem.conv1.norm."
    mean, variance, bias = (
        tensors[norm + name] for name in ("running_mean", "running_var", "bias")
    )
    first = "stem.conv1.weight"
    reversed_order = "BGR statistics" if tensors[first].shape[1] == 3 else "channels reversed"
    wrong = {
        reversed_order: {first: np.ascontiguousarray(tensors[first][:, ::-1])},
        "one batch norm's statistics dropped": {
            f"{norm}running_mean": np.zeros_like(mean),
            f"{norm}running_var": np.ones_like(variance),
        },
        "two batch norm tensors swapped": {f"{norm}running_mean": bias, f"{norm}bias": mean},
    }
    return {
        name: {**tensors, **changes} if _changes(tensors, changes) else None
        for name, changes in wrong.items()
    }


def _changes(tensors: Tensors, changes: Tensors) -> bool:
    return any(not np.array_equal(tensors[name], value) for name, value in changes.items())


def _torchvision_features(
    tensors: Tensors, architecture: Architecture, stride_in_1x1: bool
) -> dict[str, Features]:
    """The source's features in each precision."""
    network = torchvision_network(architecture, stride_in_1x1)
    features = {}

    def keep(stage: str) -> Callable:
        return lambda module, inputs, output: features.update({stage: output.numpy()})

    for stage, layer in _TORCHVISION_STAGES.items():
        network.get_submodule(layer).register_forward_hook(keep(stage))
    expected = {}
    for precision in TOLERANCES:
        _run(network, tensors, precision, other_kernels=precision == "float64")
        expected[precision] = dict(features)
    return expected


def torchvision_network(architecture: Architecture, stride_in_1x1: bool = False):
    """torchvision's ResNet of any widths, without a classifier, on the meta device.

    Its strides lie in the 3x3 convolutions; with `stride_in_1x1` those of the bottlenecks are moved.

    torchvision's constructor has no argument for the stem's width and the stages' output, which
    SwAV's wide networks double (swav src/resnet50.py, `widen`); what it builds them with, and all
    that computes, is used as it is.
    """
    import torch
    from torchvision.models import resnet

    block = resnet.Bottleneck if architecture.has_bottlenecks else resnet.BasicBlock
    planes = architecture.res2_channels // block.expansion
    stem = architecture.stem_channels
    with torch.device("meta"):  # no memory and no random numbers for weights to be replaced
        network = resnet.ResNet(block, list(architecture.blocks), groups=architecture.groups)
        network.fc = torch.nn.Identity()
        if architecture.has_bottlenecks:  # `width = int(planes * (base_width / 64)) * groups`
            width = architecture.bottleneck_channels // architecture.groups
            network.base_width = 64 * width / planes
        network.inplanes = stem
        network.conv1 = torch.nn.Conv2d(
            architecture.in_channels, stem, 7, stride=2, padding=3, bias=False
        )
        network.bn1 = torch.nn.BatchNorm2d(stem)
        for stage, blocks in enumerate(architecture.blocks):
            layer = network._make_layer(block, planes << stage, blocks, stride=min(1 + stage, 2))
            setattr(network, f"layer{stage + 1}", layer)
    if stride_in_1x1:
        for module in network.modules():
            if isinstance(module, resnet.Bottleneck):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    return network


def _detectron2_network(architecture: Architecture, stride_in_1x1: bool):
    import torch

    from ..modeling.resnet import build_resnet

    widths = asdict(architecture)
    del widths["name"]
    with torch.device("meta"):
        return build_resnet(**widths, stride_in_1x1=stride_in_1x1)


def _run(network, tensors: Tensors, precision: str, *, other_kernels: bool = False):
    """The network's output for the fixed input, with every one of its tensors from `tensors`."""
    import torch

    dtype = getattr(torch, precision)
    state = {name: torch.from_numpy(_for_torch(array)).to(dtype) for name, array in tensors.items()}
    counters = [name for name in network.state_dict() if name.endswith("num_batches_tracked")]
    state |= {name: torch.tensor(0) for name in counters}
    network.load_state_dict(state, strict=True, assign=True)
    first = tensors["conv1.weight" if "conv1.weight" in tensors else "stem.conv1.weight"]
    image = np.random.default_rng(0).standard_normal((1, first.shape[1], *_INPUT_SIZE))
    image = torch.from_numpy(image).to(dtype)
    if other_kernels:
        network.to(memory_format=torch.channels_last)
        image = image.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return network.eval()(image)


def _for_torch(array: np.ndarray) -> np.ndarray:
    """Aligned and writeable, as torch wants it: a copy only of what the file holds otherwise."""
    return np.require(array, requirements="CAW")
