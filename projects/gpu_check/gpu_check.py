"""Everything here that only a GPU can tell, in at most nine minutes, into one file to send back.

Each part has a process of its own and a share of the time that is left; the file is written after each.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from projects.gpu_check.checks import CHECKOUT, PARTS

SECONDS = 530
SHARES = {"norm": 60, "step": 170, "memory": 110, "runs": 190}
"""Of those seconds; what one leaves over goes to those after it."""
NEEDED = (
    *("torch", "torchvision", "detectron2", "fvcore", "hydra", "iopath", "pycocotools"),
    *("tensorboard", "yaml"),
)
OPTIONAL = {
    "numba": "its loops for the CPU are not tried, what they replace is",
    "cv2": "no digits are drawn; shapes are the data in any case",
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "examples:\n"
            "  python projects/gpu_check/gpu_check.py\n"
            "  python projects/gpu_check/gpu_check.py --out h100.json\n"
            "  python projects/gpu_check/gpu_check.py --device cpu --small\n\n"
            "The exit status is 1 if a check differs or fails, 2 if nothing can be checked here."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda", help="(default: cuda)")
    add("--small", action="store_true", help="tiny sizes, which a CPU can afford: does it run?")
    add("--seconds", type=float, default=SECONDS, help=f"for all of it (default: {SECONDS})")
    out = Path("output/gpu_check.json")
    add("--out", type=Path, default=out, metavar="FILE", help=f"to send back (default: {out})")
    return parser.parse_args(argv)


def describe(device: str) -> dict[str, Any]:
    """The machine, versions, and what goes untried.

    Raises:
        InputError: something that the checks need is missing.
    """
    from projects.benchmarks.machine import circumstances, machine
    from ssl_backbones.errors import InputError

    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"not installed: {', '.join(missing)}; projects/gpu_check/README.md says what to carry"
        )
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("torch finds no usable GPU: --device cpu --small tries the parts without")
    skipped = {name: why for name, why in OPTIONAL.items() if not importlib.util.find_spec(name)}
    libraries = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    libraries["tf32_in_convolutions"] = torch.backends.cudnn.allow_tf32
    return {"machine": machine(), **circumstances(), **libraries, "without": skipped}


def run_part(part: str, options: argparse.Namespace, folder: Path, limit: float) -> dict[str, Any]:
    """Outcomes by check of a process that has `limit` seconds, and is killed with all that it has started."""
    command = [sys.executable, "-m", "projects.gpu_check.checks", part, str(folder)]
    command += ["--device", options.device, *["--small"] * options.small]
    log = folder / f"{part}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=file, stderr=file, start_new_session=True
        )
        try:
            ending = f"failed: its process ended with status {process.wait(limit)}"
        except subprocess.TimeoutExpired:
            ending = f"not run: no time left, its part had {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    results = folder / f"{part}.jsonl"
    lines = results.read_text().splitlines() if results.exists() else []
    done = dict(json.loads(line) for line in lines)
    if ending.startswith("failed") and len(done) < len(PARTS[part]):
        said = log.read_text(errors="replace").split()
        ending = f"{ending}: {' '.join(said)[-300:]}"
    return {name: done.get(name, {"verdict": ending}) for name in PARTS[part]}


def run(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + options.seconds
    from ssl_backbones.files import write_atomically

    content = {**describe(options.device), "device": options.device, "small": options.small}
    checks = content["checks"] = {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{content['machine']['gpu'] or 'no GPU'}; torch {content['versions']['torch']}")
    for name, why in content["without"].items():
        print(f"without {name}: {why}")
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
        for number, (part, share) in enumerate(SHARES.items()):
            share /= sum(list(SHARES.values())[number:])
            limit = max(0.0, share * (deadline - time.monotonic()))
            checks |= (found := run_part(part, options, Path(folder), limit))
            text = json.dumps(content, indent=1)
            write_atomically(options.out, lambda file, text=text: file.write(f"{text}\n".encode()))
            for name, outcome in found.items():
                print(f"{name:18} {outcome['verdict']}", flush=True)
    print(f"to send back: {options.out}")
    bad = [o for o in checks.values() if o["verdict"].startswith(("differs", "failed"))]
    return int(bool(bad))


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    from ssl_backbones.errors import run_command

    return run_command(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
