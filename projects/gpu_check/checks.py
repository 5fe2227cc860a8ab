"""The checks, part by part.

    python -m projects.gpu_check.checks PART FOLDER --device cuda [--small]

does those of one part, as gpu_check.py has it done for each, and adds a line to FOLDER/PART.jsonl after every
check: [name, {"verdict": ..., "figures": {...}, "seconds": ...}].
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .shapes import HEIGHT, WIDTH, write_shapes

CHECKOUT = Path(__file__).resolve().parents[2]
RECIPES = ("moco_1x", "moco_ms2x", "swav_1x", "swav_ms2x")
RECIPE_MODEL = {"norm": "BN", "freeze_at": 1}
DTYPES = {"fp32": None, "fp16": "float16", "bf16": "bfloat16"}
STEPS = 20
NORM_TOLERANCE = 1e-4
"""Of SyncBN's results from BN's, of the largest value: float32 sums of 40,000 numbers in another order."""
AP_TOLERANCE = 0.1
"""Largest difference of a metric, in percent, between a GPU, which rounds as it likes, and the CPU."""
SHAPES = ((2, 64, 100, 136), (1, 64, 84, 152))
"""N x C x H x W of the images of each of two processes."""


class Setting(NamedTuple):
    """Where a part runs: "cuda" or "cpu", `small` for a test, and a folder that the checks share."""

    device: str
    small: bool
    folder: Path


class Outcome(NamedTuple):
    """A verdict, "ok" or a word and the reason ("differs: ...", "not run: ..."), and figures by name."""

    verdict: str
    figures: dict[str, Any]


# ---- the recipe's step


@functools.cache
def _losses(setting: Setting, dtype: str | None, is_fast: bool) -> tuple[list[float], float]:
    """Of each step, and images a second of a second time."""
    from projects.benchmarks.rows import gpu

    device, small, _ = setting
    options = {"dtype": dtype, "is_fast": is_fast, "steps": STEPS, **RECIPE_MODEL}
    train = gpu.make(device, small, **options)
    losses = train()
    started = time.perf_counter()
    train()
    return losses, 2 * len(losses) / (time.perf_counter() - started)


def step(precision: str, setting: Setting) -> Outcome:
    """Losses beside Detectron2's own; the yardstick is what another precision changes there."""
    from projects.benchmarks.row import Disagreement
    from projects.benchmarks.rows import gpu

    dtype = DTYPES[precision]
    other = "float16" if dtype is None and setting.device == "cuda" else None
    (theirs, stock_speed), (own, speed) = (_losses(setting, dtype, fast) for fast in (False, True))
    figures = {"stock_losses": theirs, "losses": own}
    figures |= {"stock_images_per_second": stock_speed, "images_per_second": speed}
    if dtype and setting.small:
        return Outcome("not run: one step tells no fault from rounding", figures)
    if not all(map(math.isfinite, theirs)):
        return Outcome("failed: Detectron2's own losses are not finite", figures)
    try:
        gpu.check(_losses(setting, other, False)[0], theirs, own)
    except Disagreement as error:
        return Outcome(f"differs: {error}", figures)
    return Outcome("ok", figures)


# ---- SyncBN


def sync_bn(setting: Setting, shapes: Sequence = SHAPES, start_method: str = "spawn") -> Outcome:
    """Two processes of one device, by gloo, beside BN over all that they have."""
    import torch

    from ssl_backbones.modeling.norm import choose_norm

    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, generator=generator) * 3 + 1 for shape in shapes]
    choice = choose_norm(2, setting.device)
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        arguments = (choice.name, parts, setting.device, folder)
        torch.multiprocessing.start_processes(_rank, arguments, 2, start_method=start_method)
        found = [torch.load(f"{folder}/{rank}.pth", weights_only=True) for rank in range(2)]
    whole = torch.cat([_pixels(part) for part in parts], dim=1)[None, :, :, None]
    expected = _normalised("BN", whole, setting.device)
    together = {
        # Of the pixels each process has its own; a gradient of a weight is a sum over them.
        **{
            name: torch.cat([own[name] for own in found], dim=1)
            for name in ("features", "gradients")
        },
        "weight gradient": found[0]["weight gradient"] + found[1]["weight gradient"],
        "running mean": found[0]["running mean"],
        "running variance": found[1]["running variance"],
    }
    errors = {
        name: ((value - expected[name]).abs().max() / expected[name].abs().max()).item()
        for name, value in together.items()
    }
    worst = max(errors, key=errors.get)
    figures = {"norm": choice.name, "shapes": shapes, **errors}
    if errors[worst] <= NORM_TOLERANCE:
        return Outcome("ok", figures)
    return Outcome(f"differs: {worst} by {errors[worst]:.1e} ({choice.reason})", figures)


