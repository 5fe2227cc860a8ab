"""Real processes: gloo on the CPU, started by this project and by torchrun, and real faults."""

import json
import os
import re
import signal
import socket
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from running import children, free_port, torchrun, wait_for
from torch.distributed import TCPStore

from ssl_backbones import InputError
from ssl_backbones.engine.launching.failures import PREEMPTED
from ssl_backbones.engine.launching.launch import launch
from ssl_backbones.engine.launching.rendezvous import meet
from ssl_backbones.engine.launching.watch import Beats
from ssl_backbones.engine.launching.world import World

HOST = socket.gethostname()
KILLED = "killed by SIGKILL; the system does so when memory is short: see dmesg"

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads Linux's /proc")


def started_ranks(pid):
    lines = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children(pid)}
    return [child for child, line in lines.items() if b"spawn_main" in line]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def check_normalised(ranks):
    """nn.BatchNorm2d over the four images together is the independent answer."""
    both = ranks.states
    assert [(s["size"], s["local"], s["backend"]) for s in both] == [(2, 0, "gloo"), (2, 1, "gloo")]
    torch.manual_seed(0)
    whole = torch.nn.BatchNorm2d(3)
    expected = whole(torch.randn(4, 3, 5, 5))
    got = torch.tensor(both[0]["out"] + both[1]["out"])
    assert torch.allclose(got, expected.flatten(), atol=1e-5)
    assert torch.allclose(torch.tensor(both[0]["mean"]), whole.running_mean, atol=1e-6)


def test_two_gloo_processes_normalise_over_both_batches(ranks):
    assert ranks.run("normalise") == (0, [])
    check_normalised(ranks)


@pytest.mark.parametrize(
    ("what", "status", "message"),
    [
        ("mistake@1", 2, f"error: found a hole (rank 1 on {HOST})"),
        ("kill@0", 1, f"error: rank 0 of 2 on {HOST}: {KILLED}"),
        ("leave@1", 1, f"error: rank 1 of 2 on {HOST}: ended with status 3"),
        ("refuse_on_main", 2, f"error: found a hole (rank 0 on {HOST})"),
    ],
)  # fmt: skip
def test_one_rank_ends_all_with_one_line(ranks, what, status, message):
    assert ranks.run(what) == (status, [message])


def test_a_bug_keeps_its_traceback_and_shows_it_once(ranks):
    status, errors = ranks.run("bug@1")
    assert status == 1
    assert errors[-1] == f"error: rank 1 of 2 on {HOST}: ValueError: a bug"
    assert errors[0] == "Traceback (most recent call last):"
    assert sum("ValueError: a bug" in line for line in errors) == 2
    assert any("in bug" in line for line in errors)


def test_one_rank_ends_all_on_two_machines(ranks):
    """Rank 0 is not the one that keeps the store: its launcher does."""
    machines = ranks.two_machines("kill@0")
    message = f"error: rank 0 of 2 on {HOST}: {KILLED}"
    assert [ranks.finish(machine) for machine in machines] == [(1, [message]), (1, [message])]


def test_the_loss_of_a_launcher_ends_the_other_machine(ranks):
    """Machine 0 keeps the store, so that its launcher is the one whose loss is hardest."""
    machines = ranks.two_machines("wait")
    ranks.wait_until_ready()
    machines[0].kill()
    status, errors = ranks.finish(machines[1])
    assert status == 1
    assert errors[-1] == f"error: rank 0 of 2 on {HOST}: the launcher of machine 0 is gone"


def test_a_signal_to_stop_reaches_the_ranks_and_their_status_comes_back(ranks):
    process = ranks.start("until_asked", "--num-processes", "2")
    ranks.wait_until_ready()
    process.send_signal(signal.SIGTERM)
    assert ranks.finish(process) == (PREEMPTED, [])
    assert [state["status"] for state in ranks.states] == [PREEMPTED, PREEMPTED]


def test_a_signal_to_stop_on_one_machine_stops_both(ranks):
    machines = ranks.two_machines("until_asked")
    ranks.wait_until_ready()
    machines[1].send_signal(signal.SIGUSR1)
    assert [ranks.finish(machine) for machine in machines] == [(PREEMPTED, []), (PREEMPTED, [])]


@needs_proc
def test_a_signal_to_stop_before_there_is_anything_to_save(ranks):
    """The ranks are still being imported, and have no handler yet."""
    process = ranks.start("until_asked", "--num-processes", "2")
    wait_for(lambda: len(started_ranks(process.pid)) == 2)
    process.send_signal(signal.SIGTERM)
    status, errors = ranks.finish(process)
    assert status == PREEMPTED
    assert re.fullmatch(
        rf"error: rank [01] of 2 on {HOST}: ended by SIGTERM before it had begun to train", *errors
    )


