#!/usr/bin/env python
"""Judge a pretraining by several detection protocols: one checkpoint, one table."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_backbones.errors import InputError, one_line, run_command
from ssl_backbones.fidelity.protocols import PROCESSES, protocols

if TYPE_CHECKING:
    from ssl_backbones.studies.evaluation import Evaluation

EXAMPLES = """
examples:
  what would run, and how long it takes:
    tools/evaluate_backbone.py my_pretraining.pth --protocols voc_c4,coco_fpn_1x --num-gpus 8 --plan
  run it; the same command goes on where it stopped:
    tools/evaluate_backbone.py my_pretraining.pth --protocols voc_c4,coco_fpn_1x,low_shot_1 --num-gpus 8
  on data of your own, in place of COCO and VOC:
    tools/evaluate_backbone.py my_pretraining.pth --data photos --protocols recipe,low_shot_10 --repeats 3
  a config of your own beside them:
    tools/evaluate_backbone.py my_pretraining.pth --protocols voc_c4,my_config.py --num-gpus 8

protocols:
{protocols}
with --data: recipe (the default's), frozen (the backbone stays as it is), low_shot_1 to low_shot_99 (percent)

Published numbers are of {processes} GPUs; --num-gpus 4 train.accumulate=2 makes the same micro-batches.
Exit status: 0 all runs are done, 1 one of them failed, 2 bad usage, 130 interrupted.
"""


def parser() -> argparse.ArgumentParser:
    known = protocols().values()
    listed = "\n".join(f"  {p.name:<13} {p.title}" for p in known)
    folds = _folds()
    result = argparse.ArgumentParser(
        prog="evaluate_backbone.py",
        description=__doc__,
        epilog=EXAMPLES.format(protocols=listed, processes=PROCESSES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a file of a pretraining, which is converted with proof, a converted one, or ssl://NAME",
    )
    add("--protocols", required=True, metavar="NAME,...", help="names, or paths of LazyConfigs")
    add("--data", metavar="PATH", help="data of your own, as tools/train_net.py --data takes it")
    add("--num-gpus", type=int, metavar="N", help="of each run (default 1)")
    add("--num-processes", type=int, metavar="N", help="of each run with --device cpu (default 1)")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="(default cuda)")
    add(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="runs and tables (default: output/evaluations/ and the checkpoint's name)",
    )
    add("--plan", action="store_true", help="say what would run and how long it takes, and end")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the first run; fold K has N + K (default 0)",
    )
    add(
        "--folds",
        type=int,
        default=folds,
        metavar="N",
        help=f"of the low-shot protocols (default {folds}, all)",
    )
    add(
        "--repeats",
        type=int,
        default=1,
        metavar="N",
        help="runs of each other protocol, seeds one after another; mean and deviation (default 1)",
    )
    add("opts", nargs="*", metavar="key=value", help="overrides of every run's config")
    return result


def _folds() -> int:
    return max(len(protocol.folds) for protocol in protocols().values())


def run(args: argparse.Namespace) -> int:
    from ssl_backbones.studies.evaluation import check_overrides, check_start
    from ssl_backbones.studies.evaluation_tables import plan
    from ssl_backbones.studies.runner import StepFailed

    _check(args)
    if args.data is not None:
        return _on_own_data(args)
    name, evaluation = _evaluation(args)
    check_overrides(evaluation, args.opts)
    on_cpu = args.device == "cpu"
    if args.plan:
        print("\n".join(plan(evaluation, None if on_cpu else args.num_gpus or 1)))
        print("next: the same command without --plan")
        return 0
    check_start(evaluation, args.device, (args.num_processes if on_cpu else args.num_gpus) or 1)
    try:
        evaluation.go_on()
    except StepFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return _tell(evaluation, name)


def _evaluation(args: argparse.Namespace) -> tuple[str, Evaluation]:
    """The checkpoint's name in tables, and what is asked for."""
    from ssl_backbones.studies.evaluation import Evaluation
    from ssl_backbones.studies.protocol_runs import find

    is_file = "://" not in args.checkpoint
    name = Path(args.checkpoint).name if is_file else args.checkpoint.partition("://")[2]
    output = args.output or Path("output") / "evaluations" / name.partition(".")[0]
    # The runs get whole paths, and so do tables and logs.
    checkpoint = str(Path(args.checkpoint).resolve()) if is_file else args.checkpoint
    flags = {"--num-gpus": args.num_gpus, "--num-processes": args.num_processes}
    device = ["train.device=cpu"] if args.device == "cpu" else []
    return name, Evaluation(
        checkpoint,
        find(args.protocols.split(",")),
        output.resolve(),
        seed=args.seed,
        folds=args.folds,
        repeats=args.repeats,
        flags=[word for flag, n in flags.items() if n is not None for word in (flag, str(n))],
        overrides=[*device, *args.opts],
    )


def _on_own_data(args: argparse.Namespace) -> int:
    """Each protocol as a study of this one arm; returns the exit status."""
    from ssl_backbones.studies.backbones import from_words
    from ssl_backbones.studies.comparison import table_of_protocols
    from ssl_backbones.studies.runner import write_text

    for option, value in (("--num-gpus", args.num_gpus), ("--num-processes", args.num_processes)):
        if value is not None:
            raise InputError(f"{option} with --data: every run takes one GPU, or else one core")
    for option, value, usual in (("--seed", args.seed, 0), ("--folds", args.folds, _folds())):
        if value != usual:
            raise InputError(f"{option} {value} with --data: --repeats says how many seeds, from 0")
    device = ["train.device=cpu"] if args.device == "cpu" else []
    name = Path(args.checkpoint.rpartition("/")[2]).name.partition(".")[0]
    where = Path(os.path.abspath(args.data)).stem
    output = args.output or Path("output") / "evaluations" / f"{name}_on_{where}"
    studies = {}
    for word in filter(None, args.protocols.split(",")):
        is_config = word.endswith(".py")
        protocol = Path(word).stem if is_config else word
        if protocol in studies:
            raise InputError(f"two protocols would be called {protocol}: rename one of the configs")
        studies[protocol] = from_words(
            [args.checkpoint, *device, *args.opts],
            args.data,
            output / protocol,
            seeds=args.repeats,
            protocol="recipe" if is_config else word,
            config=word if is_config else "",
            fewest=1,
        )
        if len(studies[protocol].arms) > 1:
            raise InputError("give one CHECKPOINT; tools/compare_backbones.py compares several")
    if args.plan:
        for protocol, study in studies.items():
            print("\n".join([f"== {protocol}", *study.plan()]), end="\n\n")
        print("next: the same command without --plan")
        return 0
    status = 0
    for study in studies.values():
        try:
            status = max(status, study.do())
        except InputError as error:
            # The other protocols have nothing to do with it.
            print(f"error: {one_line(str(error))}", file=sys.stderr)
            status = 2
    found = {protocol: study.found for protocol, study in studies.items() if study.found}
    if not found:
        return status
    table = table_of_protocols(found)
    write_text(output / "table.md", table.format_markdown() + "\n")
    write_text(output / "table.csv", table.format_csv())
    print(
        f"\n{table.format_text()}\ntable: {output / 'table.md'}\nfor programs: {output / 'table.csv'}"
    )
    return status


def _check(args: argparse.Namespace) -> None:
    if not args.checkpoint.strip():
        raise InputError("CHECKPOINT is empty: give the file of a pretraining, or ssl://NAME")
    leasts = {"seed": 0, "folds": 1, "repeats": 1, "num_gpus": 1, "num_processes": 1}
    for name, least in leasts.items():
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} {value}: give at least {least}")
    if args.device == "cpu" and args.num_gpus is not None:
        raise InputError("--num-gpus with --device cpu: use --num-processes")
    if args.device != "cpu" and args.num_processes is not None:
        raise InputError("--num-processes is of --device cpu: add that, or use --num-gpus")


def _tell(evaluation: Evaluation, name: str) -> int:
    """Write the tables, and say what came of it; returns the exit status."""
    from ssl_backbones.studies.evaluation_tables import format_csv, format_markdown
    from ssl_backbones.studies.runner import write_text

    folder, table = evaluation.folder, format_markdown(evaluation, name)
    write_text(folder / "table.md", table)
    write_text(folder / "table.csv", format_csv(evaluation, name))
    print(f"\n{table}\ntable: {folder / 'table.md'}\nfor programs: {folder / 'table.csv'}")
    if evaluation.tell_failures():
        return 1
    first = evaluation.runs(evaluation.protocols[0])[0]
    print(f"next: python tools/report.py {folder / first.name}")
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_command(lambda: run(parser().parse_intermixed_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
