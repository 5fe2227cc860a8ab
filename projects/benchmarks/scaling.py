"""How time and memory grow with the size of the work: annotations, evaluation, conversion.

Each point is a process of its own, the sizes in turn and both sides in turn. A series is as steep as the
power of the size that its time grows with: 1 is linear. Writes
results/scaling-MACHINE.{json,md} beside this file; SCALING.md says what follows for whole trainings.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    # In place of this folder, whose profile.py would hide Python's own.
    sys.path[0] = str(HERE.parents[1])

from projects.benchmarks import processes, scaling_points  # noqa: E402
from projects.benchmarks.machine import circumstances, file_stem, machine  # noqa: E402

STEEP = 1.1
"""A power above it is more than linear growth and the scatter of the measurement."""


class Series(NamedTuple):
    """One kind of work in several sizes.

    Attributes:
        what: what is measured.
        size: what the sizes count.
        sizes: of each side, ascending by factors of two to four.
        reason: why it grows faster than linearly, if it does.
    """

    what: str
    size: str
    sizes: dict[str, tuple[float, ...]]
    reason: str = ""


SERIES = {
    "annotations": Series(
        "load the annotation file into dataset dicts",
        "train2017",
        {"stock": (1 / 16, 1 / 4, 1), "ours": (1 / 16, 1 / 4, 1, 4)},
    ),
    "annotations-first": Series(
        "hash, read and pack the annotation file when it is opened for the first time",
        "train2017",
        {"ours": (1 / 16, 1 / 4, 1, 4)},
    ),
    "annotations-second": Series(
        "open the packed annotations again",
        "train2017",
        {"ours": (1 / 16, 1 / 4, 1, 4)},
    ),
    "evaluation-images": Series(
        "box AP of 100 detections an image",
        "images",
        {"stock": (625, 1250, 2500), "ours": (625, 1250, 2500, 5000, 10000)},
    ),
    "evaluation-detections": Series(
        "box AP of 1,250 images",
        "detections an image",
        {"stock": (25, 50, 100), "ours": (25, 50, 100)},
    ),
    "conversion": Series(
        "convert a MoCo checkpoint, whole process",
        "MB",
        {"stock": (110, 370, 740, 1480), "ours": (110, 370, 740, 1480)},
    ),
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--series", action="append", choices=list(SERIES), help="may be given again (default: all)")
    add("--repeats", type=int, default=3, metavar="N", help="of each point (default: 3)")
    add("--largest", type=float, metavar="SIZE", help="leave out what is larger")
    add("--results", type=Path, default=HERE / "results", metavar="FOLDER")
    add("--folder", metavar="FOLDER", help="where inputs are made: 3 GB (a temporary folder)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    kind = machine()
    path = options.results / f"scaling-{file_stem(kind)}.json"
    before = json.loads(path.read_text())["series"] if path.exists() else {}
    content = {"machine": kind, "series": before}
    for name in options.series or SERIES:
        around = circumstances()
        points = measure(name, options)
        content["series"][name] = {
            "what": SERIES[name].what,
            "size": SERIES[name].size,
            "reason": SERIES[name].reason,
            "points": points,
            **around,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
        path.with_suffix(".md").write_text("\n".join(report(content)) + "\n")
    print("\n".join(report(content)))
    return 0


def measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The points of a series: side, size, and the seconds and MiB of every repeat."""
    series = SERIES[name]
    points = []
    for size in sorted({size for sizes in series.sizes.values() for size in sizes}):
        if options.largest is not None and size > options.largest:
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            sides = [side for side, sizes in series.sizes.items() if size in sizes]
            sides = [side for side in sides if _fits(points, side, size)]
            if not sides:
                continue
            make = scaling_points.INPUTS[name]
            make(Path(folder), size)
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
            try:
                for repeat, side in itertools.product(range(options.repeats), sides):
                    print(f"{name}: {size:g} {series.size}, {side}, {repeat + 1}", file=sys.stderr)
                    runs[side].append(_run(name, side, size, folder))
            except subprocess.CalledProcessError as error:
                # Most likely for want of memory, which no estimate foresees for certain.
                print(f"left out: {size:g} {series.size}: {error}", file=sys.stderr)
                break
            for side in sides:
                values = {unit: [run[unit] for run in runs[side]] for unit in ("seconds", "mib")}
                points.append({"side": side, "size": size, **values})
    return points


