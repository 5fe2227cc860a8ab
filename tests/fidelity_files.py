"""The fidelity.yaml files of the checkout and their configs, each read once."""

from functools import cache

from commands import CHECKOUT

from ssl_backbones import fidelity
from ssl_backbones.engine.config import load_config

FILES = sorted(
    path.relative_to(CHECKOUT)
    for folder in ("configs", "projects")
    for path in (CHECKOUT / folder).rglob("fidelity.yaml")
    if path.parent.name != "common"
)


@cache
def read(file):
    return fidelity.read(CHECKOUT / file)


@cache
def config(file, name):
    return load_config(str(read(file).configs[name]))


ROWS = [(file, row) for file in FILES for row in read(file).rows]
