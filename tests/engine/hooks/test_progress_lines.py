"""Lines in the log and the bar on a terminal, of a loop whose numbers are known."""

import io
import logging
import sys
from contextlib import redirect_stdout

import pytest
from detectron2.engine import TrainerBase
from rich.console import Console

from ssl_backbones.engine.hooks.progress_lines import Progress


class Loop(TrainerBase):
    """Detectron2's own loop; iteration i has the loss i, takes 2 s and waits 0.5 s for data."""

    def run_step(self):
        scalars = {"loss_cls": 1.0, "total_loss": self.iter, "grad_norm": 3.0, "lr": 0.02}
        self.storage.put_scalars(**scalars, time=2.0, data_time=0.5)
        logging.getLogger("detectron2.somewhere").info(f"said in iteration {self.iter}")


@pytest.fixture
def log():
    """What Detectron2's logger writes to standard output, which is a terminal, and to a file."""
    logger = logging.getLogger("detectron2")
    terminal, file = io.StringIO(), io.StringIO()
    handlers = [logging.StreamHandler(terminal), logging.StreamHandler(file)]
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    yield terminal, file
    assert [handler.stream for handler in handlers] == [terminal, file]
    assert not handlers[0].filters
    for handler in handlers:
        logger.removeHandler(handler)
    logger.propagate = propagate
    logger.setLevel(level)


def run(terminal, start, stop, period, loop, **options):
    console = Console(file=terminal, width=100, **options)
    loop.register_hooks([Progress(period, images=16, console=console)])
    with redirect_stdout(terminal):
        try:
            loop.train(start, stop)
        finally:
            assert sys.stdout is terminal


def test_off_a_terminal_there_are_lines_alone(log):
    terminal, file = log
    run(terminal, 0, 25, 10, Loop())
    assert terminal.getvalue() == file.getvalue()
    lines = [line for line in file.getvalue().splitlines() if "iter:" in line]
    assert [line.split("iter: ")[1].split()[0] for line in lines] == ["9", "19", "24"]
    # 15 iterations of 2 s are left; the median of the losses 0..9 is 4.5.
    assert lines[0].startswith(" eta: 0:00:30  iter: 9  loss_cls: 1  total_loss: 4.5  grad_norm: 3")
    assert "time: 2.0000  data_time: 0.5000  data_wait: 25%  images/s: 8  lr: 0.02" in lines[0]
    assert "max_mem: " in lines[0]
    # Of the last 20, those of 5 to 24.
    assert "total_loss: 14.5" in lines[2]


def test_on_a_terminal_the_lines_are_in_the_file_and_the_rest_passes_above_the_bar(log):
    terminal, file = log
    run(terminal, 5, 12, 2, Loop(), force_terminal=True)
    on_terminal = terminal.getvalue()
    assert "iter: 11" in file.getvalue() and "iter: 11" not in on_terminal
    for text in (file.getvalue(), on_terminal):
        assert all(f"said in iteration {i}" in text for i in range(5, 12))
    assert "12/12" in on_terminal and "0:00:00 left" in on_terminal and "loss 8" in on_terminal


def test_the_terminal_is_put_right_after_a_failure(log):
    class Failing(Loop):
        def run_step(self):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run(log[0], 0, 1, 1, Failing(), force_terminal=True)
    # The fixture looks at the handlers.
    assert "\x1b[?25h" in log[0].getvalue()  # the cursor is shown again