def _rank(rank: int, name: str, parts: list, device: str, folder: str) -> None:
    import torch

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    torch.save(_normalised(name, parts[rank], device), f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()


def _normalised(name: str, images: Any, device: str) -> dict[str, Any]:
    """Of one norm over `images`: features and gradients as `_pixels`, the weight's gradient, statistics."""
    from detectron2.layers import get_norm

    norm = get_norm(name, images.shape[1]).to(device).train()
    images = images.to(device).requires_grad_()
    features = norm(images)
    # Any loss that weights the elements unequally.
    (features * images.detach().sin()).sum().backward()
    found = {
        "features": _pixels(features.detach()),
        "gradients": _pixels(images.grad),
        "weight gradient": norm.weight.grad,
        "running mean": norm.running_mean,
        "running variance": norm.running_var,
    }
    return {name: value.cpu() for name, value in found.items()}


def _pixels(images: Any) -> Any:
    """N x C x H x W to C x pixels."""
    return images.transpose(0, 1).flatten(1)


# ---- memory of the recipes


def _data(setting: Setting) -> Path:
    """Shapes that all parts share, whole or not there: a part may be killed while it draws them."""
    from ssl_backbones.files import write_folder

    root, (train, val) = setting.folder / "shapes", (8, 2) if setting.small else (200, 50)
    if not root.exists():
        write_folder(root, lambda made: write_shapes(made, train=train, val=val))
    return root


def memory(name: str, setting: Setting) -> Outcome:
    """The largest of three training steps and a test, of two images each, as large as they get."""
    import torch
    from detectron2.config import instantiate
    from detectron2.engine import hooks

    from ssl_backbones.data.loading import build_train_loader
    from ssl_backbones.engine.config import data_overrides, load_config
    from ssl_backbones.engine.dry_run import measure
    from ssl_backbones.engine.schedule import lr_multiplier
    from ssl_backbones.engine.trainer import Trainer
    from ssl_backbones.modeling.norm import apply_norm, choose_norm

    side = 64 if setting.small else 800
    words = ["dataloader.train.total_batch_size=2", "train.init_checkpoint=''"]
    words += [f"dataloader.train.mapper.augmentations.0.short_edge_length=[{side},{side}]"]
    words += [f"dataloader.test.mapper.augmentations.0.short_edge_length={side}"]
    words += [f"dataloader.{split}.num_workers=0" for split in ("train", "test")]
    if setting.small:
        words += ["model.roi_heads.batch_size_per_image=16"]
        words += ["model.proposal_generator.post_nms_topk=[50,20]"]
    cfg = load_config(name, [*data_overrides(str(_data(setting))), *words])
    apply_norm(cfg.model, choose_norm(1, setting.device))
    model = cfg.optimizer.params.model = instantiate(cfg.model).to(setting.device)
    loader = build_train_loader(cfg.dataloader.train, seed=0)
    trainer = Trainer(model, loader, instantiate(cfg.optimizer))
    trainer.register_hooks([hooks.LRScheduler(scheduler=lr_multiplier(cfg))])
    if setting.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    costs = measure(cfg, trainer)
    size = f"{side}x{round(side * WIDTH / HEIGHT)}"
    seconds = {"seconds_a_step": costs.iteration, "seconds_a_test_image": costs.evaluation_batch}
    return Outcome("ok", {"peak_mib": costs.memory, "images": f"2 of {size}", **seconds})


# ---- whole runs


def start(words: list[str], log: Path) -> subprocess.Popen:
    """tools/train_net.py with `words`, what it prints in `log`."""
    command = [sys.executable, str(CHECKOUT / "tools" / "train_net.py"), *words]
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=CHECKOUT)


def _run(
    setting: Setting, name: str, *words: str, device: str = "", until: Callable | None = None
) -> Path:
    """The digits' recipe on the shapes, from scratch; returns the run folder.

    Args:
        until: kill it as soon as this is true of its folder.

    Raises:
        RuntimeError: it failed, with the last line that it printed, or it had ended before it was killed.
    """
    iterations, batch = (6, 2) if setting.small else (300, 4)
    folder = setting.folder / name
    log = setting.folder / f"{name}.log"
    of_all = [
        *("--config-file", "projects/digits/configs/moco_digits.py", "--data", str(_data(setting))),
        *(f"train.output_dir='{folder}'", f"train.device={device or setting.device}"),
        *("train.init_checkpoint=''", "model.backbone.bottom_up.freeze_at=0", "train.seed=0"),
        *("train.eval_at_start=False", "train.draw_batches=0", f"train.max_iter={iterations}"),
        *(f"train.checkpointer.period={iterations // 3}", "train.warmup_iters=2"),
        *(f"dataloader.train.total_batch_size={batch}", f"train.reference_batch_size={batch}"),
        *(
            f"dataloader.{split}.mapper.augmentations.0.max_size={WIDTH}"
            for split in ("train", "test")
        ),
    ]
    process = start([*of_all, *words], log)
    while until and not until(folder) and process.poll() is None:
        time.sleep(0.01)
    if until and process.poll() is None:
        process.kill()
        process.wait()
        return folder
    if process.wait() or until:
        lines = log.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        raise RuntimeError(f"{name} ended with status {process.wait()}: {last}")
    return folder


