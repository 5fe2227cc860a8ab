"""From a run to one file, straight on: load, trace, run it elsewhere, compare, and only then write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .. import __version__
from ..data.images import load
from ..errors import InputError
from ..evaluation.metrics import flatten
from ..files import write_atomically
from ..modeling.freezing import find_backbone
from ..modeling.vit import ViT
from ..prediction.detector import Detector
from ..prediction.output import classes_of
from ..progress import progress_bar
from . import elsewhere
from .card import model_card
from .elsewhere import Found
from .graph import changed, trace, write_onnx

CARD = "MODEL_CARD.md"
SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx", "safetensors": ".safetensors"}
LARGEST = {"boxes": 1e-2, "scores": 1e-4, "masks": 1e-3}
"""Allowed of a right export."""

UNITS = {"boxes": "pixels", "scores": "of a score", "masks": "of a mask's pixels"}

LARGEST_OF_PRECISION = 0.01
"""Of the test set's AP, in percent."""

FEW = 20
"""With fewer images a comparison says little."""

_IMAGES, _TIMES = 24, (1.0, 0.75, 1.25)


class Job(NamedTuple):
    """An image to find the instances of.

    Attributes:
        times: of the size that the run's rule gives; 1 where the size is fixed.
        threshold: least score.
    """

    path: str
    times: float
    threshold: float


@dataclass(frozen=True)
class Export:
    """What was written, and what the comparison found.

    Attributes:
        differences: the largest of each of `LARGEST`.
        controls: a mistake made on purpose, to the number of comparisons in which it shows; without one
            that cannot show, as the order of channels in grey images.
        images: that were compared; the first is asked for none and for as many as there can be, too.
        comparisons: in all.
        instances: found in one, the least and the most.
        average_precision: of the test set, Detectron2's and the file's, in percent; {} unless asked for.
    """

    path: str
    facts: Mapping[str, Any]
    differences: Mapping[str, float]
    controls: Mapping[str, int]
    images: int
    comparisons: int
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
    final = os.fspath(run / "model_final.pth")
    cfg, detector = _built(run, weights or final)
    _check_kind(detector.model, run)
    files = list(images) or _test_images(cfg)
    _check_images(files)
    model, facts = detector.model, _facts(cfg, detector, run, to)
    if os.path.abspath(weights or final) == os.path.abspath(final):  # what was tested
        facts["average_precision"] = _intervals(run)
    is_fixed = to == "onnx" or isinstance((find_backbone(model) or (0, 0))[1], ViT)
    if size and not is_fixed:
        raise InputError("--size is of a graph of one size: leave it out, this one takes any")
    facts["fixed"] = list(size or _largest(files, facts)) if is_fixed else None
    jobs = [
        Job(path, 1.0 if is_fixed else _TIMES[number % 3], facts["threshold"])
        for number, path in enumerate(files)
    ]
    with tempfile.TemporaryDirectory(prefix=".export_", dir=out.parent) as folder:
        progress("asking Detectron2")
        jobs += _none_and_many(model, facts, jobs[0])
        expected = list(_ask(model, facts, jobs))
        if not any(len(found.scores) for found in expected[: len(files)]):
            raise InputError(
                f"{run} finds nothing in {len(files)} images, so that nothing can be compared: give images "
                "with --images, or a run that was trained longer"
            )
        written = Path(folder) / f"detector{SUFFIXES[to]}"
        progress("writing the file")
        _write(to, model, facts, files[0], written)
        progress("asking the file")
        differences = _compare(expected, _ask_file(written, model, facts, jobs), jobs)
        progress("making mistakes on purpose")
        controls = dict(_controls(model, facts, jobs, expected))
        if missed := [name for name, number in controls.items() if not number]:
            raise InputError(
                f"cannot be compared: {missed[0]} shows in none of {len(files)} images; give others "
                "with --images"
            )
        precision = {}
        if full:
            progress("finding all of the test set, by Detectron2 and by the file")
            precision = _average_precisions(cfg, model, facts, written)
        os.replace(written, out)
    counts = [len(one.scores) for one in expected]
    span = min(counts), max(counts)
    result = Export(
        os.fspath(out), facts, differences, controls, len(files), len(jobs), span, precision
    )
    write_atomically(out.parent / CARD, model_card(result))
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
    for path in (out, out.parent / CARD):
        if path.exists() and not force:
            raise InputError(f"{path} exists; give --force to write over it, or another folder")


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
        load(lambda record: elsewhere.read(record["file_name"]), {"file_name": path})


def _built(run: Path, weights: str) -> tuple[DictConfig, Detector]:
    from ..engine.config import load_config

    cfg = load_config(os.fspath(run / "config.yaml"), ["train.device=cpu"])
    return cfg, Detector(cfg, weights)


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
        "threshold": float(_predictor(detector.model).test_score_thresh),
        "backbone": record.get("weights", {}),
        "recipe_fingerprint": record.get("fingerprint"),
        "deviations": _deviations(record),
        "average_precision": {},
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


