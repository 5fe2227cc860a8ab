"""Proves a conversion: one input through torchvision's ResNet and Detectron2's gives one result.

The same comparison is made with conversions that are wrong on purpose, so that its reader sees that
it can fail, and by how much.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import InputError
from .resnet import Architecture

TOLERANCE = 1e-5
"""Largest difference allowed in a stage, relative to its largest value; rounding makes about 1e-6."""

_INPUT_SHAPE = (1, 3, 97, 130)  # odd and even sides: both roundings of a stride occur
_TORCHVISION_STAGES = {"res2": "layer1", "res3": "layer2", "res4": "layer3", "res5": "layer4"}

Tensors = Mapping[str, np.ndarray]
Features = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Proof:
    """What the comparison found.

    Attributes:
        stages: res2..res5 to the largest difference relative to the stage's largest value.
        controls: what is wrong in a wrong conversion to the largest difference that it shows, or
            None where the mistake changes nothing in these weights.
    """

    stages: Mapping[str, float]
    controls: Mapping[str, float | None]
    tolerance: float = TOLERANCE

    @property
    def margin(self) -> float | None:
        """How many times the tolerance the least of the wrong conversions differs."""
        scores = [score for score in self.controls.values() if score is not None]
        return min(scores) / self.tolerance if scores else None

    def to_dict(self) -> dict:
        return asdict(self) | {"margin": self.margin}


def prove(source: Tensors, converted: Tensors, architecture: Architecture) -> Proof:
    """Compare res2..res5 of torchvision's network and Detectron2's on one fixed input, on the CPU.

    Args:
        source: the file's tensors under torchvision's names.
        converted: the same under Detectron2's names, as they are written.

    Raises:
        InputError: a stage differs by more than `TOLERANCE`, or a wrong conversion does not; torch,
            torchvision or Detectron2 cannot be imported.
    """
    _import_networks()
    with _one_thread():
        expected = _torchvision_features(source, architecture)
        _refuse_spoilt(expected)
        converted = {name: _for_torch(array) for name, array in converted.items()}

        def score(tensors: Tensors, **changes) -> dict[str, float]:
            return _differences(expected, _detectron2_features(tensors, architecture, **changes))

        proof = Proof(
            stages=score(converted),
            controls={
                name: max(score(wrong).values()) if wrong is not None else None
                for name, wrong in _wrong_conversions(converted).items()
            }
            | {"stride in the 1x1": max(score(converted, stride_in_1x1=True).values())},
        )
    _refuse_unproved(proof)
    return proof


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
    for stage, difference in proof.stages.items():
        if difference > proof.tolerance:
            raise InputError(
                f"failed the proof: {stage} of Detectron2's network differs from torchvision's by "
                f"{difference:.1e} of its largest value, more than {proof.tolerance:.0e}; please "
                "report this with the file"
            )
    for name, score in proof.controls.items():
        if score is not None and score <= proof.tolerance:
            raise InputError(
                f"cannot be proved: a conversion with {name} gives the same features within "
                f"{score:.1e}, so the comparison shows nothing; the weights look untrained or dead "
                "(--no-verify converts without the proof)"
            )


def _differences(expected: Features, features: Features) -> dict[str, float]:
    differences = {}
    for stage, values in expected.items():
        difference = np.abs(features[stage] - values).max() / np.abs(values).max()
        # NaN and infinity, which a wrong conversion may give, have no place in JSON.
        differences[stage] = float(np.nan_to_num(difference, nan=np.finfo(np.float32).max))
    return differences


def _wrong_conversions(tensors: Tensors) -> dict[str, Tensors | None]:
    """Mistakes in the stem's batch norm, which every later feature depends on."""
    norm = "stem.conv1.norm."
    mean, variance, bias = (
        tensors[norm + name] for name in ("running_mean", "running_var", "bias")
    )
    wrong = {
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


def _torchvision_features(tensors: Tensors, architecture: Architecture) -> Features:
    import torch
    from torchvision.models import resnet

    block = resnet.Bottleneck if architecture.has_bottlenecks else resnet.BasicBlock
    with torch.device("meta"):  # no memory and no random numbers for weights to be replaced
        network = resnet.ResNet(block, list(architecture.blocks))
    network.fc = torch.nn.Identity()
    features = {}

    def keep(stage: str) -> Callable:
        return lambda module, inputs, output: features.update({stage: output.numpy()})

    for stage, layer in _TORCHVISION_STAGES.items():
        network.get_submodule(layer).register_forward_hook(keep(stage))
    _run(network, tensors)
    return features


def _detectron2_features(
    tensors: Tensors, architecture: Architecture, *, stride_in_1x1: bool = False
) -> Features:
    import torch
    from detectron2.modeling.backbone import BasicStem, ResNet

    with torch.device("meta"):
        network = ResNet(
            BasicStem(norm="BN"),
            ResNet.make_default_stages(architecture.depth, norm="BN", stride_in_1x1=stride_in_1x1),
            out_features=list(_TORCHVISION_STAGES),
        )
    return {stage: output.numpy() for stage, output in _run(network, tensors).items()}


def _run(network, tensors: Tensors):
    """The network's output for the fixed input, with every one of its tensors from `tensors`."""
    import torch

    state = {name: torch.from_numpy(_for_torch(array)) for name, array in tensors.items()}
    counters = [name for name in network.state_dict() if name.endswith("num_batches_tracked")]
    state |= {name: torch.tensor(0) for name in counters}
    network.load_state_dict(state, strict=True, assign=True)
    generator = np.random.default_rng(0)
    image = torch.from_numpy(generator.standard_normal(_INPUT_SHAPE).astype(np.float32))
    with torch.inference_mode():
        return network.eval()(image)


def _for_torch(array: np.ndarray) -> np.ndarray:
    """Aligned and writeable, as torch wants it: a copy only of what the file holds otherwise."""
    return np.require(array, requirements="CAW")
