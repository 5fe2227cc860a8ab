"""One table of a checkpoint under its protocols: beside the published numbers, as Markdown and CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..evaluation.metrics import metric_name
from ..fidelity.protocols import PROCESSES, Protocol
from ..tables import Table, format_cell
from .evaluation import Evaluation
from .over_seeds import Spread
from .runner import DONE


def plan(evaluation: Evaluation, num_gpus: int | None) -> list[str]:
    """Lines that say what would run, and how long it takes where somebody has published that.

    Args:
        num_gpus: of each run; None on the CPU.

    Raises:
        InputError: as `Evaluation.check_rows`.
    """
    evaluation.check_rows()
    lines, hours, unknown = [], 0.0, []
    if step := evaluation.conversion():
        lines += ["== conversion, with proof", f"$ {step.command({})}"]
    if steps := evaluation.preparations():
        lines += ["", "== preparation", *(f"$ {step.command({})}" for step in steps)]
    for protocol in evaluation.protocols:
        runs, missing = evaluation.runs(protocol), evaluation.missing_of(protocol)
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


COLUMNS = (
    *("protocol", "metric", "kind", "pretraining", "value", "deviation", "runs", "seeds"),
    *("fingerprints", "fields_that_differ", "source", "protocol_differs"),
)
"""`kind` is "here" or "published"; `deviation` is the standard deviation (n - 1) over runs; fingerprints are
of the recipes, and the fields that differ are those in which they are not the protocol's;
the protocol differs where a published number is not of the same, or is not known to be."""

_SHOWN = 12  # digits of a fingerprint
_RULE = " --- "  # below the names of a table's columns


def format_markdown(evaluation: Evaluation, name: str) -> str:
    """The checkpoint's row above the published ones, then what its runs were.

    Args:
        name: of the checkpoint, as the table has it.
    """
    columns = [(p, metric) for p in evaluation.protocols for metric in _metrics(evaluation, p)]
    published = [one for protocol in evaluation.protocols for one in protocol.published]
    sources = {source: n for n, source in enumerate(dict.fromkeys(p.source for p in published), 1)}
    names = ["pretraining", *(f"{p.name} {metric_name(metric)}" for p, metric in columns)]
    rows = [[f"**{format_cell(name)}**", *(_here(evaluation, p, metric) for p, metric in columns)]]
    for pretraining in dict.fromkeys(one.pretraining for one in published):
        found = [_number(protocol, metric, pretraining, sources) for protocol, metric in columns]
        rows.append([f"*published*: {format_cell(pretraining)}", *found])
    lines = [Table("", names, rows).format_markdown(rule=_RULE), ""]
    lines += [_runs(evaluation).format_markdown(rule=_RULE), "", *_remarks(evaluation)]
    lines += ["", *(f"[{number}] {format_cell(source)}  " for source, number in sources.items())]
    return "\n".join(lines).rstrip() + "\n"


def format_csv(evaluation: Evaluation, name: str) -> str:
    """A row a protocol, metric and pretraining."""
    rows: list[dict[str, Any]] = []
    for protocol in evaluation.protocols:
        done = _done(evaluation, protocol)
        differing = sorted({field for result in done for field, *_ in result["differs"]})
        for metric in _metrics(evaluation, protocol):
            cell = _cell(done, metric)
            rows.append(
                {
                    "protocol": protocol.name,
                    "metric": metric,
                    "kind": "here",
                    "pretraining": name,
                    "value": repr(cell.mean) if cell.values else "",
                    "deviation": "" if cell.deviation is None else repr(cell.deviation),
                    "runs": len(done),
                    "seeds": " ".join(str(result["seed"]) for result in done),
                    "fingerprints": " ".join(result["fingerprint"] for result in done),
                    "fields_that_differ": " ".join(differing),
                }
            )
            for one in protocol.published:
                if metric in one.metrics:
                    rows.append(
                        {
                            "protocol": protocol.name,
                            "metric": metric,
                            "kind": "published",
                            "pretraining": one.pretraining,
                            "value": repr(one.metrics[metric]),
                            "source": one.source,
                            "protocol_differs": one.differs,
                        }
                    )
    return Table.of_records("", rows, COLUMNS).format_csv()


def _metrics(evaluation: Evaluation, protocol: Protocol) -> list[str]:
    """Those of the protocol; of one that names none, what its runs have."""
    found = (name for result in _done(evaluation, protocol) for name in result["metrics"])
    return list(dict.fromkeys(protocol.metrics or found))


def _done(evaluation: Evaluation, protocol: Protocol) -> list[Mapping[str, Any]]:
    results = (evaluation.rows.get(run.name, {}) for run in evaluation.runs(protocol))
    return [result for result in results if result.get("status") == DONE]


def _cell(done: list[Mapping[str, Any]], metric: str) -> Spread:
    values = [result["metrics"].get(metric) for result in done]
    return Spread([value for value in values if value is not None])


def _here(evaluation: Evaluation, protocol: Protocol, metric: str) -> str:
    done = _done(evaluation, protocol)
    mark = "*" if any(result["differs"] for result in done) else ""
    return f"{_cell(done, metric).format(1)}{mark}"


def _number(protocol: Protocol, metric: str, pretraining: str, sources: Mapping[str, int]) -> str:
    numbers = (
        f"{one.metrics[metric]:.1f}{'†' if one.differs else ''} [{sources[one.source]}]"
        for one in protocol.published
        if one.pretraining == pretraining and metric in one.metrics
    )
    return ", ".join(numbers)


def _runs(evaluation: Evaluation) -> Table:
    rows = []
    for protocol in evaluation.protocols:
        for run in evaluation.runs(protocol):
            result = evaluation.rows.get(run.name, {"status": "missing"})
            state = format_cell(result["status"])
            if result["status"] != DONE:
                rows.append([run.name, state, run.seed, "", "", ""])
                continue
            differing = [field for field, *_ in result["differs"]]
            shown = ", ".join(f"`{field}`" for field in differing[:3])
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            recipe = f"`{result['fingerprint'][:_SHOWN]}`"
            weights = format_cell(str(result["weights"]).partition(" ")[0][:_SHOWN])
            rows.append([run.name, state, result["seed"], recipe, f"`{weights}`", f"{shown}{more}"])
    columns = ["run", "state", "seed", "recipe", "weights", "fields that are not the protocol's"]
    return Table("", columns, rows)


def _remarks(evaluation: Evaluation) -> Iterator[str]:
    yield (
        "Percent. Published numbers are others', of their own runs, and have not been reproduced here. A "
        "recipe is the fingerprint of every field that affects the result."
    )
    differing = [
        f"\n† {protocol.name}: {note}."
        for protocol in evaluation.protocols
        for note in dict.fromkeys(one.differs for one in protocol.published if one.differs)
    ]
    if differing:
        yield "\n† Published of a protocol that is not the same, or is not known to be:"
        yield from differing
    done = [result for p in evaluation.protocols for result in _done(evaluation, p)]
    if any(result["differs"] for result in done):
        yield (
            "\n\\* Not the protocol's recipe, and not to be compared with what is published: the fields are "
            "in the table of the runs, all of them in the CSV."
        )
    yield from _counts(evaluation)


def _counts(evaluation: Evaluation) -> Iterator[str]:
    """Of how many runs the values are."""
    once = []
    for protocol in evaluation.protocols:
        wanted = len(protocol.folds or evaluation.runs(protocol))
        if wanted == 1:
            once.append(protocol.name)
            continue
        count = f"{len(_done(evaluation, protocol))} of {wanted}"
        what = "folds" if protocol.folds else "runs"
        yield f"\n{protocol.name}: {count} {what}, mean ± standard deviation (n - 1)."
    if once:
        yield (
            f"\nOf one run each: {', '.join(once)}. Another seed gives other values; --repeats makes more "
            "runs and says how much they differ."
        )
