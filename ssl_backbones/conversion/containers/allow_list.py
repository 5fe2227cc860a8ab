"""The names that a pickle may have, and what each becomes: the allow-list of the machine in `unpickling`.

Two kinds are known. What checkpoints are built of has a constructor here, which is this module's own.
Types that honest checkpoints hold beside their tensors become inert placeholders: none is imported,
called or looked into. A name is added only if a project's own save code writes it; any other refuses the
file. Protocol 2, which torch writes, calls the module `builtins` by its old name `__builtin__`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from . import MAX_ELEMENTS, Refused

if TYPE_CHECKING:
    from .unpickling import Machine

BUILTINS = ("builtins", "__builtin__")

_LIGHTNING = "pytorch_lightning: checkpoint_connector.py, `dump_checkpoint`"
_OMEGACONF = (
    "omegaconf containers, which pytorch_lightning keeps in `hyper_parameters` (solo-learn)"
)
_MMENGINE = "mmengine: logging/history_buffer.py, in the message hub that its runner saves"

FOREIGN_TYPES = {
    "argparse.Namespace": "DINO, PixPro, SoCo, PyContrast, timm: the command line's arguments",
    "__main__.exclude_bias_and_norm": "Barlow Twins, VICReg: a filter among LARS's options",
    "mmengine.logging.history_buffer.HistoryBuffer": _MMENGINE,
    "omegaconf.dictconfig.DictConfig": _OMEGACONF,
    "omegaconf.listconfig.ListConfig": _OMEGACONF,
    "omegaconf.base.ContainerMetadata": _OMEGACONF,
    "omegaconf.base.Metadata": _OMEGACONF,
    "omegaconf.nodes.AnyNode": _OMEGACONF,
    "pathlib.PosixPath": "options of type Path, in a Namespace or in `hyper_parameters`",
    "pathlib.WindowsPath": "options of type Path, in a Namespace or in `hyper_parameters`",
    "pytorch_lightning.utilities.parsing.AttributeDict": _LIGHTNING,
    "lightning_fabric.utilities.data.AttributeDict": _LIGHTNING,
    "lightning.fabric.utilities.data.AttributeDict": _LIGHTNING,
    # Before version 1.6 the callbacks' states stood under the callbacks' classes.
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": _LIGHTNING,
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping": _LIGHTNING,
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor": _LIGHTNING,
}

# lightly-train keeps its networks twice: as a state dict, and whole beside it. Classes of these packages
# alone, by the spelling of a class; a function of theirs is none.
FOREIGN_CLASSES = re.compile(
    r"(?:torch\.nn\.modules|torchvision\.models|lightly_train)(?:\.\w+)*\.[A-Z]\w*"
)

# How protocol 2 writes a method such as `HistoryBuffer.mean`, which early mmengine kept in every
# buffer. It is taken for a foreign type too, and only with a foreign type as its first argument.
ATTRIBUTE_LOOKUPS = {f"{module}.getattr": _MMENGINE for module in BUILTINS}
FOREIGN_TYPES |= ATTRIBUTE_LOOKUPS

# Packages that only the pickles of JAX's time name: BYOL's, DetCon's and other haiku checkpoints.
JAX_PACKAGES = {"byol", "detcon", "dill", "flax", "haiku", "jax", "jaxlib", "jaxline", "optax"}

STORAGE_DTYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexDoubleStorage": "complex128",
    "torch.ComplexFloatStorage": "complex64",
    "torch.storage.UntypedStorage": "uint8",
}
STORAGE_DTYPES |= {
    name.replace("torch.", "torch.cuda."): dtype
    for name, dtype in STORAGE_DTYPES.items()
    if name.count(".") == 1
}

_DTYPES = {f"torch.{name}" for name in (*STORAGE_DTYPES.values(), "uint16", "uint32", "uint64")}

_NUMPY_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,6}")


@dataclass(frozen=True)
class GlobalName:
    """A name of the allow-list, never the thing that it names."""

    text: str


_KEY_TYPES = (str, int, float, bool, type(None), GlobalName)


@dataclass
class Foreign:
    """Stands for an object of a foreign type: its type's name and, unread, what it held."""

    type_name: str
    attributes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """A torch storage: a flat, read-only array, and the byte order that the file has it in."""

    flat: np.ndarray
    order: str = "<"


FindStorage = Callable[[str, str, int, "tuple | None"], Storage]
"""From key, dtype, number of elements and, for a view, (its key, offset, size)."""