def test_ctrl_c_ends_all(ranks):
    process = ranks.start("wait", "--num-processes", "2")
    ranks.wait_until_ready()
    os.killpg(process.pid, signal.SIGINT)
    assert ranks.finish(process) == (130, ["interrupted"])


@needs_proc
def test_ranks_end_with_their_launcher(ranks):
    """It is killed without a chance to clean up, while they wait for each other."""
    process = ranks.start("wait@0", "--num-processes", "2")
    ranks.wait_until_ready(1)
    waiting = started_ranks(process.pid)
    assert len(waiting) == 2
    process.kill()
    wait_for(lambda: not any(is_running(pid) for pid in waiting))


@needs_proc
def test_a_rank_that_never_comes_is_named(ranks):
    process = ranks.start("normalise", "--num-processes", "2", "--timeout", "3")

    def last_rank():
        both = started_ranks(process.pid)
        return both[1] if len(both) == 2 else None

    os.kill(wait_for(last_rank), signal.SIGSTOP)
    status, errors = ranks.finish(process)
    assert status == 2
    assert errors == [f"error: rank 1 of 2 did not come within 3 s (rank 0 on {HOST})"]


def come(world, seconds, results, stores):
    try:
        stores.append(meet(world, timedelta(seconds=seconds)))
        results[world.machine_rank] = "met"
    except InputError as error:
        results[world.machine_rank] = str(error)


@pytest.mark.parametrize(
    ("processes", "numbers", "messages"),
    [
        ((1, 1), (0, 1), {0: "met", 1: "met"}),
        ((1, 2), (0, 1), {0: "with processes=2 and machine 0", 1: "with processes=2; start all alike|left"}),
        ((1, 1), (0,), {0: "machine 1 of 2 did not come to tcp://.* within 2 s"}),
        ((1, 1), (1,), {1: r"machine 1 found nobody at tcp://.* within 2 s \(Connection refused\)"}),
    ],
)  # fmt: skip
def test_machines_meet_or_say_who_is_missing(ranks, processes, numbers, messages):
    url, results, stores = f"tcp://127.0.0.1:{free_port()}", {}, []
    worlds = [World("cpu", processes[n], 2, n, url) for n in numbers]
    threads = [threading.Thread(target=come, args=(world, 2, results, stores)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(results) == set(messages)
    for number, message in messages.items():
        assert re.search(message, results[number])


def test_a_launcher_without_a_sign_is_lost_and_one_that_left_is_not():
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for number in (0, 1):
        store.set(f"machine/{number}", json.dumps({"host": f"host{number}"}))
    mine, other = (Beats(store, World("cpu", 4, 2, number, "tcp://host0:1")) for number in (0, 1))
    time.sleep(0.1)
    (lost,) = mine.lost_machines(0.05)
    assert (lost.rank, lost.host, lost.status) == (4, "host1", 1)
    assert mine.lost_machines(60) == []
    other.beat()
    mine.beat()
    assert mine.lost_machines(0.05) == []
    # A launcher gives and looks for signs once a second.
    time.sleep(1.1)
    assert len(mine.lost_machines(0.05)) == 1
    other.leave()
    mine.leave()
    assert mine.lost_machines(0.05) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("HOST:1234", "not of the form tcp://HOST:PORT"),
        ("tcp://HOST:port", "write tcp://HOST:PORT"),
        ("file:///tmp/meeting", "not of the form tcp://HOST:PORT"),
    ],
)
def test_an_address_that_is_none_is_refused(url, message):
    with pytest.raises(InputError, match=message):
        launch(print, World("cpu", 1, 2, 0, url))


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        url = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        with pytest.raises(
            InputError, match=r"cannot listen on port \d+ \(address already in use\)"
        ):
            launch(print, World("cpu", 1, 2, 0, url))


def test_one_process_runs_here():
    assert launch(lambda word: len(word), World(), "seven..") == 7
    with pytest.raises(ZeroDivisionError):
        launch(lambda: 1 // 0, World())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_machine_without_gpus_is_refused():
    with pytest.raises(InputError, match="no usable GPU"):
        launch(print, World("cuda", 2))


def test_torchrun_starts_again_after_a_killed_rank(ranks):
    status, errors = ranks.run(
        "kill_once@1", "--num-machines", "1", by=torchrun("--max-restarts=1")
    )
    assert status == 0, errors
    assert ranks.states[1]["restarts"] == 1


def test_under_torchrun_a_mistake_is_said_once(ranks):
    status, errors = ranks.run("refuse_on_main", "--num-machines", "1", by=torchrun())
    assert status == 1
    assert [line for line in errors if line.startswith("error: ")] == [
        f"error: found a hole (rank 0 on {HOST})"
    ]
    root = "\n".join(errors).partition("Root Cause")[2]
    assert "rank      : 0" in root and "exitcode  : 2" in root
