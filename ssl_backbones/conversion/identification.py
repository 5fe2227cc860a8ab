"""Which of the known layouts a checkpoint has, and which of its networks is to be taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..errors import InputError, format_name
from .containers import other_kinds
from .families import FAMILIES, RESNET, Family
from .layouts import (
    ASSUMED_INPUT,
    HAIKU,
    LAYOUTS,
    OTHER_NETWORKS,
    Layout,
    Network,
    covers,
    reason_to_drop,
    renamed,
)
from .searching import (
    File,
    StateDict,
    format_nearest,
    format_options,
    format_tree,
    is_haiku,
    is_whole,
    places,
    state_dicts_in,
    without_wrappers,
)

SELFSUP_NAMES = tuple(
    dict.fromkeys(
        [layout.selfsup for layout in LAYOUTS]
        + [name for layout in LAYOUTS for name in layout.selfsup_names]
    )
)
BRANCHES = ("online", "momentum", "student", "teacher")


@dataclass(frozen=True)
class Identified:
    """One network of a file, and the layout that says where it lies.

    Attributes:
        method: as the command line names it: what was asked for, or else the layout's first.
        branch: which of two networks this is; None where the file's layout has one.
        prefix: of this network's names without wrappers.
        names: each key of the state dict without the wrappers in it (`searching.WRAPPERS`).
        drops: names of the state dict, without wrappers, that are left out, each with the reason.
        beside: entries of the file beside the state dict.
        beside_reasons: why they are left out.
        other: the file's other network; None where there is none.
        stages_only: whether what lies beside the ResNet's stem and stages is outside the network, as
            behind a prefix that a user gave; a layout says itself what is left out.
    """

    layout: Layout
    method: str
    branch: str | None
    prefix: str
    state_dict: Mapping[str, object]
    names: Mapping[str, str]
    drops: Mapping[str, str]
    beside: tuple[str, ...]
    beside_reasons: Mapping[str, str]
    other: Identified | None = None
    stages_only: bool = False

    def plain(self, key: str) -> str:
        """The key without wrappers."""
        return self.names.get(key, key)

    @property
    def family(self) -> Family:
        return FAMILIES[self.layout.family]

    @property
    def network(self) -> Mapping[str, object]:
        """What the layout says of the network that no tensor shows."""
        return self.layout.networks.get(self.method, self.layout.network)

    def name_of(self, key: str) -> str | None:
        """The family's name for the tensor of this key; None outside the network."""
        plain = self.plain(key)
        if not plain.startswith(self.prefix):
            return None
        name = renamed(plain.removeprefix(self.prefix), self.layout.renames)
        is_outside = self.stages_only and name.split(".")[0] not in self.family.roots
        return None if is_outside else name


def identify(
    content: object,
    selfsup: str = "auto",
    *,
    branch: str | None = None,
    prefix: str | None = None,
) -> Identified:
    """The layout of what a checkpoint holds, and the network in it that is to be converted.

    Args:
        selfsup: names the only layouts to try, or "auto".
        branch: the network to take of two, instead of the one that the project itself evaluates.
        prefix: where a ResNet lies in a file of none of the layouts.

    Raises:
        InputError: no layout, or not the named one, fits; the message says what does.
    """
    _check_arguments(selfsup, branch, prefix)
    if type(content) is not dict:
        raise InputError(f"holds a {type(content).__name__} instead of a dictionary of tensors")
    if prefix is not None:
        return _at_prefix(content, prefix, selfsup)
    fitting = _fitting(File(content))
    chosen = [found for found in fitting if selfsup in ("auto", *found.layout.selfsup_names)]
    if len(chosen) > 1:
        chosen = [found for found in chosen if _holds(found)] or chosen[:1]
    if len(chosen) == 1:
        found = _of_branch(chosen[0], branch)
        if found.family is RESNET:
            _refuse_other_networks(filter(None, map(found.name_of, found.state_dict)))
        return replace(found, method=selfsup if selfsup != "auto" else found.layout.selfsup)
    if chosen:
        raise _several(chosen, content)
    if fitting:
        fits = fitting[0].layout.selfsup
        raise InputError(
            f"is not laid out as {selfsup} does it but as {fits}: use --selfsup {fits}"
        )
    raise _unknown(content)