class Unfinished:
    """An object that its BUILD instruction completes; the memo then yields the finished value."""

    value = None

    def finish(self, machine: Machine, state: object) -> object:
        raise NotImplementedError


class _UnfinishedDtype(Unfinished):
    def __init__(self, code: str):
        self.code = code

    def finish(self, machine: Machine, state: object) -> np.dtype:
        _version, order, subarray, names, *_rest = as_tuple(state)
        if subarray is not None or names is not None or order not in ("<", ">", "|", "="):
            raise Refused("holds a structured numpy array, which no checkpoint needs")
        self.value = np.dtype(self.code).newbyteorder({"=": "<"}.get(order, order))
        return self.value


class _UnfinishedArray(Unfinished):
    def finish(self, machine: Machine, state: object) -> np.ndarray:
        shape, dtype, fortran, data = as_tuple(state)[-4:]  # very old files have no version first
        self.value = _array(machine, data, dtype, shape, "F" if fortran else "C")
        return self.value


def is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_ELEMENTS


def as_tuple(value: object) -> tuple:
    if type(value) is not tuple:
        raise Refused("holds a damaged pickle (arguments that are not a tuple); get it again")
    return value


def as_dict(items) -> dict:
    """A dict of `items`, whose keys must not be such as can be made to collide by thousands."""
    result = {}
    for key, value in items:
        if type(key) not in _KEY_TYPES or (type(key) is int and abs(key) >= 1 << 60):
            raise Refused(f"has a dictionary key of type {type(key).__name__}: not a checkpoint")
        result[key] = value
    return result


# What a name of the allow-list makes of its arguments


def _ordered_dict(machine: Machine, items: object = ()) -> dict:
    if type(items) not in (dict, list, tuple):
        raise Refused("builds a dictionary from something else: the file is damaged")
    machine.charge(4 * len(items))  # an item takes at least four bytes of the pickle
    return dict(items) if type(items) is dict else as_dict(items)


def _default_dict(machine: Machine, factory: object = None) -> dict:
    if type(factory) not in (GlobalName, type(None)):
        raise Refused("builds a dictionary from something else: the file is damaged")
    return {}


def _set_of(machine: Machine, items: object = ()) -> set:
    if type(items) is not list:
        raise Refused("builds a set from something else: the file is damaged")
    machine.charge(4 * len(items))
    return set(as_dict((item, None) for item in items))


def _bytearray(machine: Machine, data: object = b"", encoding: object = None) -> bytes:
    if encoding is not None:  # protocol 2 writes it as text
        return _text_to_bytes(machine, data, encoding)
    if type(data) not in (bytes, memoryview):
        raise Refused("builds bytes from something else: the file is damaged")
    return data


def _complex(machine: Machine, real: object, imaginary: object) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise Refused("builds a number from something else: the file is damaged")
    return complex(real, imaginary)


def _text_to_bytes(machine: Machine, text: object, encoding: object = "latin1") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Refused("encodes text in an unexpected way: the file is damaged or hostile")
    return machine.encode(text)


def _size(machine: Machine, items: object) -> tuple:
    return as_tuple(items)


def _device(machine: Machine, kind: object, index: object = None) -> str:
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise Refused("describes a device wrongly: the file is damaged")
    return kind if index is None else f"{kind}:{index}"


def _tensor(machine: Machine, storage, offset, size, stride, *flags) -> np.ndarray:
    """A view of the storage; `flags` are requires_grad, hooks and, in new files, metadata."""
    if len(flags) > 2 and flags[2]:
        raise Refused("holds a tensor with a lazy conjugate or sign, which is not read")
    if type(storage) is not Storage:
        raise Refused("builds a tensor of something that is no storage: damaged or hostile")
    return _view(machine, storage.flat, offset, size, stride)


def _tensor_with_dtype(
    machine: Machine, storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None
) -> np.ndarray:
    """torch's form for dtypes without a storage class of their own (uint16 and the like)."""
    if type(storage) is not Storage or type(dtype) is not GlobalName or metadata:
        raise Refused("describes a tensor in an unknown way: the file is damaged or too new")
    dtype = np.dtype(dtype.text.removeprefix("torch."))
    if storage.order == ">":
        raise Refused(f"holds {dtype} tensors of a big-endian machine, which are not read")
    return _view(machine, storage.flat.view(dtype), offset, size, stride)


