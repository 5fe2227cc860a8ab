#!/usr/bin/env python
"""Train or evaluate a detector from a LazyConfig, on a laptop's CPU or on many machines."""

from __future__ import annotations

import argparse
import sys

from ssl_backbones.errors import run_command

EXAMPLES = """
examples:
  train on data of your own, a folder with COCO files, from your own pretraining:
    tools/train_net.py --data ~/shapes --init my_moco.pth.tar train.max_iter=3000
  the same for as long as it takes to see each image 50 times:
    tools/train_net.py --data ~/shapes --init my_moco.pth.tar --epochs 50
  train on 8 GPUs:
    tools/train_net.py --config-file configs/swav_ms2x.py --num-gpus 8
  the same from your own pretraining:
    tools/train_net.py --config-file configs/moco_1x.py --num-gpus 8 train.init_checkpoint=my_moco.pth.tar
  build everything, run three iterations, estimate time and memory, leave nothing behind:
    tools/train_net.py --config-file configs/swav_ms2x.py --num-gpus 8 --dry-run
  go on after an interruption, bit for bit:
    tools/train_net.py --config-file configs/swav_ms2x.py --num-gpus 8 --resume
  evaluate:
    tools/train_net.py --config-file configs/swav_ms2x.py --num-gpus 8 --eval-only \\
        train.init_checkpoint=output/swav_ms2x/model_final.pth
  two machines:
    tools/train_net.py ... --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST0:29500
    tools/train_net.py ... --num-gpus 8 --num-machines 2 --machine-rank 1 --dist-url tcp://HOST0:29500
  two machines by torchrun, started again by itself when a worker dies:
    torchrun --nnodes 2 --nproc-per-node 8 --max-restarts 3 --rdzv-backend c10d --rdzv-endpoint HOST0:29500 \\
        tools/train_net.py --config-file configs/swav_ms2x.py
  two machines by Slurm, queued again when preempted:
    tools/train_net.py --config-file configs/swav_ms2x.py --num-gpus 8 \\
        --slurm partition=gpu,nodes=2,time=24:00:00
  two processes on the CPU:
    tools/train_net.py ... --num-processes 2 train.device=cpu
"""


def parser() -> argparse.ArgumentParser:
    """The flags of Detectron2's own training scripts, with their meanings, and --num-processes."""
    result = argparse.ArgumentParser(
        prog="train_net.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add(
        "--config-file",
        default="",
        metavar="FILE",
        help="a LazyConfig, or the name of a shipped one (with --data: moco_1x unless another is named)",
    )
    add(
        "--data",
        metavar="PATH",
        help="data of your own: a folder of COCO, YOLO, VOC or labelme, a COCO file, or a data.yaml; in "
        "place of the config's datasets",
    )
    add("--classes", metavar="A,B", help="which classes of --data to keep, in this order")
    add(
        "--val-share",
        type=float,
        metavar="S",
        help="of --data without a split, the share of the images to test on (default 0.2)",
    )
    add(
        "--init",
        metavar="FILE",
        help="what the backbone starts from: a self-supervised checkpoint, a converted one or ssl://NAME",
    )
    add(
        "--epochs",
        type=float,
        metavar="E",
        help="train so many epochs of the data, in place of train.max_iter; the schedule moves with it",
    )
    add(
        "--resume", action="store_true", help="go on from the newest checkpoint in train.output_dir"
    )
    add("--eval-only", action="store_true", help="evaluate train.init_checkpoint and stop")
    add("--num-gpus", type=int, metavar="N", help="GPUs per machine (default 1)")
    add(
        "--num-processes",
        type=int,
        metavar="N",
        help="processes per machine with train.device=cpu (default 1)",
    )
    add("--num-machines", type=int, default=1, metavar="N", help="machines in all (default 1)")
    add("--machine-rank", type=int, default=0, metavar="R", help="number of this machine, from 0")
    add(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="where the processes meet (default: a free local port)",
    )
    add(
        "--slurm",
        metavar="KEY=VALUE,...",
        help="submit the run to Slurm: partition, nodes, time, folder, ...",
    )
    add(
        "--dry-run",
        action="store_true",
        help="build everything, run three iterations and leave nothing behind",
    )
    add("opts", nargs="*", metavar="key=value", help="config overrides, such as optimizer.lr=0.01")
    return result


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_intermixed_args(argv)
    if args.dry_run and (args.eval_only or args.slurm):
        other = "--eval-only" if args.eval_only else "--slurm"
        parser().error(f"--dry-run is of training on this machine: leave {other} out")

    def body() -> int:
        from ssl_backbones.engine.run import run

        return run(args)

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
