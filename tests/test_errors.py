"""What a command says, and its exit status, when something goes wrong."""

import importlib
import subprocess
import sys

import pytest

from ssl_backbones.errors import InputError, run_command


def test_success_and_a_status_pass_through():
    assert run_command(lambda: None) == 0
    assert run_command(lambda: 1) == 1


def test_a_users_mistake_is_one_line_and_status_2(capsys):
    def body():
        raise InputError("no such file:\n  x.pth; give one that exists")

    assert run_command(body) == 2
    assert capsys.readouterr().err == "error: no such file: x.pth; give one that exists\n"


def test_a_message_cannot_steer_the_terminal(capsys):
    def body():
        raise InputError("holds \x1b[2Jkey\x07 and läyer")

    assert run_command(body) == 2
    assert capsys.readouterr().err == "error: holds \\x1b[2Jkey\\x07 and läyer\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_a_missing_extra_is_named_with_its_mend(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)  # as where it is not installed
    assert run_command(lambda: importlib.import_module("cv2")) == 2
    assert capsys.readouterr().err == (
        "error: the module cv2 is not installed; pip install -e '.[digits]' in the checkout brings it\n"
    )


def test_any_other_missing_module_is_a_bug():
    with pytest.raises(ModuleNotFoundError):
        run_command(lambda: importlib.import_module("no_such_module"))


def test_ctrl_c_is_130(capsys):
    def body():
        raise KeyboardInterrupt

    assert run_command(body) == 130


def test_a_closed_pipe_is_no_error():
    """As in `command | head -1`."""
    code = (
        "import sys\n"
        "from ssl_backbones.errors import run_command\n"
        "sys.exit(run_command(lambda: print('line\\n' * 100_000)))"
    )
    command = f'"{sys.executable}" -c "$CODE" | head -1; echo "${{PIPESTATUS[0]}}"'
    result = subprocess.run(
        ["bash", "-c", command], env={"CODE": code}, capture_output=True, text=True
    )
    assert result.stdout.split() == ["line", "0"]
    assert result.stderr == ""