def _none_and_many(model: nn.Module, facts: Mapping[str, Any], job: Job) -> list[Job]:
    """The same image with a threshold that leaves nothing, and with one that leaves more than are kept."""
    (found,) = _ask(model, facts, [job._replace(threshold=0.0)])
    least = float(found.scores.min(initial=1.0))
    return [job._replace(threshold=1.0), job._replace(threshold=least / 2)]


def _ask(
    model: nn.Module, facts: Mapping[str, Any], jobs: Sequence[Job], flip: bool = False
) -> Iterator[Found]:
    """What Detectron2 finds, by its own reading, resizing and postprocessing."""
    for job in _counted(jobs):
        if facts["fixed"]:
            pixels, (height, width, *inside) = elsewhere.prepare(elsewhere.read(job.path), facts)
        else:
            image = read_image(job.path, facts["order"])
            height, width = image.shape[:2]
            short, longest = int(facts["short"] * job.times), int(facts["long"] * job.times)
            resizing = ResizeShortestEdge([short, short], longest).get_transform(image)
            pixels = resizing.apply_image(image).transpose(2, 0, 1).astype("float32")
            inside = pixels.shape[1:]
        tensor = torch.from_numpy(np.ascontiguousarray(pixels[::-1] if flip else pixels))
        with torch.no_grad(), changed(_predictor(model), test_score_thresh=job.threshold):
            images = model.preprocess_image([{"image": tensor}])
            images.image_sizes = [tuple(map(int, inside))]
            features = model.backbone(images.tensor)
            proposals, _ = model.proposal_generator(images, features, None)
            (found,), _ = model.roi_heads(images, features, proposals, None)
        yield _arrays(detector_postprocess(found, int(height), int(width)))


def _predictor(model: nn.Module) -> nn.Module:
    return model.roi_heads.box_predictor


def _counted(items: Sequence[Any]) -> Iterator[Any]:
    with progress_bar(len(items)) as advance:
        for item in items:
            yield item
            advance()


def _write(to: str, model: nn.Module, facts: dict, first: str, path: Path) -> None:
    text = json.dumps(facts)
    if to == "safetensors":
        from safetensors.torch import save_file

        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, path, metadata={elsewhere.FACTS: text})
        return
    given = [*elsewhere.prepare(elsewhere.read(first), facts), elsewhere.least(facts["threshold"])]
    if to == "torchscript":
        network = trace(model, *map(torch.from_numpy, given), facts["fixed"])
        torch.jit.save(network, path, _extra_files={elsewhere.FACTS: text})
        return
    import onnx

    write_onnx(model, *map(torch.from_numpy, given), path)
    graph = onnx.load(path)
    entry = graph.metadata_props.add()
    entry.key, entry.value = elsewhere.FACTS, text
    onnx.save(graph, path)


def _ask_file(
    written: Path, model: nn.Module, facts: Mapping[str, Any], jobs: Sequence[Job]
) -> Iterator[Found]:
    """What the file finds: a graph in a process of its own, weights in a model that has only theirs."""
    if facts["format"] != "safetensors":
        yield from _run_elsewhere(written, jobs)
        return
    from safetensors.torch import load_file

    model.load_state_dict(load_file(written), strict=True)
    yield from _ask(model, facts, jobs)


def _run_elsewhere(written: Path, jobs: Sequence[Job]) -> Iterator[Found]:
    """In a process in which neither Detectron2 nor this project can be imported."""
    folder = written.parent
    listed, errors = folder / "jobs.json", folder / "errors"
    listed.write_text(json.dumps([(os.path.abspath(job.path), *job[1:]) for job in jobs]))
    words = [sys.executable, "-I", elsewhere.__file__, str(written), str(listed), str(folder)]
    with errors.open("w") as stderr:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        for number in _counted(range(len(jobs))):
            if process.stdout.readline().strip() != str(number):
                process.wait()
                lines = [line for line in errors.read_text().splitlines() if "Error" in line]
                why = " ".join((lines or ["it was ended from outside"])[-1].split())
                raise InputError(f"the exported file does not run without Detectron2: {why}")
            yield elsewhere.unpacked(folder / f"{number}.npz")
            (folder / f"{number}.npz").unlink()
    finally:  # whoever has seen a difference does not wait for the rest
        process.kill()
        process.communicate()


