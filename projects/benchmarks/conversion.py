"""Time and memory of a conversion, beside a straightforward script, on one file, in one run.

    python projects/benchmarks/conversion.py [--repeats 5] [--folder FOLDER]

The file is a MoCo v2 checkpoint of 370 MB in each of torch's two formats, made anew. Every repeat
runs each program once, in turn, as a process of its own; what is compared is the whole process, from
start to exit, with the file in the page cache and no result in the way. At the end the arrays that
both wrote are compared. Writes results/conversion.json and results/conversion.md beside this file,
and needs 2 GB of disk in FOLDER (default: a temporary one).
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
CONVERTER = HERE.parent.parent / "tools" / "convert_checkpoint.py"
FORMATS = ("zip", "legacy")
PROGRAMS = {
    "straightforward": [str(HERE / "straightforward.py")],
    "ssl-convert --no-verify": [str(CONVERTER), "--no-verify"],
    "ssl-convert": [str(CONVERTER)],
}
BASELINE, CONVERSION, PROVED = PROGRAMS


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="of every program (5)")
    parser.add_argument("--folder", help="where the files are made (a temporary folder)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print("making the checkpoints ...", flush=True)
        subprocess.run([sys.executable, str(HERE / "make_checkpoint.py"), folder], check=True)
        runs = {form: measure(Path(folder), form, options.repeats) for form in FORMATS}
        for form in FORMATS:
            check_equal(*(Path(folder) / f"{form}-{name}.pkl" for name in (BASELINE, CONVERSION)))
    result = {"machine": machine(), "repeats": options.repeats, "formats": runs}
    report = "\n".join(lines(result))
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "conversion.json").write_text(json.dumps(result, indent=2) + "\n")
    (HERE / "results" / "conversion.md").write_text(report + "\n")
    print(report)
    return 0


def measure(folder: Path, form: str, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds, and MiB of resident memory at the peak, of every run, by program."""
    source = folder / f"moco-{form}.pth.tar"
    with open(source, "rb") as file:  # into the page cache
        while file.read(1 << 20):
            pass
    runs = {name: {"seconds": [], "peak_mib": []} for name in PROGRAMS}
    for repeat in range(repeats):
        for name, (script, *flags) in PROGRAMS.items():
            print(f"{form}, repeat {repeat + 1} of {repeats}: {name}", flush=True)
            result = folder / f"{form}-{name}.pkl"
            result.unlink(missing_ok=True)
            seconds, peak = run([sys.executable, script, str(source), str(result), *flags])
            runs[name]["seconds"].append(round(seconds, 3))
            runs[name]["peak_mib"].append(round(peak, 1))
    return runs


def run(command: list[str]) -> tuple[float, float]:
    """Wall time in seconds and peak in MiB of a whole process.

    Linux counts the peak of the process that starts another one into the new one's. So this module imports
    nothing large before all is measured.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def check_equal(one: Path, other: Path) -> None:
    """Both files are of our own making, so Python's unpickler may read them."""
    import numpy as np

    with open(one, "rb") as first, open(other, "rb") as second:
        model, copy = pickle.load(first)["model"], pickle.load(second)["model"]
    counters = {name for name in model if name.endswith("num_batches_tracked")}
    assert copy.keys() == model.keys() - counters, "the programs wrote other names"
    assert len(copy) == 265, "a ResNet-50 has 265 tensors"
    for name, array in copy.items():
        np.testing.assert_array_equal(array, model[name], strict=True)


def machine() -> dict[str, str | int]:
    info = Path("/proc/cpuinfo")
    models = (
        [x for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    )
    return {
        "processor": models[0].split(":")[1].strip() if models else platform.processor(),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "load": f"{os.getloadavg()[2]:.1f} on average over the last 15 minutes",
    }


def lines(result: dict):
    """The report in Markdown."""
    kind = result["machine"]
    yield (
        f"{kind['processor']}, {kind['cores']} cores, {kind['system']}; Python {kind['python']}, "
        f"torch {kind['torch']}, numpy {kind['numpy']}; load {kind['load']}."
    )
    yield f"Median of {result['repeats']} runs, in turn; in brackets the fastest and the slowest."
    yield ""
    yield "| format | program | wall time, s | of straightforward | peak memory, MiB | of straightforward |"
    yield "|---|---|---|---|---|---|"
    for form, runs in result["formats"].items():
        base = {unit: statistics.median(values) for unit, values in runs[BASELINE].items()}
        for name, values in runs.items():
            cells = []
            for unit, digits in (("seconds", 2), ("peak_mib", 0)):
                median = statistics.median(values[unit])
                low, high = min(values[unit]), max(values[unit])
                cells.append(f"{median:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})")
                ratio = base[unit] / median
                cells.append(f"1/{ratio:.1f}" if ratio >= 1 else f"{1 / ratio:.1f}")
            yield f"| {form} | {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