def _run(name: str, side: str, size: float, folder: str) -> dict[str, float]:
    command = [sys.executable, "-m", scaling_points.__name__, name, side, str(size), folder]
    usage = processes.run(command, {"PYTHONPATH": str(HERE.parents[1])})
    told = json.loads(usage.output.splitlines()[-1])
    if told["whole"]:  # the work is a process that this one started
        return {"seconds": told["seconds"], "mib": told["mib"]}
    return {"seconds": told["seconds"], "mib": usage.peak_mib - told["mib"]}


def _fits(points: list[dict[str, Any]], side: str, size: float) -> bool:
    """Whether the memory there is holds what the side would need if it grew with the size."""
    smaller = [point for point in points if point["side"] == side]
    if not smaller:
        return True
    expected = max(smaller[-1]["mib"]) * size / smaller[-1]["size"]
    fits = expected < 0.8 * _available_mib()
    if not fits:
        print(f"left out: {side} at {size:g} would need {expected:.0f} MiB", file=sys.stderr)
    return fits


def _available_mib() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 2**10
    except OSError:
        pass
    return math.inf


def steepness(points: list[dict[str, Any]], side: str) -> list[float]:
    """The powers of the size by which a side's time grows, from each size to the next."""
    return [_power(*pair) for pair in itertools.pairwise(_medians(points, side))]


def overall(points: list[dict[str, Any]], side: str) -> float:
    """The power from the smallest size to the largest, in which the scatter of single ones is small."""
    found = _medians(points, side)
    return _power(found[0], found[-1]) if len(found) > 1 else 0.0


def _medians(points: list[dict[str, Any]], side: str) -> list[tuple[float, float]]:
    own = [point for point in points if point["side"] == side]
    return [(point["size"], statistics.median(point["seconds"])) for point in own]


def _power(one: tuple[float, float], other: tuple[float, float]) -> float:
    return math.log(other[1] / one[1]) / math.log(other[0] / one[0])


def report(content: dict[str, Any]) -> Iterator[str]:
    """The measured points in Markdown."""
    kind = content["machine"]
    yield f"{kind['processor']}, {kind['cores']} cores, {kind['memory_gib']} GiB, {kind['system']}."
    yield (
        "Medians. Memory is the peak above what the process had before the work, and for the conversion "
        "that of the whole process. The power is the one of the size that the time grew with, from the size "
        "before: 1 is linear."
    )
    for name, series in content["series"].items():
        yield from ("", f"## {name}: {series['what']}", "")
        yield f"| {series['size']} | side | time, s | power | memory, MiB |"
        yield "|---|---|---|---|---|"
        for side in ("stock", "ours"):
            powers = [None, *steepness(series["points"], side)]
            own = [point for point in series["points"] if point["side"] == side]
            for point, power in zip(own, powers, strict=False):
                seconds, mib = (statistics.median(point[unit]) for unit in ("seconds", "mib"))
                yield (
                    f"| {point['size']:g} | {side} | {seconds:.3g} | "
                    f"{'' if power is None else f'{power:.2f}'} | {mib:.0f} |"
                )
        steep = overall(series["points"], "ours")
        yield ""
        verdict = "at most linear" if steep <= STEEP else "steeper than linear"
        reason = f": {series['reason']}" if steep > STEEP and series["reason"] else ""
        yield f"Ours is {verdict} (power {steep:.2f} from the smallest to the largest){reason}."
        yield f"{series['date']}, commit {series['commit']}, load before {series['load_before']}."


if __name__ == "__main__":
    sys.exit(main())
