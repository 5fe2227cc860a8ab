"""A LazyConfig from a file and `key=value` overrides, each checked before anything is built."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import LazyConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import ssl_backbones

from ..errors import InputError
from ..lazy import target_of

DEFAULT_CONFIG = "moco_1x"
"""The recipe of --data where none is named."""


def load_config(file: str, overrides: Sequence[str] = (), *, eval_only: bool = False) -> DictConfig:
    """Load `file` (a path, or the name of a shipped config) and apply `overrides` ("key=value").

    Args:
        eval_only: nothing is trained: of own data, what is tested on is looked at.

    Raises:
        InputError: the file is missing or does not load, a key is unknown or a value does not fit.
    """
    path = find_config(file)
    try:
        cfg = LazyConfig.load(path)
    except (
        SyntaxError,
        ImportError,
        NameError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        yaml.YAMLError,
    ) as error:
        raise InputError(f"config {file} does not load: {type(error).__name__}: {error}") from error
    if not isinstance(cfg, DictConfig) or not cfg:
        raise InputError(
            f"config {file} holds nothing: give a LazyConfig, or the config.yaml of a run"
        )
    _fill_train_options(cfg, file)
    apply_overrides(cfg, overrides)
    _find_data(cfg, Path(path), given_keys(overrides), eval_only)
    return cfg


def _find_data(cfg: DictConfig, path: Path, given: set[str], eval_only: bool) -> None:
    """Register the data that `cfg` names by paths, and that of the run whose config.yaml it is."""
    from ..data.own_data import (
        name_own_data,
        read_record,
        register_recorded,
        trained_categories,
    )
    from ..data.preparing import prepare

    is_of_run = path.name == "config.yaml" and bool(read_record(path.parent))
    if is_of_run:
        register_recorded(path.parent)
    # Otherwise all that follows from the data of a run stands in its config already.
    known = is_of_run and not given & {"train.data", "train.classes", "train.val_share"}
    run = path.parent if is_of_run else None
    if not name_own_data(cfg, given, eval_only=eval_only, known=known, run=run):
        return
    if eval_only:
        prepare(cfg, ("test",), given=given, trained=trained_categories(cfg))
    else:
        prepare(cfg, given=given)


def given_keys(overrides: Sequence[str]) -> set[str]:
    """The keys of "key=value" strings."""
    return {text.partition("=")[0] for text in overrides}


def data_overrides(
    data: str | None,
    classes: str | None = None,
    init: str | None = None,
    val_share: float | None = None,
) -> list[str]:
    """What --data, --classes (a,b), --init and --val-share say, as overrides: for the front of the others."""
    words = []
    if data:
        words.append(f"train.data={_quoted(os.path.abspath(os.path.expanduser(data)))}")
    if classes:
        words.append(
            f"train.classes=[{','.join(_quoted(one.strip()) for one in classes.split(','))}]"
        )
    if init:
        words.append(f"train.init_checkpoint={_quoted(init)}")
    if val_share is not None:
        words.append(f"train.val_share={val_share!r}")
    return words


def path_override(key: str, path: str) -> str:
    """The override that sets a key to a path: as a user would write it where that is read as the path."""
    plain = f"{key}={path}"
    try:
        value = OverridesParser.create().parse_overrides([plain])[0].value()
    except HydraException:
        value = None
    return plain if value == path else f"{key}={_quoted(path)}"


def _quoted(text: str) -> str:
    """A text in the grammar of overrides, whatever is in it.

    Raises:
        InputError: it would be read as a reference to another value.
    """
    if "${" in text:
        raise InputError(f"{text}: '${{' begins a reference to another value in configs; rename it")
    # Backslashes stand for themselves but before a quote or at the end.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text)
    return f"'{escaped}'"


def _fill_train_options(cfg: DictConfig, file: str) -> None:
    """Give `cfg.train` every option of the trainer: configs made for Detectron2's own script lack some."""
    if not isinstance(cfg, DictConfig) or "train" not in cfg:
        raise InputError(f"config {file} has no `train`: give a LazyConfig of a training run")
    defaults = LazyConfig.load(str(ssl_backbones.configs_folder() / "common" / "train.py")).train
    # A foreign config counts its warm-up as a share of the run, which must keep its meaning.
    defaults.warmup_iters = None
    cfg.train = OmegaConf.merge(defaults, cfg.train)


