#!/usr/bin/env python3
"""Install Detectron2 without a compiler, or build a wheel of it that installs anywhere.

A Detectron2 that works already, whatever its origin, is left alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """\
examples:
  python tools/install_detectron2.py
      v0.6 as a pure-Python wheel, installed and tried; nothing to do where one works already
  python tools/install_detectron2.py --wheel-dir wheels
      only build the wheel, to carry it to a machine without network:
      pip install wheels/detectron2-0.6+pure-py3-none-any.whl
  python tools/install_detectron2.py --from https://github.com/facebookresearch/detectron2@main
      upstream's current source in place of what is installed

exit status: 0 done, 1 something failed while running, 2 something given or required is wrong
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--wheel-dir", metavar="DIR", type=Path, help="build the wheel into DIR and install nothing"
    )
    parser.add_argument(
        "--from",
        dest="location",
        metavar="PATH_OR_GIT_URL",
        help="a checkout of Detectron2, or a git repository with an optional @REF, instead of v0.6",
    )
    options = parser.parse_args(argv)

    from ssl_backbones.errors import run_command

    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from ssl_backbones import installation

    try:
        if options.wheel_dir is None:
            installation.install(options.location)
            print("next: python tools/convert_checkpoint.py --help")
        else:
            wheel = installation.build_wheel(options.wheel_dir, options.location)
            print(f"next: pip install {wheel}")
    except installation.InstallationError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # This runs before anything is installed: the package is the one in this checkout.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
