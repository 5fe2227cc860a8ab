"""Reads a pickle without running anything from it: a small machine over an allow-list of names.

Python's own unpickler imports and calls whatever a file names. This one carries out the same
instructions, but a name never becomes more than a `GlobalName`, and a "call" is a look-up of that
name among the constructors below, which are this module's own. No attribute is ever got or set by
a name that comes from the file. Two kinds of names are known: what checkpoints are built of
(`_CONSTRUCTORS`, `STORAGE_DTYPES`, `_DTYPES`) and types that honest checkpoints hold beside their
tensors (`foreign_types`), which become inert placeholders. Any other name refuses the file.

The work is bounded: instructions are counted, long byte strings are views of the file rather than
copies, and the memo is a dictionary, so that no index in the file can make it large.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .foreign_types import ATTRIBUTE_LOOKUPS, BUILTINS, FOREIGN_TYPES, JAX_PACKAGES

MAX_INSTRUCTIONS = 2_000_000  # about 20 times what a ResNet-152 with two networks and Adam needs
MAX_NAME = 1 << 10
MAX_ELEMENTS = 1 << 40  # of one array: far above any tensor, far below what overflows an index
MAX_REPEATED = 1 << 20  # elements of a file's tensors that show an element of storage once more

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


class Refused(ValueError):
    """What the file is or asks for that is not read, as a clause that follows the file's name."""


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


class _Unfinished:
    """An object that its BUILD instruction completes; the memo then yields the finished value."""

    value = None

    def finish(self, machine: Machine, state: object) -> object:
        raise NotImplementedError


class _UnfinishedDtype(_Unfinished):
    def __init__(self, code: str):
        self.code = code

    def finish(self, machine: Machine, state: object) -> np.dtype:
        _version, order, subarray, names, *_rest = _tuple(state)
        if subarray is not None or names is not None or order not in ("<", ">", "|", "="):
            raise Refused("holds a structured numpy array, which no checkpoint needs")
        self.value = np.dtype(self.code).newbyteorder({"=": "<"}.get(order, order))
        return self.value


class _UnfinishedArray(_Unfinished):
    def finish(self, machine: Machine, state: object) -> np.ndarray:
        shape, dtype, fortran, data = _tuple(state)[-4:]  # very old files have no version first
        self.value = _array(machine, data, dtype, shape, "F" if fortran else "C")
        return self.value


