"""Where a run's weights come from and with what it was run, as rows of a table.

A record may be of another version, or edited: what is not as expected is left out, never an exception.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .content import PublishedField, RunContent

Rows = list[tuple[str, str]]

_WEIGHTS = {
    "source": "file",
    "source_sha256": "SHA-256 of the file",
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
