"""Stands where Detectron2's compiled extension would be (`detectron2._C`) in a build without one.

Detectron2 v0.6 imports the extension whether it needs it or not, so the import has to succeed. What
would run compiled code raises ImportError at its first use; the facts that Detectron2 asks for when
it logs the environment are answered.
"""


def get_compiler_version() -> str:
    return "none (pure-Python build)"


def get_cuda_version() -> str:
    return "none (pure-Python build)"


def has_cuda() -> bool:
    return False


def __getattr__(name: str):
    # Python itself asks modules for names such as __path__ and expects AttributeError.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise ImportError(
        f"detectron2._C.{name} is compiled code, which this pure-Python build of Detectron2 lacks "
        "(rotated boxes, deformable convolution on a GPU, the fast COCOeval): give "
        "COCOEvaluator use_fast_impl=False, or build Detectron2 with a compiler"
    )