def find_config(file: str) -> str:
    """Path of the config that a user named: a file, or one that is shipped.

    Raises:
        InputError: there is no such file and no shipped config of that name.
    """
    if not file:
        raise InputError("no config given: add --config-file configs/moco_1x.py")
    return file if Path(file).is_file() else str(ssl_backbones.config_file(file))


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Change `cfg` in place by "key=value" strings in Hydra's grammar, as Detectron2 does, but strictly.

    A key must exist, or its parent must be a lazy call whose target takes an argument of that name. A number
    is only replaced by a number, a flag only by a flag.

    Raises:
        InputError: naming the key, and the nearest ones that exist.
    """
    for text in overrides:
        try:
            override = OverridesParser.create().parse_overrides([text])[0]
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"override {text!r} is not of the form key=value: {reason}") from error
        if override.is_delete() or override.is_add():
            raise InputError(f"override {text!r}: '+' and '~' are not supported, write key=value")
        key, value = override.key_or_group, override.value()
        if not _has(cfg, key) and not _target_takes(cfg, key):
            raise InputError(f"unknown config key {key!r} in {text!r}: {_suggestion(cfg, key)}")
        OmegaConf.update(cfg, key, _checked(cfg, key, value), merge=True)


def _has(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = _select(cfg, parent)
    if isinstance(node, ListConfig):
        return name.isdigit() and int(name) < len(node)
    return isinstance(node, DictConfig) and name in node


def _select(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key) if key else cfg
    except OmegaConfBaseException:
        return None


def _target_takes(cfg: DictConfig, key: str) -> bool:
    """Whether the parent of `key` is a lazy call to something with a parameter of that name."""
    parent, _, name = key.rpartition(".")
    node = _select(cfg, parent)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return False
    try:
        parameters = inspect.signature(target_of(node)).parameters
    except (ValueError, TypeError, ImportError):
        return False
    named = parameters.get(name)
    if named is not None:
        return named.kind not in (named.VAR_POSITIONAL, named.VAR_KEYWORD, named.POSITIONAL_ONLY)
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _suggestion(cfg: DictConfig, key: str) -> str:
    """The mend of an unknown key: those most like it, first by the whole, then by the last part."""
    keys = list(_keys(cfg))
    near = difflib.get_close_matches(key, keys, n=3, cutoff=0.6)
    if not near:
        by_name = {k.rpartition(".")[2]: k for k in reversed(keys)}
        last = difflib.get_close_matches(key.rpartition(".")[2], list(by_name), n=3, cutoff=0.5)
        near = [by_name[name] for name in last]
    return (
        f"did you mean {', '.join(near)}?"
        if near
        else f"the top keys are {', '.join(map(str, cfg))}"
    )


def _keys(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[str]:
    names = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for name in names:
        if name == "_target_":
            continue
        yield f"{prefix}{name}"
        child = node._get_node(name)
        if isinstance(child, DictConfig | ListConfig) and not (
            child._is_none() or child._is_interpolation()
        ):
            yield from _keys(child, f"{prefix}{name}.")


def _checked(cfg: DictConfig, key: str, value: Any) -> Any:
    """`value` if it can stand where the old one stood; a whole float becomes the int it means.

    Raises:
        InputError: it cannot.
    """
    old = _select(cfg, key)
    is_interpolation = isinstance(value, str) and "${" in value
    if old is None or value is None or is_interpolation:
        return value
    if isinstance(old, bool):
        fits = isinstance(value, bool)
    elif isinstance(old, int | float):
        if isinstance(old, int) and isinstance(value, float) and value.is_integer():
            value = int(value)
        # A scalar may become a sequence: short_edge_length=800 and [640,800] are both meant.
        wanted = (int, list) if isinstance(old, int) else (int, float, list)
        fits = isinstance(value, wanted) and not isinstance(value, bool)
    elif isinstance(old, str):
        fits = isinstance(value, str | list)
    elif isinstance(old, ListConfig):
        fits = isinstance(value, list | int | float | str)
    else:
        fits = True
    if not fits:
        raise InputError(
            f"bad value for {key}: {value!r} is a {type(value).__name__}, and {old!r} in the config is "
            f"a {type(old).__name__}"
        )
    return value
