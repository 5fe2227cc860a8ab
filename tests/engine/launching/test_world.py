"""Who takes part, by flags and by torchrun's environment."""

from argparse import Namespace

import pytest

from ssl_backbones import InputError
from ssl_backbones.engine.launching.world import World, one_voice, world

# What torchrun tells the second worker of the second of two machines, with two workers on each.
WORKER = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "2",
}


def flags(**given):
    defaults = dict(
        num_gpus=None, num_processes=None, num_machines=1, machine_rank=0, dist_url="auto"
    )
    return Namespace(**(defaults | given))


@pytest.fixture
def torchrun(monkeypatch):
    for name, value in WORKER.items():
        monkeypatch.setenv(name, value)


def test_one_process_is_the_default():
    assert world(flags(), "cpu") == World()
    assert world(flags(), "cuda:0") == World("cuda")


def test_flags_count_processes_by_device():
    url = "tcp://a:1"
    given = flags(num_gpus=8, num_machines=2, machine_rank=1, dist_url=url)
    assert world(given, "cuda") == World("cuda", 8, 2, 1, url)
    assert world(given, "cuda").size == 16
    assert world(flags(num_processes=2), "cpu") == World("cpu", 2)
    assert [world(given, "cuda").speaks, world(flags(), "cpu").speaks] == [False, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(num_gpus=1), "--num-gpus with train.device=cpu: use --num-processes"),
        (dict(num_processes=0), "--num-processes and --num-machines count from 1"),
        (dict(num_machines=0), "count from 1"),
        (dict(num_machines=2), "--num-machines needs --dist-url"),
        (dict(num_machines=2, machine_rank=2, dist_url="tcp://a:1"), "--machine-rank 2 of --num-machines 2"),
        (dict(machine_rank=-1), "--machine-rank -1 of --num-machines 1"),
    ],
)  # fmt: skip
def test_flags_that_cannot_be_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        world(flags(**given), "cpu")


def test_torchrun_is_recognised(torchrun):
    expected = World("cpu", 2, 2, 1, launcher="torchrun", local_rank=1, restarts=2)
    assert world(flags(), "cpu") == expected
    # Repeating what torchrun has decided is no contradiction.
    assert world(flags(num_processes=2, num_machines=2, machine_rank=1), "cpu") == expected
    assert not expected.speaks


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        (dict(num_processes=4), "--num-processes 4"),
        (dict(num_machines=3), "--num-machines 3"),
        (dict(machine_rank=3), "--machine-rank 3"),
        (dict(dist_url="tcp://a:1"), "--dist-url tcp://a:1"),
    ],
)
def test_flags_that_contradict_torchrun_are_refused(torchrun, given, flag):
    with pytest.raises(InputError, match=f"{flag} contradicts torchrun, which started 2 processes"):
        world(flags(**given), "cpu")


def test_unequal_machines_are_refused(torchrun, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(InputError, match="every machine must start as many"):
        world(flags(), "cpu")


@pytest.mark.parametrize(("local_rank", "raised"), [("0", InputError), ("1", SystemExit)])
def test_the_workers_of_a_machine_have_one_voice(torchrun, monkeypatch, local_rank, raised):
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    with pytest.raises(raised), one_voice():
        raise InputError("all of them find this")
