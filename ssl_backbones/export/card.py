"""MODEL_CARD.md: what a stranger reads of an exported detector, in Hugging Face's form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from .exporting import Export

UNITS = {"boxes": "pixels", "scores": "of a score", "masks": "of a mask's pixels"}
_LIBRARIES = {"torchscript": "pytorch", "onnx": "onnx", "safetensors": "detectron2"}
_CALL = (
    "pixels (3, h, w) in float32, sizes (H, W, h, w) of the image and of what is no padding, and the least "
    "score; gives boxes (N, 4) in pixels of the image, scores (N), classes (N) from 0, masks (N, H, W)"
)
_TASKS = {"bbox/AP": ("object-detection", "box AP"), "segm/AP": ("image-segmentation", "mask AP")}


def model_card(result: Export) -> str:
    header = yaml.safe_dump(_header(result), sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n{_body(result)}"


def _header(result: Export) -> dict[str, Any]:
    """The `model-index` of https://huggingface.co/docs/hub/model-cards."""
    facts, name = result.facts, Path(result.path).stem
    tags = ["object-detection", *(["instance-segmentation"] if facts["has_masks"] else [])]
    found = {"library_name": _LIBRARIES[facts["format"]], "tags": tags}
    measured = {name: ours for name, (_, ours) in result.average_precision.items()}
    if not measured and not facts["fixed"]:  # at the one size of a file it may be another
        measured = {name: one["value"] for name, one in facts["average_precision"].items()}
    results = [
        {
            "task": {"type": task},
            "dataset": {"type": facts["test_set"], "name": facts["test_set"]},
            "metrics": [{"type": metric, "name": label, "value": round(measured[metric], 2)}],
        }
        for metric, (task, label) in _TASKS.items()
        if metric in measured
    ]
    return {**found, "model-index": [{"name": name, "results": results}]}


def _body(result: Export) -> str:
    facts, backbone = result.facts, result.facts["backbone"]
    size = (
        f"{facts['fixed'][0]} x {facts['fixed'][1]}, padded with the mean"
        if facts["fixed"]
        else f"any; as tested the short side is {facts['short']}, the long one at most {facts['long']}"
    )
    precisions = [
        f"{name} {one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
        + (" at the sizes of the run's own test" if facts["fixed"] else "")
        for name, one in facts["average_precision"].items()
    ]
    precisions += [
        f"{name} {ours:.2f} by this file" for name, (_, ours) in result.average_precision.items()
    ]
    differences = ", ".join(
        f"{name} {value:.1e} {UNITS[name]}" for name, value in result.differences.items()
    )
    controls = "; ".join(f"{name}: in {number}" for name, number in result.controls.items())
    rows = {
        "file": f"{Path(result.path).name} ({facts['format']}), by {facts['made_by']}",
        "classes": ", ".join(facts["classes"]),
        "input": f"{facts['order']}, 0 to 255, mean {facts['mean']} and deviation {facts['std']} inside",
        "size": size,
        "takes": "what Detectron2 does, and no one else"
        if facts["format"] == "safetensors"
        else _CALL,
        "least score in its test": facts["threshold"],
        "average precision, 95 % interval": f"{', '.join(precisions)} on {facts['test_set']}"
        if precisions
        else "not measured",
        "backbone": f"{backbone.get('method', 'unknown')}, {_architecture(backbone)}, from "
        f"{backbone.get('source', 'an unknown file')} (sha256 {backbone.get('source_sha256', 'unknown')})",
        "proof of the backbone": _proof(backbone),
        "licence of its weights": backbone.get("license") or "not stated",
        "recipe": f"{_recipe(facts['deviations'])}; its fingerprint is {facts['recipe_fingerprint']}",
        "beside Detectron2": f"{result.comparisons} comparisons in {result.images} images, of "
        f"{result.instances[0]} to {result.instances[1]} instances; largest differences: {differences}",
        "mistakes made on purpose show": f"{controls} of {result.comparisons} comparisons",
    }
    lines = [f"# {Path(result.path).stem}", "", "| | |", "|---|---|"]
    cells = {name: " ".join(str(value).replace("|", "/").split()) for name, value in rows.items()}
    lines += [f"| {name} | {cell} |" for name, cell in cells.items()]
    return "\n".join([*lines, ""])


def _architecture(backbone: Mapping[str, Any]) -> str:
    return str(_held(backbone, "architecture").get("name", "unknown architecture"))


def _held(value: object, *names: str) -> Mapping[str, Any]:
    """What stands there in a run's record, which anybody may have altered."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _proof(backbone: Mapping[str, Any]) -> str:
    stages = _held(backbone, "proof", "stages", "float32")
    relative = (_held(stages, name).get("relative") for name in stages)
    largest = max((one for one in relative if isinstance(one, float)), default=None)
    return (
        "none"
        if largest is None
        else f"its features differ from those of the source's own network by {largest:.1e} at most"
    )


def _recipe(deviations: list[str] | None) -> str:
    if deviations is None:
        return "none of the packaged ones of ssl-backbones"
    return "; ".join(deviations) or "as the packaged one of ssl-backbones in every field"
