"""What an evaluation would run, and how long that takes."""

from __future__ import annotations

from collections.abc import Sequence

from ..fidelity.protocols import PROCESSES, Protocol
from .evaluation import Evaluation


def plan(evaluation: Evaluation, num_gpus: int | None) -> list[str]:
    """Lines that say what would run, and how long it takes where somebody has published that.

    Args:
        num_gpus: of each run; None on the CPU.

    Raises:
        InputError: as `Evaluation.check_results`.
    """
    evaluation.check_results()
    lines, hours, unknown = [], 0.0, []
    if step := evaluation.conversion():
        lines += ["== conversion, with proof", f"$ {step.command({})}"]
    if steps := evaluation.preparations():
        lines += ["", "== preparation", *(f"$ {step.command({})}" for step in steps)]
    for protocol in evaluation.protocols:
        runs, missing = evaluation.runs(protocol), evaluation.missing(protocol)
        done = f", {len(runs) - len(missing)} done" if len(missing) < len(runs) else ""
        of_run = _hours(protocol, evaluation.overrides, num_gpus)
        if missing and of_run is None:
            unknown.append(protocol.name)
        hours += (of_run or 0) * len(missing)
        takes = f", {_said(protocol, of_run)}" if missing else ""
        count = f"{len(runs)} run{'s' * (len(runs) > 1)}{done}"
        lines += ["", f"== {protocol.name}: {protocol.title}", f"   {count}{takes}"]
        lines += [f"$ {evaluation.step(run).command({})}" for run in missing]
    lines.append("")
    if hours:
        gpus = f"{num_gpus} GPU{'s' * (num_gpus != 1)}"
        lines.append(f"{hours:.0f} hours in all, of training alone, on {gpus}")
    if unknown:
        lines.append(
            f"time unknown of {', '.join(unknown)}: the command with --dry-run for --resume measures it"
        )
    return lines


def _hours(protocol: Protocol, overrides: Sequence[str], num_gpus: int | None) -> float | None:
    """Of a run, if `num_gpus` share the work evenly."""
    iterations = protocol.iterations
    for word in overrides:
        if word.startswith("train.max_iter=") and word.partition("=")[2].isdigit():
            iterations = int(word.partition("=")[2])
    if not num_gpus or protocol.seconds is None or iterations is None:
        return None
    return iterations * protocol.seconds * PROCESSES / num_gpus / 3600


def _said(protocol: Protocol, hours: float | None) -> str:
    if hours is None:
        return "time unknown"
    return (
        f"{hours:.1f} hours each, if its GPUs are V100s and {protocol.seconds} s an iteration on "
        f"{PROCESSES} of them hold ({protocol.timing}, with frozen batch norm)"
    )
