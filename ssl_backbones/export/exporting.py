"""From a run to one file, straight on: load, trace, compare, and only then write."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from .. import __version__
from ..engine.config import load_config
from ..engine.preflight import check_dataset
from ..errors import InputError
from ..files import write_atomically
from ..modeling.freezing import find_backbone
from ..modeling.vit import ViT
from ..prediction.detector import Detector
from ..prediction.output import classes_of
from ..report.comparing.building import build
from ..report.content import RunContent
from . import comparison, elsewhere
from .card import model_card
from .comparison import Job, Truth
from .elsewhere import Found
from .graph import trace, write_onnx

CARD = "MODEL_CARD.md"
SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx", "safetensors": ".safetensors"}
FEW = 20
"""With fewer images a comparison says little."""

_IMAGES, _TIMES = 24, (1.0, 0.75, 1.25)
_UNITS = {"boxes": " pixels", "masks": " of their pixels"}


@dataclass(frozen=True)
class Export:
    """What was written, and what the comparison found.

    Attributes:
        facts: what the file says of itself.
        images: that were compared; the first at all sizes, for none and for as many as there can be, too.
        counts: of instances, in each comparison.
        differences: the largest of each of `comparison.LARGEST`, without masks where there are none.
        controls: a mistake made on purpose, to the number of comparisons in which it shows; without one
            that cannot show, as the order of channels in grey images.
        average_precision: of the test set, Detectron2's and the file's, in percent; {} unless asked for.
    """

    path: str
    facts: dict[str, Any]
    images: int
    counts: list[int]
    differences: dict[str, float]
    controls: dict[str, int]
    average_precision: dict[str, tuple[float, ...]]

    def sentences(self) -> list[str]:
        """What the comparison found, for a person."""
        number, least, most = len(self.counts), min(self.counts), max(self.counts)
        few = f"; be surer with {FEW} or more (--images)" if self.images < FEW else ""
        found = [
            f"compared {number} times in {self.images} images, {least} to {most} instances{few}"
        ]
        for name, value in self.differences.items():
            allowed, unit = comparison.LARGEST[name], _UNITS.get(name, "")
            found.append(f"{name} differ by {value:.2g}{unit} (allowed: {allowed:g})")
        for name, times in self.controls.items():
            found.append(f"wrong on purpose: {name} shows {times} times of {number}")
        for name, (theirs, ours) in self.average_precision.items():
            found.append(f"{name} {ours:.3f}, with Detectron2 {theirs:.3f}")
        if self.facts["fixed"]:
            unknown = "" if self.average_precision else ", at which its AP is not known (--full)"
            found.append("images of one size, {} x {}".format(*self.facts["fixed"]) + unknown)
        return found


def export(
    run: str | os.PathLike,
    out: str | os.PathLike,
    to: str = "torchscript",
    *,
    weights: str | None = None,
    images: Sequence[str] = (),
    size: Sequence[int] | None = None,
    full: bool = False,
    force: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Export:
    """Write a run's detector as a file that runs without Detectron2, if it finds the same there.

    Args:
        run: the folder of a run.
        out: ends in what `SUFFIXES` has for the format; MODEL_CARD.md is written beside it.
        weights: a checkpoint of the run; None for its model_final.pth.
        images: files to compare on; the first of the run's test set by default.
        size: height and width of a graph of one size: of ONNX, and of a ViT, whose positions are fixed in it.
        full: compare the AP of the run's whole test set too.
        force: write over an existing file.
        progress: called with the name of each step as it begins.

    Raises:
        InputError: the run or the images cannot be used, or the file finds something else.
    """
    run, out = Path(run), Path(out)
    final = run / "model_final.pth"
    weights = Path(weights or final)
    _check(run, out, to, weights, size, force)
    progress("loading the run ...")
    cfg, model = _built(run, weights)
    (known,) = build([run]).runs
    for problem in known.problems:
        if "run.json" in problem:  # of which the file would say nothing, as if there were nothing
            progress(problem)
    tested = os.path.abspath(weights) == os.path.abspath(final)
    facts = _facts(cfg, model, known, to, tested and known.evaluation == "inference")
    records: list[dict[str, Any]] = []
    if full or not images:
        check_dataset(cfg, "test")
        records = list(instantiate(cfg.dataloader.test.dataset))
    files = list(images) or [record["file_name"] for record in records[:_IMAGES]]
    truth = Truth(cfg, model, None)
    sides = [truth.mapped(Job(path))["image"].shape[1:] for path in files]  # all can be read
    vit = isinstance((find_backbone(model) or (0, 0))[1], ViT)
    if to == "onnx" or (vit and to == "torchscript"):
        facts["fixed"] = list(size or (int(-(-side // 32) * 32) for side in np.max(sides, axis=0)))
        truth = Truth(cfg, model, facts["fixed"])
    elif size:
        raise InputError("--size is of a graph of one size: leave it out, this one takes any")
    times = (1.0,) if facts["fixed"] else _TIMES
    jobs = [Job(path, times[n % len(times)]) for n, path in enumerate(files)]
    # The first image at the other sizes too, with all that is found and with nothing.
    jobs += [Job(files[0], one) for one in times[1:]]
    jobs += [Job(files[0], 1.0, threshold) for threshold in (0.0, 1.0)]
    with tempfile.TemporaryDirectory(prefix="ssl_backbones_export_") as folder:
        progress("asking Detectron2 ...")
        expected = list(truth.ask(jobs))
        counts = [len(found.scores) for found in expected]
        if not any(counts[: len(files)]):
            raise InputError(
                f"{run} finds nothing in {len(files)} images, so that nothing can be compared: give images "
                "with --images, or a run that was trained longer"
            )
        progress("writing the file ...")
        content = _content(to, model, facts, files[0])
        written = Path(folder) / f"detector{SUFFIXES[to]}"
        write_atomically(written, lambda file: file.write(content) and None)

        def ask_file(jobs: Sequence[Job]) -> Iterator[Found]:
            if to != "safetensors":
                return comparison.ask_elsewhere(written, jobs)
            return Truth(cfg, Detector(cfg, os.fspath(written)).model, None).ask(jobs)

        progress("asking the file ...")
        differences = comparison.compare(expected, ask_file(jobs), jobs)
        progress("making mistakes on purpose ...")
        controls = comparison.controls(truth, jobs, expected)
        precision = {}
        if full:
            progress("finding all of the test set, by Detectron2 and by the file ...")
            whole = [Job(record["file_name"]) for record in records]
            both = truth.ask(whole), ask_file(whole)
            precision = comparison.average_precisions(cfg, records, both)
    result = Export(os.fspath(out), facts, len(files), counts, differences, controls, precision)
    card = model_card(result).encode()
    write_atomically(out, lambda file: file.write(content) and None)
    write_atomically(out.parent / CARD, lambda file: file.write(card) and None)
    return result


def _check(run: Path, out: Path, to: str, weights: Path, size: Any, force: bool) -> None:
    if size and any(side < 32 or side % 32 for side in size):
        raise InputError("--size takes height and width in multiples of 32 pixels, as 800 1344")
    if out.suffix != SUFFIXES[to]:
        raise InputError(f"{out} must end in {SUFFIXES[to]}: by that name the format {to} is read")
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run} is no folder of a run: it has no config.yaml; give one that has")
    if not weights.is_file():
        raise InputError(f"{weights} is not there: give --weights with a checkpoint of the run")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"{out.parent} is no folder that you may write to; give another path")
    if to == "onnx":  # before any work: an error here names the extra
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    for path in (out, out.parent / CARD):
        if os.path.isdir(path) or (os.path.exists(path) and not force):
            raise InputError(f"{path} exists; give another folder, or --force where it is a file")


def _built(run: Path, weights: Path) -> tuple[DictConfig, nn.Module]:
    """The config and the model, on the CPU."""
    cfg = load_config(os.fspath(run / "config.yaml"))
    cfg.train.device = "cpu"
    model = Detector(cfg, os.fspath(weights)).model
    heads = getattr(model, "roi_heads", None)
    has_scores = hasattr(getattr(heads, "box_predictor", None), "test_score_thresh")
    if not has_scores or getattr(heads, "keypoint_on", False):
        raise InputError(
            f"{run} holds another detector than a Mask or Faster R-CNN with one stage of boxes and without "
            "keypoints, which is all that is exported"
        )
    return cfg, model


def _facts(
    cfg: DictConfig, model: nn.Module, known: RunContent, to: str, tested: bool
) -> dict[str, Any]:
    """What a stranger needs to run the file and to know what it is.

    Args:
        known: of the run, by its report.
        tested: what its evaluation was of is what is exported.
    """
    mapper = cfg.dataloader.test.mapper
    resizing = mapper.augmentations[0] if len(mapper.augmentations) == 1 else {}
    short, longest = resizing.get("short_edge_length"), resizing.get("max_size")
    bilinear = resizing.get("interp", Image.BILINEAR) == Image.BILINEAR
    if type(short) is not int or type(longest) is not int or not bilinear:
        raise InputError(
            f"{known.folder} prepares its test images otherwise than by one bilinear ResizeShortestEdge of "
            "one size, which is all that a file can say"
        )
    record, classes = known.record, classes_of(cfg)
    facts = {
        "format": to,
        "made_by": f"ssl-backbones {__version__}",
        "classes": classes.names,
        "category_ids": classes.ids,
        "order": mapper.image_format,
        "mean": list(cfg.model.pixel_mean),
        "std": list(cfg.model.pixel_std),
        "short": short,
        "long": longest,
        "fixed": None,
        "threshold": float(model.roi_heads.box_predictor.test_score_thresh),
        "backbone": record.get("weights", {}),
        "recipe": known.published_recipe if record else "not recorded",
        "recipe_fingerprint": record.get("fingerprint", "not recorded"),
        "deviations": [f"{one.key}: {one.run} for {one.recipe}" for one in known.deviations],
        "test_set": str(cfg.dataloader.test.dataset.names),
        "average_precision": {
            name: asdict(one.interval)
            for name, one in known.verdicts.items()
            if tested and name.endswith("/AP") and one.interval
        },
    }
    if to == "safetensors":  # as text: whoever builds what a file names should have seen it
        held = OmegaConf.to_container(cfg, resolve=True)
        test = {"test": held["dataloader"]["test"]}
        named = {"names": classes.names, "ids": classes.ids}
        parts = {"model": held["model"], "dataloader": test, "train": {}, "exported_classes": named}
        facts["config"] = yaml.dump(parts)
    return facts


def _content(to: str, model: nn.Module, facts: dict, first: str) -> bytes:
    """Of the file."""
    text = json.dumps(facts)
    if to == "safetensors":
        from safetensors.torch import save

        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        return save(tensors, metadata={elsewhere.FACTS: text})
    given = [torch.from_numpy(one) for one in elsewhere.prepare(elsewhere.read(first), facts)]
    file = io.BytesIO()
    if to == "torchscript":
        network = trace(model, given, facts["fixed"])
        torch.jit.save(network, file, _extra_files={elsewhere.FACTS: text})
        return file.getvalue()
    import onnx

    write_onnx(model, given, file)
    graph = onnx.load_from_string(file.getvalue())
    onnx.helper.set_model_props(graph, {elsewhere.FACTS: text})
    return graph.SerializeToString()