def _compare(
    expected: Sequence[Found], found: Iterator[Found], jobs: Sequence[Job]
) -> dict[str, float]:
    largest = dict.fromkeys(LARGEST, 0.0)
    with closing(found):
        for theirs, ours, job in zip(expected, found, jobs, strict=True):
            differences = difference_of(theirs, ours)
            if differences is None:
                raise InputError(
                    f"the exported file finds other instances in {job.path}: {len(ours.scores)}, and "
                    f"Detectron2 {len(theirs.scores)}; nothing was written"
                )
            for name, value in differences.items():
                largest[name] = max(largest[name], value)
                if not value <= LARGEST[name]:
                    raise InputError(
                        f"the exported file differs in {job.path}: {name} by {value:.1e}, more than "
                        f"{LARGEST[name]:.0e}; nothing was written"
                    )
    return largest


def difference_of(theirs: Found, ours: Found) -> dict[str, float] | None:
    """The largest of each of `LARGEST`, between instances that belong together; None where some do not.

    Equal scores may come in any order: an instance belongs to the nearest box of its class.
    """
    if len(theirs.scores) != len(ours.scores):
        return None
    free, largest = np.ones(len(ours.scores), dtype=bool), dict.fromkeys(LARGEST, 0.0)
    for number, box in enumerate(theirs.boxes):
        off = np.abs(ours.boxes - box).max(axis=1) + np.abs(ours.scores - theirs.scores[number])
        off[~free | (ours.classes != theirs.classes[number])] = np.inf
        nearest = int(off.argmin())
        if not np.isfinite(off[nearest]):
            return None
        free[nearest] = False
        differences = {
            "boxes": np.abs(ours.boxes[nearest] - box).max(),
            "scores": np.abs(ours.scores[nearest] - theirs.scores[number]),
        }
        if theirs.masks.size:
            differences["masks"] = (ours.masks[nearest] != theirs.masks[number]).mean()
        largest |= {name: max(largest[name], float(value)) for name, value in differences.items()}
    return largest


def _average_precisions(
    cfg: DictConfig, model: nn.Module, facts: Mapping[str, Any], written: Path
) -> dict[str, tuple[float, float]]:
    """Of the test set, by the run's own evaluator: what Detectron2 finds, and what the file finds.

    Raises:
        InputError: the two are more than 0.01 percent apart.
    """
    from detectron2.config import instantiate

    records = instantiate(cfg.dataloader.test.dataset)
    jobs = [Job(str(record["file_name"]), 1.0, facts["threshold"]) for record in records]
    both = []
    for found in (_ask(model, facts, jobs), _ask_file(written, model, facts, jobs)):
        evaluator = instantiate(cfg.dataloader.evaluator)
        evaluator.reset()
        for record, one in zip(records, found, strict=True):
            evaluator.process([record], [{"instances": as_instances(one, record)}])
        both.append(_headline(flatten(evaluator.evaluate())))
    for name, value in both[0].items():
        if not abs(value - both[1][name]) <= LARGEST_OF_PRECISION:
            raise InputError(
                f"the exported file has {name} {both[1][name]:.3f}, and Detectron2 {value:.3f}; nothing was "
                "written"
            )
    return {name: (value, both[1][name]) for name, value in both[0].items()}


def _controls(
    model: nn.Module, facts: Mapping[str, Any], jobs: Sequence[Job], expected: Sequence[Found]
) -> Iterator[tuple[str, int]]:
    """In how many comparisons a mistake shows, of those that can show at all."""

    def shows(found: Iterable[Found]) -> int:
        differences = map(difference_of, expected, found)
        return sum(
            one is None or any(value > LARGEST[name] for name, value in one.items())
            for one in differences
        )

    if not all(_is_grey(job.path) for job in jobs):
        yield "channels in the other order", shows(_ask(model, facts, jobs, flip=True))
    plain = {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    if not all(torch.equal(getattr(model, name), value) for name, value in plain.items()):
        with changed(model, **plain):
            yield "no normalisation", shows(_ask(model, facts, jobs))
    other = float(np.median(np.concatenate([one.scores for one in expected])))
    others = [job._replace(threshold=other) for job in jobs]
    yield "another score threshold", shows(_ask(model, facts, others))


def _is_grey(path: str) -> bool:
    pixels = np.asarray(elsewhere.read(path))
    return bool((pixels == pixels[..., :1]).all())


def as_instances(found: Found, record: Mapping[str, Any]) -> Instances:
    """Of an image of a record's "height" and "width"."""
    instances = Instances((record["height"], record["width"]))
    instances.pred_boxes = Boxes(torch.from_numpy(found.boxes))
    instances.scores = torch.from_numpy(found.scores)
    instances.pred_classes = torch.from_numpy(found.classes)
    if found.masks.size:
        instances.pred_masks = torch.from_numpy(found.masks)
    return instances


def _arrays(found: Instances) -> Found:
    masks = found.pred_masks.numpy() if found.has("pred_masks") else np.zeros((0, 0, 0), bool)
    boxes, scores = found.pred_boxes.tensor.numpy(), found.scores.numpy()
    return Found(boxes, scores, found.pred_classes.numpy(), masks)