class Machine:
    """Carries out one pickle that lies in `buffer` from `start` on.

    After `load`, `end` is the position behind the pickle and `foreign` has the placeholders' types.
    """

    def __init__(self, buffer, start: int, stop: int, find_storage: FindStorage | None = None):
        self._buffer = buffer
        self._bytes = memoryview(buffer)
        self._position = start
        self._stop = stop
        self._find_storage = find_storage
        self._copyable = 2 * (stop - start)  # from text to bytes, then to another byte order
        self._repeatable = MAX_REPEATED
        self._stack: list = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self.end = start
        self.foreign: set[str] = set()

    def load(self) -> object:
        """The pickled object: dicts, lists, tuples, numbers, text, arrays and placeholders.

        Byte strings come as read-only memoryviews, `OrderedDict` as dict, tensors as arrays.

        Raises:
            Refused: a name outside the allow-list, damage, or more than this reader will carry.
        """
        try:
            return self._run()
        except Refused:
            raise
        except (ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
            reason = f"holds a damaged pickle ({type(error).__name__}); get it again"
            raise Refused(reason) from error

    def _run(self) -> object:
        for _ in range(MAX_INSTRUCTIONS):
            instruction = self._take(1)[0]
            if instruction == pickle.STOP[0]:
                self.end = self._position
                return self._stack.pop()
            action = _ACTIONS.get(instruction)
            if action is None:
                raise Refused(
                    f"uses the pickle instruction 0x{instruction:02x}, which no checkpoint needs; "
                    "the file is damaged or hostile"
                )
            action(self)
        raise Refused(f"holds more than {MAX_INSTRUCTIONS:,} pickle instructions: not a checkpoint")

    # Reading

    def _take(self, count: int) -> memoryview:
        start = self._position
        if not 0 <= count <= self._stop - start:
            raise Refused("ends in the middle of its pickle: it is truncated; get it again")
        self._position = start + count
        return self._bytes[start : start + count]

    def _number(self, layout: str) -> int | float:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> bytes:
        limit = min(self._stop, self._position + MAX_NAME)
        end = self._buffer.find(b"\n", self._position, limit)
        if end < 0:
            raise Refused("holds a damaged pickle (a name without an end); get it again")
        line = bytes(self._take(end - self._position))
        self._take(1)
        return line

    def charge(self, count: int) -> None:
        """Account for a copy of `count` bytes: in sum they cannot honestly outgrow the pickle."""
        self._copyable -= count
        if self._copyable < 0:
            raise Refused("unfolds into more bytes than it has: the file is damaged or hostile")

    def charge_repetition(self, count: int) -> None:
        """Account for `count` elements that an expanded tensor shows more than once.

        Without a bound, a storage of one number would stand for a network of any size.
        """
        self._repeatable -= count
        if self._repeatable < 0:
            raise Refused("has tensors that repeat a small storage many times: it is hostile")

    def encode(self, text: str) -> bytes:
        self.charge(len(text))
        return text.encode("latin-1")

    # The stack

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop_to_mark(self) -> list:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _remembered(self, index: int) -> None:
        value = self._memo[index]
        if isinstance(value, _Unfinished) and value.value is not None:
            value = value.value
        self._push(value)

    def _remember(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    # Containers

    def _append(self, items: list) -> None:
        if type(self._stack[-1]) is Foreign:  # of a subclass of list
            return
        if type(self._stack[-1]) is not list:
            raise Refused("appends to something that is not a list: the file is damaged or hostile")
        self._stack[-1].extend(items)

    def _set(self, items: list) -> None:
        if type(self._stack[-1]) is Foreign:  # of a subclass of dict
            return
        if type(self._stack[-1]) is not dict:
            raise Refused("sets items of something that is not a dictionary: damaged or hostile")
        self._stack[-1].update(_dict(zip(items[::2], items[1::2], strict=True)))

    # Names and calls

    def _name(self, module: str, name: str) -> None:
        text = f"{module}.{name}"
        known = (_CONSTRUCTORS, STORAGE_DTYPES, _DTYPES, FOREIGN_TYPES, _OPERANDS)
        if text in FOREIGN_TYPES:
            self.foreign.add(text)
        elif module.split(".")[0] in JAX_PACKAGES:
            raise Refused(
                f"is a pickle of JAX's time (it asks for {shown(text)}), as BYOL and DetCon publish, "
                "which only its own code can build: nothing of it was run; load it where it was "
                "made, and save its arrays as a PyTorch state_dict()"
            )
        elif not any(text in names for names in known):
            raise Refused(
                f"asks for {shown(text)}, which a checkpoint of tensors does not need: nothing of "
                "it was run; if you trust its authors, load it where it was made and save only its "
                "state_dict() with torch.save"
            )
        self._push(GlobalName(text))

    def _call(self, target: object, arguments: object) -> None:
        if type(target) is not GlobalName:
            raise Refused("calls something that is not a name: the file is damaged or hostile")
        if target.text in FOREIGN_TYPES:
            if target.text in ATTRIBUTE_LOOKUPS:
                _check_attribute_lookup(arguments)
            self._push(Foreign(target.text))
        elif target.text in _CONSTRUCTORS:
            self._push(_CONSTRUCTORS[target.text](self, *_tuple(arguments)))
        else:
            raise Refused(f"calls {target.text}: the file is damaged or hostile")

    def _build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, _Unfinished):
            self._stack[-1] = target.finish(self, state)
        elif type(target) is Foreign:
            target.attributes = state if type(state) is dict else {}
        elif type(target) is not dict:  # an OrderedDict's state is torch's `_metadata`: not needed
            raise Refused("sets the state of something that has none: damaged or hostile")

    def _persistent(self, identity: object) -> None:
        if self._find_storage is None:
            raise Refused("points to tensors that lie outside it: the file is damaged")
        kind, storage_type, key, _location, count, *view = _tuple(identity)
        if kind != "storage" or type(storage_type) is not GlobalName:
            raise Refused(
                "holds whole Python modules, not only tensors; save the model's state_dict()"
            )
        dtype = STORAGE_DTYPES.get(storage_type.text)
        view = view[0] if view else None
        if dtype is None or type(key) is not str or not _is_size(count):
            raise Refused("describes a tensor's storage wrongly: the file is damaged")
        self._push(self._find_storage(key, dtype, count, view))


def shown(name: str, limit: int = 100) -> str:
    """A name from a file, for a message: of bounded length and without control characters."""
    text = name[:limit].encode("unicode_escape").decode()
    return f"{text}..." if len(name) > limit else text


def _check_attribute_lookup(arguments: object) -> None:
    """Nothing is looked up in any case; but what no honest file looks up refuses the file."""
    owner, *names = _tuple(arguments)
    of_foreign_type = type(owner) is GlobalName and owner.text in FOREIGN_TYPES
    if not of_foreign_type or len(names) != 1 or type(names[0]) is not str:
        raise Refused("looks up an attribute by name, which no checkpoint needs: it is hostile")


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_ELEMENTS


def _tuple(value: object) -> tuple:
    if type(value) is not tuple:
        raise Refused("holds a damaged pickle (arguments that are not a tuple); get it again")
    return value


def _dict(items) -> dict:
    """A dict of `items`, whose keys must not be such as can be made to collide by thousands."""
    result = {}
    for key, value in items:
        if type(key) not in _KEY_TYPES or (type(key) is int and abs(key) >= 1 << 60):
            raise Refused(f"has a dictionary key of type {type(key).__name__}: not a checkpoint")
        result[key] = value
    return result


# Constructors: what a name of the allow-list makes of its arguments


def _ordered_dict(machine: Machine, items: object = ()) -> dict:
    if type(items) not in (dict, list, tuple):
        raise Refused("builds a dictionary from something else: the file is damaged")
    machine.charge(4 * len(items))  # an item takes at least four bytes of the pickle
    return dict(items) if type(items) is dict else _dict(items)


def _default_dict(machine: Machine, factory: object = None) -> dict:
    if type(factory) not in (GlobalName, type(None)):
        raise Refused("builds a dictionary from something else: the file is damaged")
    return {}


def _set_of(machine: Machine, items: object = ()) -> set:
    if type(items) is not list:
        raise Refused("builds a set from something else: the file is damaged")
    machine.charge(4 * len(items))
    return set(_dict((item, None) for item in items))


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
    return _tuple(items)


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
    size, stride = _tuple(size), _tuple(stride)
    if not all(map(_is_size, (offset, *size, *stride))) or len(size) != len(stride):
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
    return _CONSTRUCTORS[function.text](machine, *_tuple(arguments))


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
    if not all(map(_is_size, _tuple(shape))) or order not in ("C", "F"):
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

_CONSTRUCTORS: dict[str, Callable] = {
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

# Named as an argument of the above or as a type that omegaconf notes, never called.
_OPERANDS = {"numpy.ndarray", "torch.Tensor", "torch.nn.parameter.Parameter", "typing.Any"} | {
    f"{module}.{name}"
    for module in BUILTINS
    for name in ("dict", "list", "tuple", "str", "unicode", "int", "long", "float", "bool")
}


# Instructions: what each does to the machine. Those of protocols 0 and 1 alone are not known.


def _global(machine: Machine) -> None:
    module, name = machine._line(), machine._line()
    machine._name(module.decode("ascii", "replace"), name.decode("ascii", "replace"))


def _stack_global(machine: Machine) -> None:
    name, module = machine._stack.pop(), machine._stack.pop()
    if type(module) is not str or type(name) is not str:
        raise Refused("asks for something by what is not a name: damaged or hostile")
    machine._name(module, name)


def _reduce(machine: Machine) -> None:
    arguments, target = machine._stack.pop(), machine._stack.pop()
    machine._call(target, arguments)


def _text(data: memoryview) -> str:
    return str(data, "utf-8")


def _signed(data: memoryview) -> int:
    return int.from_bytes(data, "little", signed=True)


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def action(machine: Machine) -> None:
        if len(machine._stack) < count:
            raise IndexError
        items = tuple(machine._stack[-count:])
        machine._stack[-count:] = [items]

    return action


def _pushes(make: Callable[[Machine], object]) -> Callable[[Machine], None]:
    return lambda machine: machine._push(make(machine))


_ACTIONS: dict[int, Callable[[Machine], None]] = {
    instruction[0]: action
    for instruction, action in {
        pickle.PROTO: lambda m: m._take(1),
        pickle.FRAME: lambda m: m._take(8),
        # The stack and the memo
        pickle.MARK: lambda m: m._marks.append(len(m._stack)),
        pickle.POP: lambda m: m._stack.pop(),
        pickle.POP_MARK: lambda m: m._pop_to_mark(),
        pickle.BINGET: lambda m: m._remembered(m._take(1)[0]),
        pickle.LONG_BINGET: lambda m: m._remembered(m._number("<I")),
        pickle.BINPUT: lambda m: m._remember(m._take(1)[0]),
        pickle.LONG_BINPUT: lambda m: m._remember(m._number("<I")),
        pickle.MEMOIZE: lambda m: m._remember(len(m._memo)),
        # Numbers and constants
        pickle.NONE: _pushes(lambda m: None),
        pickle.NEWTRUE: _pushes(lambda m: True),
        pickle.NEWFALSE: _pushes(lambda m: False),
        pickle.BININT: _pushes(lambda m: m._number("<i")),
        pickle.BININT1: _pushes(lambda m: m._take(1)[0]),
        pickle.BININT2: _pushes(lambda m: m._number("<H")),
        pickle.LONG1: _pushes(lambda m: _signed(m._take(m._take(1)[0]))),
        pickle.BINFLOAT: _pushes(lambda m: m._number(">d")),
        # Text and bytes
        pickle.SHORT_BINSTRING: _pushes(lambda m: str(m._take(m._take(1)[0]), "latin-1")),
        pickle.BINSTRING: _pushes(lambda m: str(m._take(m._number("<i")), "latin-1")),
        pickle.SHORT_BINUNICODE: _pushes(lambda m: _text(m._take(m._take(1)[0]))),
        pickle.BINUNICODE: _pushes(lambda m: _text(m._take(m._number("<I")))),
        pickle.BINUNICODE8: _pushes(lambda m: _text(m._take(m._number("<Q")))),
        pickle.SHORT_BINBYTES: _pushes(lambda m: m._take(m._take(1)[0])),
        pickle.BINBYTES: _pushes(lambda m: m._take(m._number("<I"))),
        pickle.BINBYTES8: _pushes(lambda m: m._take(m._number("<Q"))),
        pickle.BYTEARRAY8: _pushes(lambda m: m._take(m._number("<Q"))),
        # Containers
        pickle.EMPTY_LIST: _pushes(lambda m: []),
        pickle.EMPTY_DICT: _pushes(lambda m: {}),
        pickle.EMPTY_TUPLE: _pushes(lambda m: ()),
        pickle.TUPLE: _pushes(lambda m: tuple(m._pop_to_mark())),
        pickle.TUPLE1: _tuple_of(1),
        pickle.TUPLE2: _tuple_of(2),
        pickle.TUPLE3: _tuple_of(3),
        pickle.APPEND: lambda m: m._append([m._stack.pop()]),
        pickle.APPENDS: lambda m: m._append(m._pop_to_mark()),
        pickle.SETITEM: lambda m: m._set([m._stack.pop(-2), m._stack.pop()]),
        pickle.SETITEMS: lambda m: m._set(m._pop_to_mark()),
        # Names and calls
        pickle.GLOBAL: _global,
        pickle.STACK_GLOBAL: _stack_global,
        pickle.REDUCE: _reduce,
        pickle.NEWOBJ: _reduce,
        pickle.BUILD: lambda m: m._build(),
        pickle.BINPERSID: lambda m: m._persistent(m._stack.pop()),
    }.items()
}
