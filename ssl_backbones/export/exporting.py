"""From a run to one file, straight on: load, trace, run it elsewhere, compare, and only then write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from .. import __version__
from ..errors import InputError
from ..evaluation.metrics import flatten
from ..files import write_atomically
from ..modeling.freezing import find_backbone
from ..modeling.vit import ViT
from ..prediction.detector import Detector
from ..prediction.output import classes_of
from . import elsewhere
from .card import model_card
from .graph import trace, write_onnx

SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx", "safetensors": ".safetensors"}
LARGEST = {"boxes": 1e-2, "scores": 1e-4, "masks": 1e-3}
"""Allowed of a right export: pixels of a box's side, of a score, of a mask's pixels the part that differs."""

LARGEST_OF_PRECISION = 0.01
"""Of the test set's AP, in percent."""

_IMAGES, _TIMES = 24, (1.0, 0.75, 1.25)


@dataclass(frozen=True)
class Export:
    """What was written, and what the comparison found.

    Attributes:
        differences: the largest of each of `LARGEST`.
        controls: a mistake made on purpose, to the number of images in which it shows.
        images: that were compared.
        instances: found in them, from the least to the most of an image.
        average_precision: of the test set, Detectron2's and the file's, in percent; {} unless asked for.
    """

    path: str
    facts: Mapping[str, Any]
    differences: Mapping[str, float]
    controls: Mapping[str, int]
    images: int
    instances: tuple[int, int]
    average_precision: Mapping[str, tuple[float, float]]


def export(
    run: str | os.PathLike,
    out: str | os.PathLike,
    to: str = "torchscript",
    *,
    weights: str | None = None,
    images: Sequence[str] = (),
    size: tuple[int, int] | None = None,
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
    _check_places(run, out, to, force)
    progress("loading the run")
    cfg, detector = _load(run, weights)
    _check_kind(detector.model, run)
    files = list(images) or _test_images(cfg)
    _check_images(files)
    facts = _facts(cfg, detector, run, to)
    is_fixed = to == "onnx" or isinstance((find_backbone(detector.model) or (0, 0))[1], ViT)
    facts["fixed"] = list(size or _largest(files, facts)) if is_fixed else None
    if size and not is_fixed:
        raise InputError("--size is of a graph of one size: leave it out, this one takes any")
    jobs = [(path, 1.0 if is_fixed else _TIMES[n % 3]) for n, path in enumerate(files)]
    with tempfile.TemporaryDirectory(prefix=".export_", dir=out.parent) as folder:
        blank = f"{folder}/blank.png"
        Image.new("RGB", elsewhere.read(files[0]).size, (128, 128, 128)).save(blank)
        jobs.append((blank, 1.0))
        progress("asking Detectron2")
        expected = [_expected(detector.model, facts, *job) for job in jobs]
        if not any(len(found) for found in expected):
            raise InputError(
                f"{run} finds nothing in {len(files)} images, so that nothing can be compared: give images "
                "with --images, or a run that was trained longer"
            )
        written = Path(folder) / f"detector{SUFFIXES[to]}"
        progress("writing the graph")
        _write(to, detector.model, facts, files[0], written)
        if to == "safetensors":
            found = _run_again(written, detector.model, facts, jobs)
        else:
            progress("running it without Detectron2")
            found = _run_elsewhere(written, jobs, folder)
        differences = _compare(expected, found, jobs)
        progress("making mistakes on purpose")
        controls = dict(_controls(detector.model, facts, jobs, expected))
        if missed := [name for name, number in controls.items() if not number]:
            raise InputError(
                f"cannot be compared: {missed[0]} shows in none of {len(jobs)} images; give others "
                "with --images"
            )
        precision = {}
        if full:
            progress("finding all of the test set, with Detectron2 and without")
            precision = _average_precisions(cfg, detector.model, facts, written, folder)
        os.replace(written, out)
    counts = [len(one) for one in expected]
    span = min(counts), max(counts)
    result = Export(os.fspath(out), facts, differences, controls, len(jobs), span, precision)
    write_atomically(out.parent / "MODEL_CARD.md", model_card(result))
    return result


def _check_places(run: Path, out: Path, to: str, force: bool) -> None:
    if to not in SUFFIXES:
        raise InputError(f"there is no format {to!r}; choose one of {', '.join(SUFFIXES)}")
    if out.suffix != SUFFIXES[to]:
        raise InputError(f"{out} must end in {SUFFIXES[to]}: by that name the format {to} is read")
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run} is no folder of a run: it has no config.yaml; give one that has")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"{out.parent} is no folder that you may write to; give another path")
    if to == "onnx":  # before any work: an error here names the extra
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    if out.exists() and not force:
        raise InputError(f"{out} exists; give --force to write over it, or another path")


