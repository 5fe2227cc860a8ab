"""What the conversion asks a family of networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ...errors import InputError

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, np.ndarray]
Features = Mapping[str, np.ndarray]
"""Of each stage, or of each stage and image."""
Shapes = Mapping[str, tuple[int, ...]]
Traits = Mapping[str, Any]
"""What a network computes and its tensors do not show, such as stride_in_1x1."""


class Architecture(Protocol):
    """One network of a family: its name, and the shape of each of its tensors, by the source's names."""

    name: str

    @property
    def shapes(self) -> Shapes: ...

    def to_dict(self) -> dict[str, object]:
        """As the provenance has it."""


class Wrong(NamedTuple):
    """A conversion that is wrong on purpose.

    Attributes:
        tensors: under Detectron2's names; None where the mistake changes nothing in these weights.
        traits: of the network that they are run in.
    """

    name: str
    tensors: Tensors | None
    traits: Traits


class StatedWrongly(InputError):
    """What a text, a provenance or a user says of a network, and none can be."""


class Family:
    """What an architecture knows of itself.

    A tensor has two names: the source's, which are those of the library that the family's layouts are mapped
    to, and the one of Detectron2's side, under which it is written.

    Attributes:
        name: stands in the provenance.
        title: what messages call one of its networks.
        roots: first parts of the source's names; what begins otherwise is none of the network's.
        begins: beginnings of names of which every such network has some.
        landmark: the source's name of a tensor that only a whole one has.
        stem: Detectron2's name of the first weight.
        detectron2_roots: beginnings of Detectron2's names.
        reference: whose network the source's is.
        untrained: what shows that one never was trained.
        needs: what a proof imports, as a message says it.
        tolerances: largest relative difference allowed in a stage, by precision.
        arguments: what tells one of its networks from another, of those of its constructor.
        unshown: those that no tensor shows.
    """

    name: str
    title: str
    roots: tuple[str, ...]
    begins: tuple[str, ...]
    landmark: str
    stem: str
    detectron2_roots: tuple[str, ...]
    reference: str
    untrained: str
    needs: str
    tolerances: Mapping[str, float]
    arguments: tuple[str, ...]
    unshown: tuple[str, ...] = ()

    def plain(self, name: str, value: object) -> tuple[str, object]:
        """An entry under the name and in the form that the family has it, whatever a project makes of it."""
        return name, value

    def merged(
        self, values: Mapping[str, object], known: Mapping[str, object] = MappingProxyType({})
    ) -> tuple[dict[str, object], dict[str, tuple[str, ...]]]:
        """The entries, several that are one tensor of the family's as that one, and what each is made of.

        What a project's code computes and its files leave out is added.
        """
        return dict(values), {}

    def is_trained(self, tensors: Tensors) -> bool:
        """Whether some are no longer at the values that they are initialised with."""
        raise NotImplementedError

    def closest(
        self, shapes: Shapes, known: Mapping[str, object] = MappingProxyType({})
    ) -> tuple[Architecture, dict[str, str]]:
        """The architecture with the fewest misfits, and those, by the source's names.

        Args:
            known: what is said of it that no shape shows.

        Raises:
            InputError: a network that is none of the family although it has its names.
        """
        raise NotImplementedError

    def to_detectron2(self, name: str) -> str:
        """Detectron2's name of a tensor, from the source's."""
        raise NotImplementedError

    def from_detectron2(self, name: str) -> str:
        """The source's name of a tensor, from Detectron2's.

        Raises:
            ValueError: it is no name of such a network's tensor.
        """
        raise NotImplementedError

    def fault_in(self, architecture: Mapping[str, object]) -> str:
        """What of an architecture in a provenance cannot be; empty where all can."""
        return ""

    def backbone(self, architecture: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
        """The place in a config, and what builds an architecture, as the provenance has it, there."""
        raise NotImplementedError

    def config_line(self, architecture: Mapping[str, object]) -> str:
        """The line of a config that builds it."""
        place, value = self.backbone(architecture)
        return f"{place} = {_lazy_call(value)}"

    def overrides(self, architecture: Mapping[str, object]) -> list[str]:
        """The same on a command line: what stood there is taken away first, or the two would be merged."""
        place, value = self.backbone(architecture)
        return [f"{place}=null", f"{place}={_override(value)}"]

    def traits(self, origin: Mapping[str, Any]) -> Traits:
        """What a file's origin, as the provenance has it, says of what its tensors do not show."""
        return {}

    def facts(self, tensors: Tensors) -> dict[str, object]:
        """What the provenance says beside the architecture, out of tensors that are numbers of the code's."""
        return {}

    def import_networks(self) -> None:
        """Import what a proof needs.

        Raises:
            ImportError: it is not there.
        """
        raise NotImplementedError

    def expected(
        self, tensors: Tensors, architecture: Architecture, traits: Traits
    ) -> dict[str, Features]:
        """The features of the source's network in each precision, for fixed images."""
        raise NotImplementedError

    def network(self, architecture: Architecture, traits: Traits) -> Any:
        """Detectron2's, without weights."""
        raise NotImplementedError

    def features(self, network: Any, tensors: Tensors, precision: str) -> Features:
        """Of that network with these tensors, for the same images."""
        raise NotImplementedError

    def wrong_conversions(
        self, tensors: Tensors, architecture: Architecture, traits: Traits
    ) -> Iterator[Wrong]:
        """Mistakes that people make, each of which must be seen."""
        raise NotImplementedError

    def written(self, tensors: Tensors) -> Tensors:
        """Tensors under Detectron2's names."""
        return {self.to_detectron2(name): array for name, array in tensors.items()}

    def is_part(self, names: Sequence[str]) -> bool:
        """Whether any of these names is one of such a network."""
        return any(name.startswith(self.begins) for name in names)


class TimmFamily(Family):
    """One with timm's names, whose Detectron2 side runs timm's modules below one root.

    Against timm its proof would show nothing: the reference is a forward of the family's own.
    """

    reference = "the reference"
    untrained = "layer norms whose scales are all at 1"
    needs = "PyTorch, Detectron2 and timm (pip install 'ssl-backbones[vit]')"
    tolerances = MappingProxyType({"float64": 1e-10, "float32": 1e-4})

    def image_sizes(self, kernel: tuple[int, ...]) -> Iterable[tuple[int, int]]:
        """Heights and widths of a proof's images, in pixels, for a first kernel of this shape."""
        raise NotImplementedError

    def forward(
        self, state: Mapping[str, torch.Tensor], architecture: Architecture, image: torch.Tensor
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Maps by their names, by the papers' formulas."""
        raise NotImplementedError

    def to_detectron2(self, name: str) -> str:
        return f"{self.name}.{name}"

    def from_detectron2(self, name: str) -> str:
        if not name.startswith(f"{self.name}."):
            raise ValueError(f"{name!r} is no tensor of a {self.title}")
        return name.removeprefix(f"{self.name}.")

    def import_networks(self) -> None:
        import detectron2.modeling  # noqa: F401
        import timm  # noqa: F401

    def expected(
        self, tensors: Tensors, architecture: Architecture, traits: Traits
    ) -> dict[str, Features]:
        import torch

        expected = {}
        for precision in self.tolerances:
            dtype = getattr(torch, precision)
            state = in_torch(tensors, dtype)
            images = self._images(tensors[self.from_detectron2(self.stem)].shape, dtype)
            with torch.inference_mode():
                expected[precision] = {
                    f"{name}, {size}": values.numpy()
                    for size, image in images
                    for name, values in self.forward(state, architecture, image)
                }
        return expected

    def features(self, network: Any, tensors: Tensors, precision: str) -> Features:
        import torch

        dtype = getattr(torch, precision)
        network.load_state_dict(in_torch(tensors, dtype), strict=True, assign=True)
        with torch.inference_mode():
            return {
                f"{name}, {size}": values.numpy()
                for size, image in self._images(tensors[self.stem].shape, dtype)
                for name, values in network(image).items()
            }

    def _images(
        self, kernel: tuple[int, ...], dtype: torch.dtype
    ) -> Iterator[tuple[str, torch.Tensor]]:
        import torch

        random = np.random.default_rng(0)
        for height, width in self.image_sizes(kernel):
            image = random.standard_normal((1, kernel[1], height, width))
            yield f"{height}x{width}", torch.from_numpy(image).to(dtype)


def affine_shapes(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Of a weight of this shape and its bias."""
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _lazy_call(value: object) -> str:
    if not isinstance(value, Mapping):
        return repr(value)
    words = (f"{key}={_lazy_call(of)}" for key, of in value.items() if key != "_target_")
    return f"L({str(value['_target_']).rpartition('.')[2]})({', '.join(words)})"


def _override(value: object) -> str:
    """In hydra's grammar, without spaces."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_override(of)}' for key, of in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_override, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def reversed_channels(tensors: Tensors, stem: str) -> dict[str, Tensors]:
    """A mistake of every family, by its name: what a network with the other order of channels computes."""
    kernel = tensors[stem]
    name = "BGR statistics" if kernel.shape[1] == 3 else "channels reversed"
    return {name: {stem: np.ascontiguousarray(kernel[:, ::-1])}}


def swapped(tensors: Tensors, first: str, second: str) -> Tensors:
    """Those below two beginnings of names, each in the other's place."""
    return {
        name: tensors[(second if name.startswith(first) else first) + name[len(first) :]]
        for name in tensors
        if name.startswith((first, second))
    }


def changed_in(tensors: Tensors, changes: Tensors) -> Tensors | None:
    """The tensors with these in place of theirs; None where that changes nothing."""
    if all(np.array_equal(tensors[name], value) for name, value in changes.items()):
        return None
    return {**tensors, **changes}


def in_torch(tensors: Tensors, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The same as torch's, of another type; copied is only what the file holds unaligned or read-only."""
    import torch

    arrays = {name: np.require(array, requirements="CAW") for name, array in tensors.items()}
    return {name: torch.from_numpy(array).to(dtype) for name, array in arrays.items()}