def _check_arguments(selfsup: str, branch: str | None, prefix: str | None) -> None:
    if selfsup not in ("auto", *SELFSUP_NAMES):
        known = ", ".join(("auto", *SELFSUP_NAMES))
        raise InputError(f"there is no method {selfsup!r}; choose one of {known}")
    if branch is not None and branch not in BRANCHES:
        raise InputError(f"there is no branch {branch!r}; choose one of {', '.join(BRANCHES)}")
    if branch is not None and prefix is not None:
        raise InputError("--prefix names a network by itself; leave --branch out")


# Layouts


def _holds(found: Identified) -> bool:
    """Whether the network lies whole where the layout says."""
    held = StateDict(dict(found.state_dict), ())
    return is_whole(held, found.family, found.prefix, found.layout.renames)


def _several(chosen: list[Identified], content: dict) -> InputError:
    """Of the words that --selfsup knows, those that leave one of the layouts."""
    names = ", ".join(found.layout.name for found in chosen)
    words = [word for found in chosen for word in found.layout.selfsup_names]
    alone = dict.fromkeys(word for word in words if words.count(word) == 1)
    mend = f"name the method with --selfsup {' or '.join(alone)}"
    if not alone:
        mend = f"choose the network with --prefix, from {format_options(places(content))}"
    return InputError(f"could be of several layouts ({names}); {mend}")


def _fitting(file: File) -> list[Identified]:
    """What the file may be: by its containers, or as a state dict that was saved by itself."""
    fitting = [found for layout in LAYOUTS if (found := _fit(file, layout)) is not None]
    if fitting or file.state_dict(()) is None:
        return fitting
    alone: dict[tuple, Identified] = {}
    for layout in LAYOUTS:
        if layout.container and not layout.entries:
            inner = replace(layout, container=(), other=_without_container(layout))
            if found := _fit(file, inner):
                alone.setdefault((layout.selfsup, layout.prefix, layout.renames), found)
    return list(alone.values())


def _without_container(layout: Layout) -> Network | None:
    if layout.other is None or layout.other.container != layout.container:
        return None
    return replace(layout.other, container=())


def _fit(file: File, layout: Layout) -> Identified | None:
    held = file.state_dict(layout.container)
    if held is None or not _fits(held, layout):
        return None
    network = Network(layout.branch, layout.container, layout.prefix)
    found = _look(file, layout, network, layout.other)
    if found is None or layout.other is None:
        return found
    return replace(found, other=_look(file, layout, layout.other, network))


def _fits(held: StateDict, layout: Layout) -> bool:
    """Whether the names are this layout's, wherever its network lies."""
    return (
        all(name in held.beside for name in layout.entries)
        and not any(name in held.beside for name in layout.no_entries)
        and all(held.holds(name) for name in layout.signature)
        and not any(held.holds(name) for name in layout.absent)
        and (not layout.closed or all(_accounted_for(layout, key) for key in held.keys))
    )


def _look(
    file: File, layout: Layout, network: Network, not_taken: Network | None
) -> Identified | None:
    """The file as `layout` lays it out with `network` as the one to take, if it is there."""
    held = file.state_dict(network.container)
    top = network.prefix.removesuffix(".")
    if held is None or (top and not held.holds(top)):
        return None
    drops = {f"{network.prefix}{name}": reason for name, reason in layout.inside.items()}
    drops |= layout.drops
    beside_reasons = dict(layout.beside)
    if not_taken is not None:
        reason = f"the {not_taken.branch} network, which --branch {not_taken.branch} takes"
        if not_taken.container == network.container:
            drops[not_taken.prefix.removesuffix(".")] = reason
        else:
            beside_reasons[not_taken.container[0]] = reason
    if layout.duplicate:
        drops[layout.duplicate.removesuffix(".")] = "a second copy of the same weights"
    return Identified(
        layout=layout,
        method=layout.selfsup,
        branch=network.branch or None,
        prefix=network.prefix,
        state_dict=held.tensors,
        names=held.names,
        drops=drops,
        beside=held.beside,
        beside_reasons=beside_reasons,
    )