@functools.cache
def _unbroken(setting: Setting, name: str) -> Path:
    return _run(setting, name)


def _metrics(folder: Path) -> dict[str, float | None]:
    """In percent by name, None where there is no such object."""
    from ssl_backbones.evaluation.metrics import flatten, read_metrics

    found = flatten(read_metrics(str(folder / "inference" / "metrics.json"))[0])
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def evaluation(setting: Setting) -> Outcome:
    """A run's own metrics beside those of its weights on the CPU."""
    folder = _unbroken(setting, "unbroken")
    weights = f"train.init_checkpoint='{folder}/model_final.pth'"
    on_cpu = _run(setting, "on_the_cpu", "--eval-only", weights, device="cpu")
    return judge_metrics(_metrics(folder), _metrics(on_cpu))


def judge_metrics(own: dict[str, float | None], on_cpu: dict[str, float | None]) -> Outcome:
    """Equal to `AP_TOLERANCE`, if there is something to compare."""
    names = ("bbox/AP", "bbox/AP50", "segm/AP", "segm/AP50")
    figures: dict[str, Any] = {name: (own.get(name), on_cpu.get(name)) for name in names}
    if not on_cpu.get("bbox/AP") or on_cpu["bbox/AP"] < 1:
        return Outcome("not run: the detector finds too little to compare", figures)
    off = {name: abs((own.get(name) or 0) - (on_cpu[name] or 0)) for name in on_cpu}
    worst = max(off, key=off.get)
    figures["largest_difference"] = off[worst]
    is_equal = off[worst] <= AP_TOLERANCE
    return Outcome("ok" if is_equal else f"differs: {worst} by {off[worst]:.2f}", figures)


def resume(setting: Setting) -> Outcome:
    """Killed after its first checkpoint and gone on with, beside one that nothing happened to."""
    from ssl_backbones.engine.checkpoints.checkpoint_folder import pointed_at

    _run(setting, "killed", until=lambda folder: pointed_at(str(folder)))
    resumed = _run(setting, "killed", "--resume")
    unbroken, again = (_unbroken(setting, name) for name in ("unbroken", "unbroken_again"))
    figures = {
        "box_ap": [_metrics(folder).get("bbox/AP") for folder in (unbroken, again, resumed)],
        "unbroken_again": distance(unbroken, again),
        "resumed": distance(unbroken, resumed),
    }
    logged = [(folder / "metrics.json").read_text().count("\n") for folder in (unbroken, resumed)]
    if logged[0] != logged[1]:
        return Outcome(f"differs: {logged[1]} lines in metrics.json, not {logged[0]}", figures)
    if figures["resumed"] <= 2 * figures["unbroken_again"]:
        return Outcome("ok", figures)
    off = "differs: weights by {resumed:.1e}, those of two unbroken runs by {unbroken_again:.1e}"
    return Outcome(off.format(**figures), figures)


def distance(one: Path, other: Path) -> float:
    """L2 norm of the difference of two runs' last weights to that of the weights: 0 for equal bits."""
    import torch

    files = (folder / "model_final.pth" for folder in (one, other))
    states = [torch.load(file, weights_only=True, map_location="cpu")["model"] for file in files]
    flat = [torch.cat([value.double().flatten() for value in state.values()]) for state in states]
    return ((flat[0] - flat[1]).norm() / flat[0].norm()).item()


PARTS: dict[str, dict[str, Callable[[Setting], Outcome]]] = {
    "norm": {"sync-bn": sync_bn},
    "step": {f"step-{precision}": partial(step, precision) for precision in DTYPES},
    "memory": {f"memory-{name}": partial(memory, name) for name in RECIPES},
    "runs": {"evaluation": evaluation, "resume": resume},
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(argv)
    setting = Setting(options.device, options.small, options.folder)
    for name, check in PARTS[options.part].items():
        started = time.monotonic()
        try:
            outcome = check(setting)
        except Exception as error:
            traceback.print_exc()
            line = " ".join(f"{type(error).__name__}: {error}".split())
            outcome = Outcome(f"failed: {line[:500]}", {})
        done = outcome._asdict() | {"seconds": round(time.monotonic() - started, 1)}
        with (setting.folder / f"{options.part}.jsonl").open("a") as file:
            file.write(json.dumps([name, done]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
