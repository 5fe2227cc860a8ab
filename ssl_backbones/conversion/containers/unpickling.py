"""Reads a pickle without running anything from it: a small machine over an allow-list of names.

Python's own unpickler imports and calls whatever a file names. This one carries out the same
instructions, but a name never becomes more than a `GlobalName`, and a "call" is a look-up of that
name among the constructors of `allow_list`. No attribute is ever got or set by a name that comes from
the file. A name that is not on the list refuses the file.

The work is bounded: instructions are counted, long byte strings are views of the file rather than
copies, and the memo is a dictionary, so that no index in the file can make it large.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable

from ...errors import format_name
from . import Refused, other_kinds
from .allow_list import (
    ATTRIBUTE_LOOKUPS,
    CONSTRUCTORS,
    FOREIGN_CLASSES,
    FOREIGN_TYPES,
    JAX_PACKAGES,
    STORAGE_DTYPES,
    FindStorage,
    Foreign,
    GlobalName,
    Unfinished,
    as_dict,
    as_tuple,
    is_foreign,
    is_known,
    is_size,
)

MAX_INSTRUCTIONS = 2_000_000  # about 20 times what a ResNet-152 with two networks and Adam needs
MAX_NAME = 1 << 10
MAX_REPEATED = 1 << 20  # elements of a file's tensors that show an element of storage once more


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
        self._names: dict[str, None] = {}  # of foreign things, in the file's order
        self.end = start
        self.foreign: set[str] = set()

    def load(self) -> object:
        """The pickled object: dicts, lists, tuples, numbers, text, arrays and placeholders.

        Byte strings come as read-only memoryviews, `OrderedDict` as dict, tensors as arrays.

        Raises:
            Refused: a name outside the allow-list, damage, or more than this reader will carry.
        """
        try:
            content = self._run()
            self._check_classes()
            return content
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
        if isinstance(value, Unfinished) and value.value is not None:
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
        self._stack[-1].update(as_dict(zip(items[::2], items[1::2], strict=True)))

    # Names and calls

    def _check_classes(self) -> None:
        """Whole modules are left unread in files of lightly-train alone, which hold a state dict as well."""
        classes = [name for name in self._names if FOREIGN_CLASSES.fullmatch(name)]
        if classes and not any(name.startswith("lightly_train.") for name in classes):
            raise _not_needed(classes[0])

    def _name(self, module: str, name: str) -> None:
        text = f"{module}.{name}"
        if is_foreign(text):
            self.foreign.add(text)
            self._names[text] = None
        elif module.split(".")[0] in JAX_PACKAGES:
            raise Refused(
                f"is a pickle of JAX's time (it asks for {format_name(text)}), as BYOL and DetCon publish, "
                "which only its own code can build: nothing of it was run; load it where it was "
                "made, and save its arrays as a PyTorch state_dict()"
            )
        elif not is_known(text) and (reason := other_kinds.pickle_of(text)):
            raise Refused(reason)
        elif not is_known(text):
            raise _not_needed(text)
        self._push(GlobalName(text))

    def _call(self, target: object, arguments: object) -> None:
        if type(target) is not GlobalName:
            raise Refused("calls something that is not a name: the file is damaged or hostile")
        if is_foreign(target.text):
            if target.text in ATTRIBUTE_LOOKUPS:
                _check_attribute_lookup(arguments)
            self._push(Foreign(target.text))
        elif target.text in CONSTRUCTORS:
            self._push(CONSTRUCTORS[target.text](self, *as_tuple(arguments)))
        else:
            raise Refused(f"calls {target.text}: the file is damaged or hostile")

    def _build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Unfinished):
            self._stack[-1] = target.finish(self, state)
        elif type(target) is Foreign:
            target.attributes = state if type(state) is dict else {}
        elif type(target) is not dict:  # an OrderedDict's state is torch's `_metadata`: not needed
            raise Refused("sets the state of something that has none: damaged or hostile")

    def _persistent(self, identity: object) -> None:
        if self._find_storage is None:
            raise Refused("points to tensors that lie outside it: the file is damaged")
        if as_tuple(identity)[0] == "module" and type(identity[1]) is GlobalName:
            self._push(identity[1])  # torch's older format writes a class so, with its source code
            return
        kind, storage_type, key, _location, count, *view = identity
        if kind != "storage" or type(storage_type) is not GlobalName:
            raise Refused(
                "holds whole Python modules, not only tensors; save the model's state_dict()"
            )
        dtype = STORAGE_DTYPES.get(storage_type.text)
        view = view[0] if view else None
        if dtype is None or type(key) is not str or not is_size(count):
            raise Refused("describes a tensor's storage wrongly: the file is damaged")
        self._push(self._find_storage(key, dtype, count, view))


def _not_needed(name: str) -> Refused:
    return Refused(
        f"asks for {format_name(name)}, which a checkpoint of tensors does not need: nothing of "
        "it was run; if you trust its authors, load it where it was made and save only its "
        "state_dict() with torch.save"
    )


def _check_attribute_lookup(arguments: object) -> None:
    """Nothing is looked up in any case; but what no honest file looks up refuses the file."""
    owner, *names = as_tuple(arguments)
    of_foreign_type = type(owner) is GlobalName and owner.text in FOREIGN_TYPES
    if not of_foreign_type or len(names) != 1 or type(names[0]) is not str:
        raise Refused("looks up an attribute by name, which no checkpoint needs: it is hostile")


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
