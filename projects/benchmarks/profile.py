"""What a row's time goes into: the top of the profile of one run of one side."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # In place of this folder, in which Python's own cProfile would find this file for its `profile`.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from projects.benchmarks.row import UnknownRowError, all_rows, select


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python projects/benchmarks/profile.py mapper-exact --side stock",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("row", metavar="ROW", help="a row's name; `benchmark.py --list` has them")
    add("--side", choices=("ours", "stock"), default="ours", help="whose (default: ours)")
    add("--lines", type=int, default=20, metavar="N", help="of the profile (default: 20)")
    add("--torch", action="store_true", help="torch's operators instead of Python's functions")
    add("--small", action="store_true", help="tiny inputs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    try:
        rows = select([options.row], all_rows())
    except UnknownRowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            reason = row.needs() if row.needs else None
            if reason:
                print(f"{row.name} cannot run: {reason}")
                continue
            own = Path(folder) / row.name
            own.mkdir()
            side = getattr(row.prepare(own, options.small), options.side)
            print(f"== {row.name}, {options.side}: {row.what}")
            if not row.long:
                side()  # compiles kernels, fills caches
            (profile_operators if options.torch else profile_functions)(side, options.lines)
    return 0


def profile_functions(side: Callable[[], Any], lines: int) -> None:
    """By Python function, once by own time and once with all that it called; of this process alone."""
    import cProfile
    import pstats

    profile = cProfile.Profile()
    profile.runcall(side)
    for order in ("tottime", "cumulative"):
        pstats.Stats(profile, stream=sys.stdout).strip_dirs().sort_stats(order).print_stats(lines)


def profile_operators(side: Callable[[], Any], lines: int) -> None:
    """By torch operator, in all threads, and on the GPU if there is one."""
    from torch.profiler import profile

    with profile() as measured:
        side()
    print(measured.key_averages().table(sort_by="self_cpu_time_total", row_limit=lines))


if __name__ == "__main__":
    sys.exit(main())
