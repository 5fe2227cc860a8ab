"""MODEL_CARD.md: what a stranger reads of an exported detector, in Hugging Face's form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

if TYPE_CHECKING:
    from .exporting import Export

_TASKS = {"bbox/AP": ("object-detection", "box AP"), "segm/AP": ("image-segmentation", "mask AP")}


def model_card(result: Export) -> Callable[[BinaryIO], None]:
    """What `files.write_atomically` writes."""
    header = yaml.safe_dump(_header(result), sort_keys=False, allow_unicode=True)
    text = f"---\n{header}---\n\n{_body(result)}"
    return lambda file: file.write(text.encode()) and None


def _header(result: Export) -> dict[str, Any]:
    """The `model-index` of https://huggingface.co/docs/hub/model-cards."""
    facts, name = result.facts, Path(result.path).stem
    found = {"library_name": "detectron2", "tags": ["object-detection", "instance-segmentation"]}
    if "license" in facts["backbone"]:
        found |= {"license": "other", "license_name": str(facts["backbone"]["license"])}
    results = [
        {
            "task": {"type": task},
            "dataset": {"type": facts["test_set"], "name": facts["test_set"]},
            "metrics": [
                {
                    "type": metric,
                    "name": label,
                    "value": facts["average_precision"][metric]["value"],
                }
            ],
        }
        for metric, (task, label) in _TASKS.items()
        if metric in facts["average_precision"]
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
    differences = ", ".join(f"{name} {value:.1e}" for name, value in result.differences.items())
    controls = "; ".join(f"{name}: in {number}" for name, number in result.controls.items())
    rows = {
        "file": f"{Path(result.path).name} ({facts['format']}), by {facts['made_by']}",
        "classes": ", ".join(facts["classes"]),
        "input": f"{facts['order']}, 0 to 255, mean {facts['mean']} and deviation {facts['std']} inside",
        "size": size,
        "least score": facts["threshold"],
        "average precision, 95 % interval": f"{', '.join(precisions) or 'not measured'} "
        f"on {facts['test_set']}",
        "backbone": f"{backbone.get('method', 'unknown')}, {_architecture(backbone)}, from "
        f"{backbone.get('source', 'an unknown file')} (sha256 {backbone.get('source_sha256', 'unknown')})",
        "proof of the backbone": _proof(backbone),
        "licence of its weights": backbone.get("license", "not stated"),
        "recipe": f"fingerprint {facts['recipe_fingerprint']}; {_recipe(facts['deviations'])}",
        "beside Detectron2": f"{result.comparisons} comparisons in {result.images} images, of "
        f"{result.instances[0]} to {result.instances[1]} instances; largest differences: {differences}",
        "mistakes on purpose": f"{controls} of {result.comparisons} comparisons",
    }
    lines = [f"# {Path(result.path).stem}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {str(value).replace('|', '/')} |" for name, value in rows.items()]
    return "\n".join([*lines, ""])


def _architecture(backbone: dict[str, Any]) -> str:
    return str((backbone.get("architecture") or {}).get("name", "unknown architecture"))


def _proof(backbone: dict[str, Any]) -> str:
    stages = ((backbone.get("proof") or {}).get("stages") or {}).get("float32") or {}
    largest = max((one["relative"] for one in stages.values()), default=None)
    return (
        "none" if largest is None else f"largest difference {largest:.1e} of a feature, in float32"
    )


def _recipe(deviations: list[str] | None) -> str:
    if deviations is None:
        return "none of the packaged ones"
    return "; ".join(deviations) or "as the packaged one in every field"
