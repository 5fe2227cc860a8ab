"""MODEL_CARD.md: what a stranger reads of an exported detector, in Hugging Face's form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ..report.page.page_tables import proof_of, weights_rows
from ..tables import Table, format_cell

if TYPE_CHECKING:
    from .exporting import Export

_LIBRARIES = {"torchscript": "pytorch", "onnx": "onnx", "safetensors": "detectron2"}
_TASKS = {"bbox/AP": ("object-detection", "box AP"), "segm/AP": ("image-segmentation", "mask AP")}


def model_card(result: Export) -> str:
    """The header is the `model-index` of https://huggingface.co/docs/hub/model-cards."""
    facts, name = result.facts, Path(result.path).name
    measured = {key: ours for key, (_, ours) in result.average_precision.items()}
    if not facts["fixed"]:  # at the one size of a file it may be another
        measured = {key: one["value"] for key, one in facts["average_precision"].items()} | measured
    results = [
        {
            "task": {"type": _TASKS[key][0]},
            "dataset": {"type": facts["test_set"], "name": facts["test_set"]},
            "metrics": [{"type": key, "name": _TASKS[key][1], "value": round(value, 2)}],
        }
        for key, value in measured.items()
    ]
    header = {
        "library_name": _LIBRARIES[facts["format"]],
        "tags": ["object-detection", *["instance-segmentation"] * ("masks" in result.differences)],
        "model-index": [{"name": Path(name).stem, "results": results}],
    }
    cells = [(key, format_cell(value)) for key, value in _rows(result)]
    table = Table("", ("", ""), cells).format_markdown()
    compared = "\n".join(f"- {line}" for line in result.sentences())
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\n# {name}\n\n{table}\n\n## Beside Detectron2\n\n{compared}\n"


def _rows(result: Export) -> Iterator[tuple[str, object]]:
    facts = result.facts
    record = {"weights": facts["backbone"]}
    yield "made by", facts["made_by"]
    yield "classes", ", ".join(facts["classes"])
    if facts["format"] != "safetensors":
        yield "takes", "pixels (3, h, w) in float32, sizes (H, W, h, w) in int64, least score ()"
        yield "gives", "boxes (N, 4) in the image, scores (N), classes (N) from 0, masks (N, H, W)"
    yield "pixels", f"{facts['order']}, 0 to 255; mean {facts['mean']}, std {facts['std']} inside"
    if facts["fixed"]:
        yield "size", "{} x {}, padded with the mean".format(*facts["fixed"])
    else:
        yield "size", f"any; tested at short side {facts['short']}, long side up to {facts['long']}"
    yield "least score", f"{facts['threshold']} in its test"
    intervals = [
        f"{name} {one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
        for name, one in facts["average_precision"].items()
    ]
    yield f"AP of the run on {facts['test_set']}, 95 % interval", ", ".join(intervals) or "unknown"
    yield from ((f"backbone: {name}", value) for name, value in weights_rows(record))
    proof = proof_of(record)
    stages = [f"{stage} {rounded}" for stage, _, rounded in proof.stages] if proof else ["none"]
    yield "backbone: proof, relative differences", ", ".join(stages)
    yield "recipe", facts["recipe"] or "none of the packaged ones of ssl-backbones"
    if facts["recipe"]:
        yield "in what the run is another", "; ".join(facts["deviations"]) or "nothing"
    yield "fingerprint", facts["recipe_fingerprint"]