def _accounted_for(layout: Layout, key: str) -> bool:
    if reason_to_drop(layout.drops, key):
        return True
    other = layout.other
    beside = other is not None and other.container == layout.container
    for prefix in (layout.prefix, *((other.prefix,) if beside else ())):
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and (
            renamed(name, layout.renames).split(".")[0] in FAMILIES[layout.family].roots
            or reason_to_drop(layout.inside, name) is not None
        ):
            return True
    return False


def _of_branch(found: Identified, branch: str | None) -> Identified:
    """The named network of an identified file, with the other one as its `other`."""
    if branch is None or branch == found.branch:
        return found
    if found.other is not None and branch == found.other.branch:
        return replace(found.other, other=replace(found, other=None))
    held = [one.branch for one in (found, found.other) if one is not None and one.branch]
    if len(held) == 2:
        raise InputError(f"holds no {branch} network but {held[0]} and {held[1]}: name one of them")
    raise InputError(f"holds one network and no {branch} branch beside it: leave --branch out")


def _refuse_other_networks(names: Iterable[str]) -> None:
    names = list(names)
    for pattern, network in OTHER_NETWORKS.items():
        for name in names:
            if covers(pattern, name):
                raise InputError(
                    f"holds {network} ({format_name(name)}), of a kind that is not converted; give a file "
                    "that was pretrained with a plain ResNet, ResNeXt, ConvNeXt or ViT"
                )


# Files of no known layout


def _at_prefix(content: dict, prefix: str, selfsup: str) -> Identified:
    there = places(content)
    chosen = []
    for asked in dict.fromkeys((prefix, without_wrappers(prefix))):
        chosen = chosen or [place for place in there if place.label == asked]
        chosen = chosen or [
            place for place in there if {asked, f"{asked}."} & {place.prefix, place.label}
        ]
    if not chosen:
        found = f"it has one under {format_options(there)}" if there else format_tree(content)
        raise InputError(f"holds no ResNet under {prefix!r}: {found}; give its prefix")
    if len(chosen) > 1:
        raise InputError(f"holds several ResNets there; choose from {format_options(chosen)}")
    (place,) = chosen
    if place.is_variant:
        raise InputError(place.fault)
    layout = Layout(
        name=f"prefix {place.label}",
        selfsup="unknown" if selfsup == "auto" else selfsup,
        methods=(),
        source="--prefix",
        container=place.container,
        prefix=place.prefix,
        signature=(),
        family=place.family.name,
        renames=place.renames,
        input=ASSUMED_INPUT,
        network={"assumed": list(place.family.unshown)} if place.family.unshown else {},
    )
    found = _look(File(content), layout, Network("", place.container, place.prefix), None)
    return replace(found, stages_only=True)


def _unknown(content: dict) -> InputError:
    """Why no layout fits, and what would: a prefix, another file, or the known layouts."""
    if {"model", "__author__"} <= content.keys():
        return InputError("is in Detectron2's format already: train from it as it is")
    if is_haiku(content):
        return InputError(HAIKU)
    there = places(content)
    whole = [place for place in there if not place.fault]
    if len(whole) == 1:
        return InputError(
            f"has none of the known layouts but holds one whole {whole[0].architecture}: confirm that "
            f"it is the one to convert with --prefix {whole[0].shown}"
        )
    if whole:
        return InputError(
            f"has none of the known layouts and holds {len(whole)} whole ResNets; choose one with "
            f"--prefix, from {format_options(whole)}"
        )
    for _, held in state_dicts_in(content):
        try:
            _refuse_other_networks(held.keys)
        except InputError as error:
            return error
    if reason := other_kinds.content(content):
        return InputError(reason)
    if there:
        return InputError(f"under {there[0].shown} {there[0].fault}")
    return InputError(
        f"has none of the known layouts and holds no ResNet: {format_tree(content)}"
        f"{format_nearest(content)}; give the checkpoint as its project published it"
    )
