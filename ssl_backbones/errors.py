"""The one way in which the project tells a user about a mistake: one line and exit status 2."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

_EXTRAS = {
    **dict.fromkeys(("cv2", "lightly", "scipy", "sklearn"), "digits"),
    **dict.fromkeys(("jinja2", "matplotlib"), "report"),
    **dict.fromkeys(("onnx", "onnxruntime"), "export"),
    "timm": "vit",
}
"""Modules that are installed with an extra of this package only."""


class InputError(Exception):
    """A mistake in what the user gave: its text is one line that says what, where and how to mend it."""


class InstallationError(Exception):
    """Something failed while installing: the network, pip, git or the installed Detectron2.

    Its text is one line with the reason and the mend; commands end in exit status 1 on it, where an
    `InputError` (a mistake in what the user gave) ends in 2.
    """


def run_command(body: Callable[[], int | None]) -> int:
    """Run the body of a command and return its exit status.

    An `InputError` is printed as one line on standard error and ends in status 2, Ctrl-C in 130. Any
    other exception is a bug or a failure while running: it keeps its traceback (status 1).
    """
    # torch tells Detectron2 at every import which of its functions will go: no news for a user.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    try:
        return body() or 0
    except InputError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        mend = f"pip install -e '.[{_EXTRAS[error.name]}]' in the checkout brings it"
        print(f"error: the module {error.name} is not installed; {mend}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output, such as `head`, has had enough. Python would complain once more when it
        # flushes at exit, so what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def format_name(name: str, limit: int = 100) -> str:
    """A name from a file, for a message: of bounded length and without control characters."""
    text = name[:limit].encode("unicode_escape").decode()
    return f"{text}..." if len(name) > limit else text


def one_line(text: str) -> str:
    """Text on one line, in which nothing steers a terminal: a message may quote what a file holds."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
