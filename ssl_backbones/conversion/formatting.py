"""What a person reads of a conversion, an inspection, a verification and the layouts."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from ..errors import format_name
from ..modeling.architectures import WIDTHS
from .layouts import IMAGENET_INPUT

if TYPE_CHECKING:
    from ..errors import InputError
    from .converting import ConversionReport
    from .inspection import Inspection
    from .layouts import Layout
    from .proof import Difference, Proof
    from .verification import Verification

_IN_1X1 = " with its strides in the 1x1 convolutions"
_CONFIGS = {"moco": "configs/moco_1x.py", "swav": "configs/swav_1x.py"}


def format_conversion(report: ConversionReport) -> Table:
    """What was taken from where, and what was left out and why."""
    table = _facts()
    origin = report.provenance
    table.add_row("source", report.source)
    table.add_row("sha256", origin["source_sha256"])
    _add_publication(table, origin)
    table.add_row("format", report.container)
    _add_origin(table, origin)
    table.add_row("kept", f"{len(report.kept)} tensors, all there, of the right shape and finite")
    _add_left_out(table, report.dropped, report.unknown)
    if report.foreign:
        table.add_row("not read", ", ".join(report.foreign))
    return table


def format_proof(found: Proof) -> Table:
    """Right and wrong conversions in one column, so that the margin is seen."""
    # A family that is proved at several sizes of image names them behind each stage.
    sizes = dict.fromkeys(name.partition(", ")[2] for name in found.stages["float32"])
    through = "torchvision" if sizes == {"": None} else "the reference"
    heading = f"same input through {through} and Detectron2"
    table = _table(heading, "relative", "absolute")
    for precision, stages in found.stages.items():
        largest: dict[str, Difference] = {}
        for name, difference in stages.items():
            stage = name.partition(", ")[0]
            if stage not in largest or difference.relative > largest[stage].relative:
                largest[stage] = difference
        for stage, difference in largest.items():
            table.add_row(
                f"{stage} in {precision}",
                f"{difference.relative:.1e}",
                f"{difference.absolute:.1e}",
            )
        table.add_row(f"allowed in {precision}", f"{found.tolerances[precision]:.1e}")
    if sizes != {"": None}:
        table.caption = f"the largest of images of {', '.join(sizes)}"
    for name, score in found.controls.items():
        effect = f"{score:.1e}" if score is not None else "no change"
        table.add_row(f"wrong on purpose: {name}", effect)
    if found.other_branch is not None:
        table.add_row("the file's other network", f"{found.other_branch:.1e}")
    if found.margin is not None:
        table.add_row("the least wrong of them, times what is allowed", f"{found.margin:,.0f}")
    return table


def format_next_step(report: ConversionReport) -> str:
    """What to do with a result, as a line that follows "next: "."""
    from .families import RESNET, family_of

    path = report.destination
    known = report.provenance["input"] or {}
    in_1x1 = known.get("stride_in_1x1") is True
    architecture = report.provenance["architecture"]
    if channels := architecture.get("in_channels"):
        made_by = f"build_{family_of(architecture).name}"
        other = ", or of MMDetection's ResNet" if family_of(architecture) is RESNET else ""
        return (
            f"build a network for images of {channels} channels (in_channels={channels} of {made_by}{other})"
            f"{_IN_1X1 if in_1x1 else ''}; the recipes read 3"
        )
    if report.format == "torchvision":
        return f"network.fc = torch.nn.Identity(); network.load_state_dict(torch.load({path!r}))"
    if report.format == "safetensors" and in_1x1:
        return f"load it into a network{_IN_1X1}, unlike torchvision's"
    if report.format == "safetensors":
        return f"network.load_state_dict(safetensors.torch.load_file({path!r}), strict=False)"
    if report.format == "mmdet":
        style = "style='caffe', " if in_1x1 else ""
        init = f"init_cfg=dict(type='Pretrained', checkpoint={path!r})"
        return f"in a config: backbone=dict({style}{init})"
    config = _CONFIGS.get(report.provenance["method"], _CONFIGS["moco"])
    step = f"tools/train_net.py --config-file {config} train.init_checkpoint={shlex.quote(path)}"
    family = family_of(architecture)
    if family is not RESNET:
        step += "".join(f" {shlex.quote(one)}" for one in family.overrides(architecture))
        step += f"\nor, in a config of your own: {family.config_line(architecture)}"
    elif architecture["name"] != "resnet50":
        step += f"\nwith, in the config: {family.config_line(architecture)}"
    if any(known.get(field, usual) != usual for field, usual in IMAGENET_INPUT.items()):
        step += "\nand the overrides that it asks for, for the recipe's input is another"
    return step


def format_batch(outcomes: Iterable[tuple[str, ConversionReport | InputError]]) -> Table:
    """A row a file: what it is and where it went, or why it was refused."""
    table = _table("source", "method", "architecture", "result")
    for source, outcome in outcomes:
        if isinstance(outcome, Exception):
            reason = " ".join(str(outcome).removeprefix(source).split())
            table.add_row(source, "", "", f"refused: {reason}")
            continue
        origin = outcome.provenance
        result = outcome.destination or "dry run: nothing was written"
        table.add_row(source, origin["method"], origin["architecture"]["name"], result)
    return table


def format_inspection(found: Inspection) -> Table:
    """What a file is, and what a conversion would make of it."""
    table = _facts()
    table.add_row("file", f"{found.path} ({found.size / 1e6:,.1f} MB)")
    table.add_row("sha256", found.sha256)
    table.add_row("format", found.container)
    if found.foreign:
        table.add_row("not read", ", ".join(found.foreign))
    for name, value in found.provenance.items():
        if name not in ("proof", "architecture", "input", "input_stated_by", "texts_beside"):
            table.add_row(f"provenance: {format_name(name)}", format_name(str(value)))
    if found.loaded is None:
        table.add_row("conversion", f"would be refused: it {found.refusal}")
        return table
    backbone = found.loaded.backbone
    _add_origin(table, {**found.loaded.origin, "architecture": backbone.architecture.to_dict()})
    table.add_row("kept", f"{len(backbone.tensors)} tensors")
    _add_left_out(table, backbone.dropped, backbone.unknown)
    return table


def format_keys(lines: Iterable[tuple[str, str]]) -> Table:
    """The tree of keys."""
    table = _table("keys", "holds")
    for name, text in lines:
        table.add_row(name, text)
    return table


def format_verification(found: Verification) -> Table:
    """What was checked in a file and found right."""
    table = _facts()
    table.add_row("file", found.path)
    table.add_row("architecture", _format_architecture(found.architecture))
    table.add_row("complete", f"{found.tensors} tensors, all there, of the right shape and finite")
    if found.channels:
        table.add_row(
            "batch norms",
            f"trained; no variance negative, {found.zero_variances:,} of {found.channels:,} zero",
        )
    made_by = found.provenance.get("tool")
    table.add_row(
        "made by", format_name(str(made_by)) if made_by else "unknown: it has no provenance"
    )
    if stated := found.provenance.get("source_sha256"):
        made_from = format_name(str(found.provenance.get("source")))
        table.add_row("made from", f"{made_from}, sha256 {format_name(str(stated))}")
    _add_publication(table, found.provenance)
    if found.source is not None:
        table.add_row("source", f"{found.source}: the same tensors, bit by bit")
        same = {True: "the recorded one", False: "another file than the recorded one", None: None}
        if same[found.same_file]:
            table.add_row("sha256", f"the source is {same[found.same_file]}")
    return table


def format_layouts(layouts: Sequence[Layout]) -> Table:
    """A row a layout: its name, what it is asked for with and what is kept; methods and source."""
    table = Table(box=box.SIMPLE, show_lines=True)
    table.add_column("layout, --selfsup, prefix kept", overflow="fold")
    table.add_column("methods, and the code that writes such files", overflow="fold")
    for layout in layouts:
        prefix = layout.prefix or "(none)"
        table.add_row(
            f"{layout.name}\n{' or '.join(layout.selfsup_names)}\n{prefix}",
            f"{', '.join(layout.methods)}\n{layout.source}",
        )
    return table


def _add_publication(table: Table, provenance: Mapping[str, object]) -> None:
    """The package that published the file, where one did."""
    for field, name in (("package", "published in"), ("license", "licence")):
        if field in provenance:
            table.add_row(name, format_name(str(provenance[field])))


def _add_origin(table: Table, origin: Mapping[str, object]) -> None:
    branch = f", {origin['branch']} network" if origin["branch"] else ""
    table.add_row("method", f"{origin['method']} (layout {origin['layout']}{branch})")
    table.add_row("architecture", _format_architecture(origin["architecture"]))
    convention = origin["input"]
    if wrappers := origin.get("wrappers"):
        table.add_row("names", f"without {', '.join(wrappers)} inside of them")
    if isinstance(convention, Mapping):
        table.add_row("input", _format_input(convention))
    else:
        table.add_row("input", "not recorded: as in the detector's own config")
    for field, text in origin.get("input_stated_by", {}).items():
        table.add_row(f"  {field}", f"as {text} says")


def _format_input(convention: Mapping[str, object]) -> str:
    order = convention.get("format")
    parts = [f"{convention['channels']} channels" if "channels" in convention else str(order)]
    if "pixel_mean" in convention:
        for name in ("mean", "std"):
            values = convention.get(f"pixel_{name}")  # anybody may have written it
            listed = " ".join(map(str, values)) if isinstance(values, list) else str(values)
            parts.append(f"{name} {format_name(listed, limit=300)}")
    else:
        parts.append("mean and std not recorded")
    if convention.get("stride_in_1x1") is True:
        parts.append("strides in the 1x1")
    assumed = " (assumed: nothing in the file says it)" if convention.get("assumed") else ""
    return ", ".join(parts) + assumed


def _add_left_out(table: Table, dropped: Mapping[str, str], unknown: Sequence[str]) -> None:
    for reason, count in Counter(dropped.values()).items():
        table.add_row("dropped", f"{count}: {reason}")
    if unknown:
        first = ", ".join(map(repr, unknown[:3])) + ("..." if unknown[3:] else "")
        table.add_row("left out", f"{len(unknown)} unknown outside the backbone: {first}")


def _format_architecture(architecture: Mapping[str, object]) -> str:
    """The name, and the widths where the name is not the best known one's, or what no tensor shows."""
    from .families import family_of

    name = str(architecture["name"])
    if unshown := family_of(architecture).unshown:
        facts = ", ".join(f"{fact} {architecture.get(fact, '?')}" for fact in unshown)
        assumed = ", ".join(map(str, architecture.get("assumed", [])))
        said = f"; assumed, nothing in the file says it: {assumed} (--network)" if assumed else ""
        return f"{name}: {facts}{said}"
    plain = name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
    if (plain and "in_channels" not in architecture) or " " in name:
        return name
    widths = [f"{width} {architecture[width]}" for width in WIDTHS if width in architecture]
    return f"{name} ({', '.join(widths)})" if widths else name


def _table(*headers: str) -> Table:
    return Table(*headers, box=box.SIMPLE)


def _facts() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table
