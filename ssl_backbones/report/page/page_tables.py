"""What stands in the tables of a report's page, what was run and on what among it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...tables import Table
from ..analysis.findings import STATISTICS, TaskAnalysis
from ..content import TASKS, PublishedField, RunContent
from ..wording import percent
from . import plots

Rows = list[tuple[str, str]]

_WEIGHTS = {
    "source": "file",
    "source_sha256": "SHA-256 of the file",
    "package": "published in",
    "license": "licence",
    "method": "method",
    "layout": "layout",
    "branch": "network",
    "tool": "converted by",
    "date": "converted at",
}


@dataclass(frozen=True)
class Proof:
    """That the converted weights compute the same features, and that wrong ones would not.

    Attributes:
        stages: name, then the largest relative difference of its features in float64 and in float32.
        tolerances: what these may be; "" where it is not recorded.
        controls: a conversion that is wrong on purpose, and its relative difference.
        margin: how many times the smallest control exceeds its tolerance; "" likewise.
    """

    stages: list[tuple[str, str, str]]
    tolerances: tuple[str, str]
    controls: Rows
    margin: str


def weights_rows(record: Mapping[str, Any]) -> Rows:
    """What is known of the weights that a run began with."""
    weights = _mapping(record.get("weights"))
    rows = [(title, _text(weights[key])) for key, title in _WEIGHTS.items() if weights.get(key)]
    architecture = _mapping(weights.get("architecture"))
    if architecture.get("name"):
        rows.append(("architecture", _text(architecture["name"])))
    taken = _mapping(weights.get("input"))
    rows += [(f"input: {key.replace('_', ' ')}", _text(value)) for key, value in taken.items()]
    return rows


def proof_of(record: Mapping[str, Any]) -> Proof | None:
    """The proof of conversion in a run's record; None without one."""
    proof = _mapping(_mapping(record.get("weights")).get("proof"))
    stages = _mapping(proof.get("stages"))
    exact, rounded = (_mapping(stages.get(kind)) for kind in ("float64", "float32"))
    if not exact:
        return None
    tolerances = _mapping(proof.get("tolerances"))
    controls = [(str(n), _number(value)) for n, value in _mapping(proof.get("controls")).items()]
    if proof.get("other_branch") is not None:
        controls.append(("the file's other network", _number(proof["other_branch"])))
    return Proof(
        [
            (str(stage), _relative(exact.get(stage)), _relative(rounded.get(stage)))
            for stage in exact
        ],
        (_number(tolerances.get("float64")), _number(tolerances.get("float32"))),
        controls,
        _number(proof.get("margin")),
    )


def environment_rows(record: Mapping[str, Any]) -> Rows:
    """Versions, machine and code, without the list of packages."""
    environment = _mapping(record.get("environment"))
    rows = [(str(k), _text(v)) for k, v in _mapping(environment.get("versions")).items() if v]
    gpus = environment.get("gpus")
    rows.append(("GPUs", ", ".join(map(_text, gpus)) if _is_list(gpus) and gpus else "none"))
    rows += [(key, _text(environment[key])) for key in ("host", "platform") if environment.get(key)]
    variables = _mapping(environment.get("variables"))
    rows += [(str(name), _text(value)) for name, value in variables.items()]
    for name, state in _mapping(record.get("git")).items():
        state = _mapping(state)
        changed = " with changes that are not committed" if state.get("dirty") else ""
        rows.append((f"code of {name}", f"commit {_text(state.get('commit'))}{changed}"))
    return rows if environment else []


def packages(record: Mapping[str, Any]) -> str:
    """All installed packages as pip writes them."""
    versions = _mapping(_mapping(record.get("environment")).get("packages"))
    return "\n".join(f"{name}=={version}" for name, version in versions.items())