def _check_kind(model: nn.Module, run: Path) -> None:
    heads = getattr(model, "roi_heads", None)
    has_scores = hasattr(getattr(heads, "box_predictor", None), "test_score_thresh")
    if not has_scores or getattr(heads, "keypoint_on", False):
        raise InputError(
            f"{run} holds another detector than a Mask or Faster R-CNN with one stage of boxes and without "
            "keypoints, which is all that is exported"
        )


def _check_images(files: Sequence[str]) -> None:
    for path in files:
        try:
            elsewhere.read(path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be read as an image ({error}); leave it out"
            ) from error


def _load(run: Path, weights: str | None) -> tuple[DictConfig, Detector]:
    from ..engine.config import load_config

    cfg = load_config(os.fspath(run / "config.yaml"), ["train.device=cpu"])
    return cfg, Detector(cfg, weights or os.fspath(run / "model_final.pth"))


def _test_images(cfg: DictConfig) -> list[str]:
    """The first of the run's test set."""
    from detectron2.config import instantiate

    records = instantiate(cfg.dataloader.test.dataset)
    return [str(record["file_name"]) for record, _ in zip(records, range(_IMAGES), strict=False)]


def _facts(cfg: DictConfig, detector: Detector, run: Path, to: str) -> dict[str, Any]:
    """What a stranger needs to run the file and to know what it is."""
    from ..engine.record import read

    augmentations = cfg.dataloader.test.mapper.augmentations
    resizing = augmentations[0] if len(augmentations) == 1 else {}
    short, longest = resizing.get("short_edge_length"), resizing.get("max_size")
    if type(short) is not int or type(longest) is not int:
        raise InputError(
            f"{run} prepares its test images otherwise than by one ResizeShortestEdge of one size, which is "
            "all that a file can say"
        )
    record, classes = read(run), classes_of(cfg)
    facts = {
        "format": to,
        "made_by": f"ssl-backbones {__version__}",
        "classes": classes.names,
        "category_ids": classes.ids,
        "order": cfg.model.input_format,
        "mean": list(cfg.model.pixel_mean),
        "std": list(cfg.model.pixel_std),
        "short": short,
        "long": longest,
        "threshold": float(detector.model.roi_heads.box_predictor.test_score_thresh),
        "backbone": record.get("weights", {}),
        "recipe_fingerprint": record.get("fingerprint"),
        "deviations": _deviations(record),
        "average_precision": _intervals(run),
        "test_set": str(cfg.dataloader.test.dataset.names),
    }
    if to == "safetensors":
        facts["config"] = OmegaConf.to_yaml(cfg)
    return facts


def _deviations(record: Mapping[str, Any]) -> list[str] | None:
    """In what the run is not its packaged recipe; None where it is none of these."""
    from ..report.reading.published import deviations, recipe_of

    recipe = recipe_of(record.get("command_line", []))
    if recipe is None:
        return None
    found = deviations(recipe, {"weights": {}, **record})
    return [f"{one.key}: {one.here} for {one.published}" for one in found]


def _intervals(run: Path) -> dict[str, dict[str, float]]:
    """AP of the run's test set with its 95 % bootstrap interval over images; {} where it was not tested."""
    from ..report.analysis.bootstrap import bootstrap
    from ..report.analysis.outcomes import find_outcomes
    from ..report.reading.ground_truth import GroundTruths, evaluated_images
    from ..report.reading.runs import read_run

    content, intervals = read_run(run), {}
    if content.detections is None:
        return {}
    try:
        truth = GroundTruths().of(content.dataset, run)
        images = evaluated_images(truth, content.facts)
    except InputError:  # the test set is not here any more, and its AP no more than a number
        return {}
    for task in ("bbox", "segm") if truth.has_masks else ("bbox",):
        (found,) = bootstrap([find_outcomes(truth.coco, content.detections, task, images)])
        if interval := found.values["AP"]:
            intervals[f"{task}/AP"] = asdict(interval)
    return intervals


def _headline(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in ("bbox/AP", "segm/AP") if name in metrics}


