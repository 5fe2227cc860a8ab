"""A program whose ranks do what they are told, for the tests of launching: `ranks.py FOLDER WHAT`.

WHAT may name one rank: "kill@1" kills rank 1, while the others wait for it.
"""

import argparse
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.utils import comm

from ssl_backbones.engine.launching import agreement, launch
from ssl_backbones.engine.launching.failures import PREEMPTED
from ssl_backbones.engine.launching.world import world as world_of
from ssl_backbones.errors import InputError, run_command


def body(folder, what, world):
    """In every rank; leaves FOLDER/RANK.json at its end."""
    what, _, chosen = what.partition("@")
    state = {"size": comm.get_world_size(), "local": comm.get_local_rank()}
    if not chosen or comm.get_rank() == int(chosen):
        state |= DEEDS[what](folder, world.restarts) or {}
    comm.synchronize()
    Path(folder, f"{comm.get_rank()}.json").write_text(json.dumps(state))
    return state.get("status", 0)


def normalise(folder, restarts):
    # Not at the top: it takes seconds, and the other deeds do without.
    from detectron2.layers import NaiveSyncBatchNorm

    torch.manual_seed(0)
    images, rank = torch.randn(4, 3, 5, 5), comm.get_rank()
    norm = NaiveSyncBatchNorm(3)
    mine = norm(images[2 * rank : 2 * rank + 2])
    return {
        "out": mine.flatten().tolist(),
        "mean": norm.running_mean.tolist(),
        "backend": dist.get_backend(),
    }


def mistake(folder, restarts):
    raise InputError("found a hole")


def bug(folder, restarts):
    raise ValueError("a bug")


def kill(folder, restarts):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_once(folder, restarts):
    if restarts == 0:
        kill(folder, restarts)
    return {"restarts": restarts}


def leave(folder, restarts):
    os._exit(3)


def until_asked(folder, restarts):
    """As the trainer does: a signal that reaches one rank stops all of them after the iteration."""
    asked = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: asked.append(number))
    Path(folder, f"ready.{comm.get_rank()}").touch()
    while True:
        flag = torch.tensor(float(bool(asked)))
        if comm.get_world_size() > 1:
            dist.all_reduce(flag)
        if flag:
            return {"status": PREEMPTED}
        time.sleep(0.05)


def wait(folder, restarts):
    Path(folder, f"ready.{comm.get_rank()}").touch()
    time.sleep(300)


def agree(folder, restarts):
    def slow():
        # Longer than a collective operation may last, see below.
        time.sleep(2)
        return f"by rank {comm.get_rank()}"

    agreement.check_agreement({"config": "abc"})
    return {
        "main": agreement.on_main_process(slow),
        "machine": agreement.on_each_machine(lambda: f"by rank {comm.get_rank()}"),
    }


def disagree(folder, restarts):
    agreement.check_agreement({"config": "abc", "code version": f"0.{comm.get_rank()}"})


def refuse_on_main(folder, restarts):
    agreement.on_main_process(lambda: mistake(folder, restarts))


def refuse_on_a_machine(folder, restarts):
    def work():
        if comm.get_rank() == 1:
            mistake(folder, restarts)

    agreement.on_each_machine(work)


DEEDS = {name: deed for name, deed in globals().items() if callable(deed)}

if "agree" in sys.argv:
    launch.COLLECTIVE_TIMEOUT = timedelta(seconds=1)


def flags():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("what")
    parser.add_argument("--num-gpus", type=int)
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0)
    parser.add_argument("--dist-url", default="auto")
    parser.add_argument("--timeout", type=float, default=60)
    return parser


def run(args):
    world = world_of(args, "cpu")
    what = "normalise@9" if getattr(args, "resume", False) else args.what
    return launch.launch(
        body,
        world,
        args.folder,
        what,
        world,
        rendezvous_timeout=timedelta(seconds=args.timeout),
    )


if __name__ == "__main__":
    sys.exit(run_command(lambda: run(flags().parse_args())))