def starts(record: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Time, iteration, machine and command line of each start of a run."""
    return [
        (*(_text(start.get(key)) for key in ("time", "iteration", "host")), command_line(start))
        for start in record.get("starts", ())
        if isinstance(start, Mapping)
    ]


def differs_in(run: RunContent, field: PublishedField) -> str:
    """Where a field is not as published: "in the packaged config", or in what "this run" is not that."""
    keys = [deviation.key for deviation in run.deviations]
    # A field may be a list or mapping, whose items deviate one by one.
    places = {
        "in the packaged config": any(one.name == field.name for one in run.recipe_differences),
        "in this run": any(
            key == of or key.startswith(f"{of}.") for key in keys for of in field.keys
        ),
    }
    return " and ".join(place for place, differs in places.items() if differs)


def command_line(record: Mapping[str, Any]) -> str:
    """As it can be pasted into a shell."""
    words = record.get("command_line")
    return shlex.join(map(str, words)) if _is_list(words) else ""


def _mapping(value: Any) -> Mapping:
    return value if isinstance(value, Mapping) else {}


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _relative(difference: Any) -> str:
    return _number(_mapping(difference).get("relative"))


def _number(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.2g}" if is_number else ""


def _text(value: Any) -> str:
    if _is_list(value):
        return ", ".join(map(_text, value))
    return "not recorded" if value is None else str(value)


MOST_CELLS = 26  # rows of a confusion matrix that is a table, background among them
MOST_CONFUSIONS = 12  # that are named beneath it
NOT_MEASURED = "not measured"


def class_rows(runs: Sequence[RunContent], task: str) -> list[tuple[str, int, list[Any]]]:
    """Name, number of objects, and each run's row (None where it has none) of every class.

    Classes of one name are told apart by their order, as they are in all runs of a test set.
    """
    by_run = []
    for run in runs:
        times: Counter[str] = Counter()
        by_run.append({})
        for row in run.analyses[task].classes if task in run.analyses else ():
            by_run[-1][row.name, times[row.name]] = row
            times[row.name] += 1
    found = []
    for key in dict.fromkeys(key for rows in by_run for key in rows):
        rows = [of_run.get(key) for of_run in by_run]
        found.append((key[0], max(row.objects for row in rows if row), rows))
    return found


def other_metrics(runs: Sequence[RunContent]) -> list[tuple[str, list[str]]]:
    """Metrics of other tasks than the page is of, such as keypoints, and each run's in words."""
    names = dict.fromkeys(name for run in runs for name in run.other_metrics)
    return [(name, [measured(run.other_metrics, name) for run in runs]) for name in names]


def measured(metrics: Mapping[str, float | None], name: str) -> str:
    """A metric in words: one that is undefined is a dash, and one that is not there was not measured."""
    return percent(metrics[name]) if name in metrics else NOT_MEASURED


def is_of_coco(runs: Sequence[RunContent], task: str) -> bool:
    """Whether all that was measured in a task is COCO's, which alone tells AP by size."""
    known = [run.metrics for run in runs if f"{task}/AP" in run.metrics]
    return bool(known) and all(f"{task}/APs" in metrics for metrics in known)


def sizes_of(run: RunContent, task: str) -> Mapping[str, float | None]:
    """AP by size as it is computed of the detections, or else as the run's own evaluation has it."""
    if task in run.analyses:
        return run.analyses[task].by_size
    names = {size: f"{task}/{size}" for size in STATISTICS}
    return {size: run.metrics[name] for size, name in names.items() if name in run.metrics}


def image_counts(runs: Sequence[RunContent]) -> list[tuple[str, str]]:
    """How many images were evaluated, with the name of the run where runs differ in it."""
    counts = [run.facts.get("images") for run in runs]
    if len(set(map(str, counts))) == 1:
        return [] if counts[0] is None else [("", str(counts[0]))]
    shown = ["not known" if count is None else str(count) for count in counts]
    return [(run.name, count) for run, count in zip(runs, shown, strict=True)]


def thresholds(runs: Sequence[RunContent], task: str) -> Table:
    """AP of each run that was analysed, by IoU threshold."""
    analyses = [(run.name, run.analyses[task]) for run in runs if task in run.analyses]
    known = sorted({threshold for _, one in analyses for threshold in one.precision})
    rows = [
        [
            name,
            *(
                percent(plots.mean_precision(one, t)) if t in one.precision else NOT_MEASURED
                for t in known
            ),
        ]
        for name, one in analyses
    ]
    title = f"{TASKS[task].capitalize()} AP by IoU threshold"
    return Table(title, ["run", *(f"{threshold:.2f}" for threshold in known)], rows)


def confusions(runs: Sequence[RunContent], task: str) -> list[dict[str, Any]]:
    found = []
    for number, run in enumerate(runs):
        if task not in run.analyses:
            continue
        analysis = run.analyses[task]
        names = [*analysis.class_names, "background"]
        is_table = len(names) <= MOST_CELLS
        words = (
            f"confusion matrix of {run.name}, {TASKS[task]}: {len(names)} rows; the commonest confusions "
            "are named in the table after it"
        )
        found.append(
            {
                "run": run,
                "number": number,
                "names": names,
                "rows": analysis.confusion if is_table else (),
                "svg": ""
                if is_table
                else plots.confusion_picture(analysis, f"confusion{task}{number}", words),
                "commonest": commonest_confusions(analysis),
            }
        )
    return found


def commonest_confusions(analysis: TaskAnalysis) -> list[tuple[str, str, int]]:
    """What is there, what was found instead, and how often, of two different classes."""
    names = analysis.class_names
    pairs = [
        (names[row], names[column], count)
        for row, counts in enumerate(analysis.confusion[:-1])
        for column, count in enumerate(counts[:-1])
        if row != column and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:MOST_CONFUSIONS]


def counts(runs: Sequence[RunContent], task: str) -> Table:
    """What was counted in each run that was analysed."""
    analysed = [run for run in runs if task in run.analyses]
    counted = [run.analyses[task].counts for run in analysed]
    names = dict.fromkeys(name for of in counted for name in of)
    rows = [[name, *(of.get(name, NOT_MEASURED) for of in counted)] for name in names]
    return Table(TASKS[task].capitalize(), ["count", *(run.name for run in analysed)], rows)


def recipe_differences(run: RunContent) -> Table:
    """In what the packaged config of a run is not what was published."""
    rows = [[one.name, one.published, one.here, one.reason] for one in run.recipe_differences]
    title = f"Where the packaged config {run.published_recipe} is not what was published"
    return Table(title, ["setting", "published", "packaged config", "why"], rows)


def deviations(run: RunContent) -> Table:
    """In what a run is not its packaged config."""
    title = f"Fields in which the run differs from the packaged config {run.published_recipe}"
    rows = [(one.key, (one.recipe, one.run)) for one in run.deviations]
    return fields(title, ["field", "packaged config", "this run"], rows)


def fields(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]]) -> Table:
    """Fields of configs, each with its values, for a page."""
    from markupsafe import Markup

    code = Markup("<code>{}</code>")
    return Table(title, columns, [[code.format(key), *map(format_value, of)] for key, of in rows])


def format_value(value: Any) -> str:
    """A field of a config, the same whether it is a string or not."""
    return "not set" if value is None else str(value)
