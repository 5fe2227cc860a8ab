"""From a run to one file, straight on: load, trace, run it elsewhere, compare, and only then write."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from detectron2.data.transforms import ResizeScale, ResizeShortestEdge
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from omegaconf import DictConfig
from torch import nn

from .. import __version__
from ..data.images import load, upright_size
from ..engine.config import load_config
from ..engine.record import read
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
from .running import as_instances, config_in, portable

CARD = "MODEL_CARD.md"
SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx", "safetensors": ".safetensors"}
LARGEST = {"boxes": 1e-2, "scores": 1e-4, "masks": 1e-3}
"""Allowed of a right export."""

LARGEST_OF_PRECISION = 0.01
"""Of the test set's AP, in percent."""

FEW = 20
"""With fewer images a comparison says little."""

_IMAGES, _TIMES = 24, (1.0, 0.75, 1.25)


class Rule(NamedTuple):
    """How the run's test prepares images.

    Attributes:
        order: of channels.
        short, long: the size rule's, in pixels.
        fixed: height and width that every image is made to fit in and padded to, for a graph of one size.
    """

    order: str
    short: int
    long: int
    fixed: tuple[int, int] | None = None


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
        differences: the largest of each of `LARGEST`, without masks where there are none.
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
    final = run / "model_final.pth"
    weights = Path(weights or final)
    _check_places(run, out, to, weights, force)
    progress("loading the run")
    cfg, device, model = _built(run, weights)
    _check_kind(model, run)
    rule = _rule(cfg, run)
    records = _test_records(cfg) if full or not images else []
    files = list(images) or [record["file_name"] for record in records[:_IMAGES]]
    sizes = [_mapped(path, rule).shape[1:] for path in files]  # so all of them can be read
    vit = isinstance((find_backbone(model) or (0, 0))[1], ViT)
    if to == "onnx" or (vit and to == "torchscript"):
        rule = rule._replace(
            fixed=size or tuple(int(-(-side // 32) * 32) for side in np.max(sizes, axis=0))
        )
    elif size:
        raise InputError("--size is of a graph of one size: leave it out, this one takes any")
    facts = _facts(cfg, model, run, rule, to)
    if os.path.abspath(weights) == os.path.abspath(final):  # what was tested
        facts["average_precision"] = _intervals(run)
    if to == "safetensors":
        facts["config"] = portable(cfg, device)
    times = _TIMES if rule.fixed is None else (1.0, 1.0, 1.0)
    jobs = [Job(path, times[n % 3], facts["threshold"]) for n, path in enumerate(files)]
    with tempfile.TemporaryDirectory(prefix="ssl_backbones_export_") as folder:
        progress("asking Detectron2")
        jobs += _none_and_many(model, rule, jobs[0])
        expected = list(_ask(model, rule, jobs))
        if not any(len(found.scores) for found in expected[: len(files)]):
            raise InputError(
                f"{run} finds nothing in {len(files)} images, so that nothing can be compared: give images "
                "with --images, or a run that was trained longer"
            )
        progress("writing the file")
        content = _content(to, model, facts, files[0])
        written = Path(folder) / f"detector{SUFFIXES[to]}"
        write_atomically(written, lambda file: file.write(content) and None)
        progress("asking the file")
        ask_file = partial(_ask_file, written, cfg, rule)
        differences = _compare(expected, ask_file(jobs), jobs)
        progress("making mistakes on purpose")
        controls = dict(_controls(model, rule, jobs, expected))
        if missed := [name for name, number in controls.items() if not number]:
            raise InputError(
                f"cannot be compared: {missed[0]} shows in none of {len(files)} images; give others "
                "with --images"
            )
        precision = {}
        if full:
            progress("finding all of the test set, by Detectron2 and by the file")
            jobs_of_set = [Job(one["file_name"], 1.0, facts["threshold"]) for one in records]
            both = _ask(model, rule, jobs_of_set), ask_file(jobs_of_set)
            precision = _average_precisions(cfg, records, *both)
    counts = [len(one.scores) for one in expected]
    span = min(counts), max(counts)
    result = Export(
        os.fspath(out), facts, differences, controls, len(files), len(expected), span, precision
    )
    card = model_card(result).encode()
    write_atomically(out, lambda file: file.write(content) and None)
    write_atomically(out.parent / CARD, lambda file: file.write(card) and None)
    return result


def _check_places(run: Path, out: Path, to: str, weights: Path, force: bool) -> None:
    if to not in SUFFIXES:
        raise InputError(f"there is no format {to!r}; choose one of {', '.join(SUFFIXES)}")
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
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the name of a file, in another folder")
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


def _built(run: Path, weights: Path) -> tuple[DictConfig, str, nn.Module]:
    """The config, the device that it names, and the model, on the CPU."""
    cfg = load_config(os.fspath(run / "config.yaml"))
    device, cfg.train.device = str(cfg.train.device), "cpu"
    return cfg, device, Detector(cfg, os.fspath(weights)).model


def _rule(cfg: DictConfig, run: Path) -> Rule:
    mapper = cfg.dataloader.test.mapper
    resizing = mapper.augmentations[0] if len(mapper.augmentations) == 1 else {}
    short, longest = resizing.get("short_edge_length"), resizing.get("max_size")
    if type(short) is not int or type(longest) is not int:
        raise InputError(
            f"{run} prepares its test images otherwise than by one ResizeShortestEdge of one size, which is "
            "all that a file can say"
        )
    return Rule(mapper.image_format, short, longest)


def _test_records(cfg: DictConfig) -> list[dict[str, Any]]:
    try:
        return list(instantiate(cfg.dataloader.test.dataset))
    except OSError as error:
        raise InputError(
            f"the run's test set is not here ({error.filename}: {error.strerror}): give images with --images "
            "and leave --full out, or set DETECTRON2_DATASETS to the folder that has it"
        ) from error


def _facts(cfg: DictConfig, model: nn.Module, run: Path, rule: Rule, to: str) -> dict[str, Any]:
    """What a stranger needs to run the file and to know what it is."""
    record, classes = read(run), classes_of(cfg)
    weights = record.get("weights")
    return {
        "format": to,
        "made_by": f"ssl-backbones {__version__}",
        "classes": classes.names,
        "category_ids": classes.ids,
        "order": rule.order,
        "mean": list(cfg.model.pixel_mean),
        "std": list(cfg.model.pixel_std),
        "short": rule.short,
        "long": rule.long,
        "fixed": list(rule.fixed) if rule.fixed else None,
        "threshold": float(_predictor(model).test_score_thresh),
        "has_masks": bool(getattr(model.roi_heads, "mask_on", False)),
        "backbone": weights if isinstance(weights, dict) else {},
        "recipe_fingerprint": record.get("fingerprint"),
        "deviations": _deviations(record),
        "average_precision": {},
        "test_set": str(cfg.dataloader.test.dataset.names),
    }


def _deviations(record: Mapping[str, Any]) -> list[str] | None:
    """In what the run is not its packaged recipe; None where it is none of these."""
    from ..report.reading.published import deviations, recipe_of

    words = record.get("command_line")
    recipe = recipe_of(words if isinstance(words, list) else [])
    if recipe is None:
        return None
    found = deviations(recipe, {"weights": {}, **record})
    return [f"{one.key}: {one.run} for {one.recipe}" for one in found]


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


def _none_and_many(model: nn.Module, rule: Rule, job: Job) -> list[Job]:
    """The same image with a threshold that leaves nothing, and with one that leaves more than are kept."""
    (found,) = _ask(model, rule, [job._replace(threshold=0.0)])
    least = float(found.scores.min(initial=1.0))
    return [job._replace(threshold=1.0), job._replace(threshold=least / 2)]


def _mapped(path: str, rule: Rule, times: float = 1.0) -> torch.Tensor:
    """An image as Detectron2 reads and resizes it, (3, h, w)."""
    if rule.fixed:
        resizing = ResizeScale(1.0, 1.0, *rule.fixed)
    else:
        short, longest = int(rule.short * times), int(rule.long * times)
        resizing = ResizeShortestEdge([short, short], longest)
    mapper = DatasetMapper(False, augmentations=[resizing], image_format=rule.order)
    return load(mapper, {"file_name": path})["image"].float()


@torch.no_grad()
def _ask(model: nn.Module, rule: Rule, jobs: Sequence[Job], flip: bool = False) -> Iterator[Found]:
    """What Detectron2 finds, with nothing of the file's own way to its input."""
    for job in _counted(jobs):
        pixels = _mapped(job.path, rule, job.times)
        width, height = upright_size(job.path)
        inside = tuple(pixels.shape[1:])
        if rule.fixed:  # as in a batch, Detectron2's padding is the mean
            whole = model.pixel_mean.expand(-1, *rule.fixed).clone()
            whole[:, : inside[0], : inside[1]] = pixels
            pixels = whole
        with changed(_predictor(model), test_score_thresh=job.threshold):
            images = model.preprocess_image([{"image": pixels.flip(0) if flip else pixels}])
            images.image_sizes = [inside]
            features = model.backbone(images.tensor)
            proposals, _ = model.proposal_generator(images, features, None)
            (found,), _ = model.roi_heads(images, features, proposals, None)
        yield _arrays(detector_postprocess(found, height, width))


def _predictor(model: nn.Module) -> nn.Module:
    return model.roi_heads.box_predictor


def _counted(items: Sequence[Any]) -> Iterator[Any]:
    with progress_bar(len(items)) as advance:
        for item in items:
            yield item
            advance()


def _content(to: str, model: nn.Module, facts: dict, first: str) -> bytes:
    """Of the file."""
    text = json.dumps(facts)
    if to == "safetensors":
        from safetensors.torch import save

        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        return save(tensors, metadata={elsewhere.FACTS: text})
    given = [*elsewhere.prepare(elsewhere.read(first), facts), elsewhere.least(facts["threshold"])]
    file = io.BytesIO()
    if to == "torchscript":
        network = trace(model, *map(torch.from_numpy, given), facts["fixed"])
        torch.jit.save(network, file, _extra_files={elsewhere.FACTS: text})
        return file.getvalue()
    import onnx

    write_onnx(model, *map(torch.from_numpy, given), file)
    graph = onnx.load_from_string(file.getvalue())
    entry = graph.metadata_props.add()
    entry.key, entry.value = elsewhere.FACTS, text
    return graph.SerializeToString()


def _ask_file(written: Path, cfg: DictConfig, rule: Rule, jobs: Sequence[Job]) -> Iterator[Found]:
    """What the file finds: a graph in a process of its own, weights in a model that is built for them."""
    if written.suffix != SUFFIXES["safetensors"]:
        yield from _run_elsewhere(written, jobs)
        return
    facts, _ = elsewhere.load(os.fspath(written))
    own = config_in(facts) if facts["config"] else cfg.copy()
    own.train.device = "cpu"
    yield from _ask(Detector(own, os.fspath(written)).model, rule, jobs)


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
    largest: dict[str, float] = {}
    with closing(found):
        for theirs, ours, job in zip(expected, found, jobs, strict=True):
            differences = difference_of(theirs, ours)
            if differences is None:
                raise InputError(
                    f"the exported file finds other instances in {job.path}: {len(ours.scores)}, and "
                    f"Detectron2 {len(theirs.scores)}; nothing was written"
                )
            for name, value in differences.items():
                largest[name] = max(largest.get(name, 0.0), value)
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
    free, largest = np.ones(len(ours.scores), dtype=bool), {"boxes": 0.0, "scores": 0.0}
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
        for name, value in differences.items():
            largest[name] = max(largest.get(name, 0.0), float(value))
    return largest


def _average_precisions(
    cfg: DictConfig,
    records: Sequence[Mapping[str, Any]],
    theirs: Iterator[Found],
    ours: Iterator[Found],
) -> dict[str, tuple[float, float]]:
    """Of the test set, by the run's own evaluator: of what Detectron2 finds, and of what the file finds.

    Raises:
        InputError: the two are more than 0.01 percent apart.
    """
    both = []
    for found in (theirs, ours):
        evaluator = instantiate(cfg.dataloader.evaluator)
        evaluator.reset()
        for record, one in zip(records, found, strict=True):
            evaluator.process([record], [{"instances": as_instances(one, record)}])
        with redirect_stdout(io.StringIO()):  # COCO's tables
            metrics = flatten(evaluator.evaluate())
        both.append({key: metrics[key] for key in ("bbox/AP", "segm/AP") if key in metrics})
    for name, value in both[0].items():
        if not abs(value - both[1][name]) <= LARGEST_OF_PRECISION:
            raise InputError(
                f"the exported file has {name} {both[1][name]:.3f}, and Detectron2 {value:.3f}; nothing was "
                "written"
            )
    return {name: (value, both[1][name]) for name, value in both[0].items()}


def _controls(
    model: nn.Module, rule: Rule, jobs: Sequence[Job], expected: Sequence[Found]
) -> Iterator[tuple[str, int]]:
    """In how many comparisons a mistake shows, of those that can show at all."""

    def shows(found: Iterable[Found]) -> int:
        differences = map(difference_of, expected, found)
        return sum(
            one is None or any(value > LARGEST[name] for name, value in one.items())
            for one in differences
        )

    if not all(_is_grey(job.path) for job in jobs):
        yield "channels in the other order", shows(_ask(model, rule, jobs, flip=True))
    plain = {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    if not all(torch.equal(getattr(model, name), value) for name, value in plain.items()):
        with changed(model, **plain):
            yield "no normalisation", shows(_ask(model, rule, jobs))
    other = float(np.median(np.concatenate([one.scores for one in expected])))
    others = [job._replace(threshold=other) for job in jobs]
    yield "another score threshold", shows(_ask(model, rule, others))


def _is_grey(path: str) -> bool:
    pixels = np.asarray(elsewhere.read(path))
    return bool((pixels == pixels[..., :1]).all())


def _arrays(found: Instances) -> Found:
    masks = found.pred_masks.numpy() if found.has("pred_masks") else np.zeros((0, 0, 0), bool)
    boxes, scores = found.pred_boxes.tensor.numpy(), found.scores.numpy()
    return Found(boxes, scores, found.pred_classes.numpy(), masks)