def _view(machine: Machine, flat: np.ndarray, offset, size, stride) -> np.ndarray:
    size, stride = as_tuple(size), as_tuple(stride)
    if not all(map(is_size, (offset, *size, *stride))) or len(size) != len(stride):
        raise Refused("gives a tensor an impossible shape: the file is damaged or hostile")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(flat):
        raise Refused("has a tensor that reaches outside its storage: damaged or hostile")
    machine.charge_repetition(max(0, math.prod(size) - len(flat)))
    itemsize = flat.dtype.itemsize
    return np.ndarray(
        size,
        flat.dtype,
        buffer=flat if 0 not in size else None,
        offset=offset * itemsize if 0 not in size else 0,
        strides=[step * itemsize for step in stride] if 0 not in size else None,
    )


def _parameter(machine: Machine, data: object, *_flags) -> np.ndarray:
    if type(data) is not np.ndarray:
        raise Refused("builds a parameter of something that is no tensor: damaged or hostile")
    return data


def _tensor_with_attributes(machine: Machine, function, _type, arguments, _state) -> np.ndarray:
    if type(function) is not GlobalName or function.text not in _TENSOR_CONSTRUCTORS:
        raise Refused("describes a tensor in an unknown way: the file is damaged or too new")
    return CONSTRUCTORS[function.text](machine, *as_tuple(arguments))


def _numpy_dtype(machine: Machine, code: object, *_flags) -> _UnfinishedDtype:
    if type(code) is not str or not _NUMPY_DTYPE.fullmatch(code):
        raise Refused("holds numpy data that are not numbers or text, which no checkpoint needs")
    return _UnfinishedDtype(code)


def _numpy_array(machine: Machine, *_arguments) -> _UnfinishedArray:
    return _UnfinishedArray()


def _numpy_array_from_buffer(machine: Machine, data, dtype, shape, order) -> np.ndarray:
    return _array(machine, data, dtype, shape, order)


def _numpy_scalar(machine: Machine, dtype: object, data: object) -> np.generic:
    return _array(machine, data, dtype, (), "C")[()]


def _array(machine: Machine, data, dtype, shape, order) -> np.ndarray:
    """An array over the pickle's own bytes; Python 2 wrote them as text, which costs a copy."""
    if type(data) is str:
        data = machine.encode(data)
    if not isinstance(dtype, np.dtype) or type(data) not in (bytes, memoryview):
        raise Refused("holds a numpy array of Python objects or a damaged one; it is not read")
    if not all(map(is_size, as_tuple(shape))) or order not in ("C", "F"):
        raise Refused("gives an array an impossible shape: the file is damaged or hostile")
    count = 1
    for length in shape:
        count *= length
    if count * dtype.itemsize != len(data):
        raise Refused("has an array whose shape does not fit its bytes: damaged or hostile")
    array = np.ndarray(shape, dtype, buffer=data if count else None, order=order)
    if not dtype.isnative:
        machine.charge(len(data))
        array = array.astype(dtype.newbyteorder("="))
    return array


_TENSOR_CONSTRUCTORS = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}

CONSTRUCTORS: dict[str, Callable] = {
    **_TENSOR_CONSTRUCTORS,
    "torch._tensor._rebuild_from_type_v2": _tensor_with_attributes,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _ordered_dict,
    "collections.defaultdict": _default_dict,
    **{
        f"{module}.{name}": constructor
        for module in BUILTINS
        for name, constructor in {
            "set": _set_of,
            "frozenset": _set_of,
            "bytearray": _bytearray,
            "complex": _complex,
        }.items()
    },
    "_codecs.encode": _text_to_bytes,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray._reconstruct": _numpy_array,
    "numpy._core.multiarray._reconstruct": _numpy_array,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy.core.numeric._frombuffer": _numpy_array_from_buffer,
    "numpy._core.numeric._frombuffer": _numpy_array_from_buffer,
}

# Named as an argument of the above or as a type that omegaconf notes, never called. The last one
# stands before the class of a tensor, such as DTensor, and that name says more.
_OPERANDS = {
    "numpy.ndarray",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "typing.Any",
    "torch._utils._rebuild_wrapper_subclass",
} | {
    f"{module}.{name}"
    for module in BUILTINS
    for name in ("dict", "list", "tuple", "str", "unicode", "int", "long", "float", "bool")
}


def is_foreign(name: str) -> bool:
    """Whether it is the name of something that is left unread, a placeholder in its place."""
    return name in FOREIGN_TYPES or FOREIGN_CLASSES.fullmatch(name) is not None


def is_known(name: str) -> bool:
    """Whether a pickle may have this name at all, foreign ones aside."""
    known = (CONSTRUCTORS, STORAGE_DTYPES, _DTYPES, _OPERANDS)
    return any(name in names for names in known)