def _largest(files: Sequence[str], facts: Mapping[str, Any]) -> tuple[int, int]:
    """A size that all of these fit in, in whole strides."""
    sizes = [
        elsewhere.prepare(elsewhere.read(path), {**facts, "fixed": None})[1][2:] for path in files
    ]
    height, width = np.max(sizes, axis=0)
    return int(-(-height // 32) * 32), int(-(-width // 32) * 32)


@torch.no_grad()
def _expected(
    model: nn.Module, facts: Mapping[str, Any], path: str, times: float, flip: bool = False
) -> Instances:
    """What Detectron2 finds, by its own reading, resizing and postprocessing."""
    if facts["fixed"]:
        pixels, (height, width, *inside) = elsewhere.prepare(elsewhere.read(path), dict(facts))
        tensor = torch.from_numpy(pixels)
    else:
        image = read_image(path, facts["order"])
        height, width = image.shape[:2]
        short, longest = int(facts["short"] * times), int(facts["long"] * times)
        resized = (
            ResizeShortestEdge([short, short], longest).get_transform(image).apply_image(image)
        )
        tensor = torch.as_tensor(resized.transpose(2, 0, 1).astype("float32"))
        inside = tensor.shape[1:]
    tensor = tensor.flip(0) if flip else tensor
    images = model.preprocess_image([{"image": tensor}])
    images.image_sizes = [tuple(map(int, inside))]
    features = model.backbone(images.tensor)
    proposals, _ = model.proposal_generator(images, features, None)
    (found,), _ = model.roi_heads(images, features, proposals, None)
    return detector_postprocess(found, int(height), int(width))


def _write(to: str, model: nn.Module, facts: dict, first: str, path: Path) -> None:
    text = json.dumps(facts)
    if to == "safetensors":
        from safetensors.torch import save_file

        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, path, metadata={elsewhere.FACTS: text})
        return
    pixels, sizes = map(torch.from_numpy, elsewhere.prepare(elsewhere.read(first), facts))
    if to == "torchscript":
        torch.jit.save(trace(model, pixels, sizes), path, _extra_files={elsewhere.FACTS: text})
        return
    import onnx

    write_onnx(model, pixels, sizes, path)
    graph = onnx.load(path)
    entry = graph.metadata_props.add()
    entry.key, entry.value = elsewhere.FACTS, text
    onnx.save(graph, path)


def _run_elsewhere(
    written: Path, jobs: Sequence[tuple[str, float]], folder: str
) -> Iterator[dict[str, np.ndarray]]:
    """What the file finds, in a process in which neither Detectron2 nor this project can be imported."""
    listed = Path(folder) / "jobs.json"
    listed.write_text(json.dumps([(os.path.abspath(path), times) for path, times in jobs]))
    words = [sys.executable, "-I", elsewhere.__file__, str(written), str(listed), folder]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        why = " ".join((lines or ["it was ended from outside"])[-1].split())
        raise InputError(f"the exported file does not run without Detectron2: {why}")
    for number in range(len(jobs)):
        with np.load(f"{folder}/{number}.npz") as found:
            count = int(np.prod(found["shape"]))
            masks = np.unpackbits(found["masks"], count=count).astype(bool).reshape(found["shape"])
            yield {**{n: found[n] for n in ("boxes", "scores", "classes")}, "masks": masks}


def _run_again(
    written: Path, model: nn.Module, facts: Mapping[str, Any], jobs: Sequence[tuple[str, float]]
) -> Iterator[dict[str, np.ndarray]]:
    """What the model finds with the file's tensors, which are a model only where Detectron2 is."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(written), strict=True)
    yield from (as_arrays(_expected(model, facts, *job)) for job in jobs)


def _compare(
    expected: Sequence[Instances],
    found: Iterator[dict[str, np.ndarray]],
    jobs: Sequence[tuple[str, float]],
) -> dict[str, float]:
    largest = dict.fromkeys(LARGEST, 0.0)
    for theirs, ours, (path, _) in zip(expected, found, jobs, strict=True):
        differences = difference_of(theirs, ours)
        if differences is None:
            raise InputError(
                f"the exported file finds other instances in {path}: {len(ours['scores'])}, and Detectron2 "
                f"{len(theirs)}; nothing was written"
            )
        for name, value in differences.items():
            largest[name] = max(largest[name], value)
            if value > LARGEST[name]:
                raise InputError(
                    f"the exported file differs in {path}: {name} by {value:.1e}, more than "
                    f"{LARGEST[name]:.0e}; nothing was written"
                )
    return largest


def difference_of(theirs: Instances, ours: Mapping[str, np.ndarray]) -> dict[str, float] | None:
    """The largest of each of `LARGEST`, between instances that belong together; None where some do not.

    Equal scores may come in any order: an instance belongs to the nearest box of its class.
    """
    if len(theirs) != len(ours["scores"]):
        return None
    boxes, scores = theirs.pred_boxes.tensor.numpy(), theirs.scores.numpy()
    classes, largest = theirs.pred_classes.numpy(), dict.fromkeys(LARGEST, 0.0)
    free = np.ones(len(boxes), dtype=bool)
    for number in range(len(boxes)):
        off = np.abs(ours["boxes"] - boxes[number]).max(axis=1) + np.abs(
            ours["scores"] - scores[number]
        )
        off[~free | (ours["classes"] != classes[number])] = np.inf
        nearest = int(off.argmin())
        if not np.isfinite(off[nearest]):
            return None
        free[nearest] = False
        differences = {
            "boxes": np.abs(ours["boxes"][nearest] - boxes[number]).max(),
            "scores": abs(float(ours["scores"][nearest]) - float(scores[number])),
            "masks": (ours["masks"][nearest] != theirs.pred_masks[number].numpy()).mean()
            if theirs.has("pred_masks")
            else 0.0,
        }
        largest = {name: max(value, float(differences[name])) for name, value in largest.items()}
    return largest


def _average_precisions(
    cfg: DictConfig, model: nn.Module, facts: Mapping[str, Any], written: Path, folder: str
) -> dict[str, tuple[float, float]]:
    """Of the test set, by the run's own evaluator: what Detectron2 finds, and what the file finds.

    Raises:
        InputError: the two are more than 0.01 percent apart.
    """
    from detectron2.config import instantiate

    records = instantiate(cfg.dataloader.test.dataset)
    jobs = [(str(record["file_name"]), 1.0) for record in records]
    ours = (
        _run_again(written, model, facts, jobs)
        if facts["format"] == "safetensors"
        else _run_elsewhere(written, jobs, folder)
    )
    both = []
    for found in (
        (_expected(model, facts, *job) for job in jobs),
        (as_instances(one, record) for one, record in zip(ours, records, strict=True)),
    ):
        evaluator = instantiate(cfg.dataloader.evaluator)
        evaluator.reset()
        for record, instances in zip(records, found, strict=True):
            evaluator.process([record], [{"instances": instances}])
        both.append(_headline(flatten(evaluator.evaluate())))
    for name, value in both[0].items():
        if not abs(value - both[1][name]) <= LARGEST_OF_PRECISION:
            raise InputError(
                f"the exported file has {name} {both[1][name]:.3f}, and Detectron2 {value:.3f}; nothing was "
                "written"
            )
    return {name: (value, both[1][name]) for name, value in both[0].items()}


def _controls(
    model: nn.Module,
    facts: Mapping[str, Any],
    jobs: Sequence[tuple[str, float]],
    expected: Sequence[Instances],
) -> Iterator[tuple[str, int]]:
    """In how many images a mistake shows."""

    def shows(**options: bool) -> int:
        number = 0
        for job, right in zip(jobs, expected, strict=True):
            wrong = _expected(model, facts, *job, **options)
            differences = difference_of(right, as_arrays(wrong))
            number += differences is None or any(v > LARGEST[n] for n, v in differences.items())
        return number

    yield "channels in the other order", shows(flip=True)
    with _changed(model, pixel_mean=torch.zeros(3, 1, 1), pixel_std=torch.ones(3, 1, 1)):
        yield "no normalisation", shows()
    scores = torch.cat([one.scores for one in expected])
    with _changed(model.roi_heads.box_predictor, test_score_thresh=float(scores.max())):
        yield "another score threshold", shows()


def as_instances(found: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> Instances:
    """Of an image of a record's "height" and "width"."""
    instances = Instances((record["height"], record["width"]))
    instances.pred_boxes = Boxes(torch.from_numpy(found["boxes"]))
    instances.scores = torch.from_numpy(found["scores"])
    instances.pred_classes = torch.from_numpy(found["classes"])
    if found["masks"].size:
        instances.pred_masks = torch.from_numpy(found["masks"])
    return instances


def as_arrays(found: Instances) -> dict[str, np.ndarray]:
    masks = found.pred_masks.numpy() if found.has("pred_masks") else np.zeros((0, 0, 0), bool)
    boxes, scores = found.pred_boxes.tensor.numpy(), found.scores.numpy()
    return {"boxes": boxes, "scores": scores, "classes": found.pred_classes.numpy(), "masks": masks}


@contextmanager
def _changed(module: nn.Module, **values: object) -> Iterator[None]:
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
