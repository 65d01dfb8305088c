"""Read a pickle as data: no import, no class of the file, no call that is not ours.

`pickle.Unpickler` cannot be made safe by its table of names alone. Its BUILD opcode hands bytes of
the file to C code of NumPy as pointers. Its memo allocates any size an opcode says. The hash of a
deep tuple overflows the stack. So `InertUnpickler` runs the opcodes itself, after `pickletools` has
parsed them. A subclass gives the meaning of names, calls and states.

Memory grows with the file and not with its claims: `spend` counts copies against the file's length.

Example::

    class Numbers(InertUnpickler):
        pass                                   # containers and plain values, no names at all

    Numbers(pickle.dumps({"a": [1, 2.5]})).load()      # {"a": [1, 2.5]}
"""

import pickletools
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

MAX_INT_BITS = 1024
MAX_KEY_INT_BITS = 64  # larger ones can be chosen to collide in a hash table
MAX_KEY_LENGTH = 16


class RefusedPickleError(ValueError):
    """The pickle is damaged or asks for something other than data; the message names it."""


@dataclass(frozen=True)
class Name:
    """A global mentioned in the pickle; nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Unbuilt:
    """The result of a call that waits for its state, see `InertUnpickler.build`."""

    def __init__(self) -> None:
        self.memo_places: list[int] = []


class InertUnpickler:
    """Runs a pickle's opcodes over plain values. One instance reads one pickle."""

    key_types: tuple[type, ...] = (str, bytes, float, bool, type(None))
    """Possible keys of a dictionary or elements of a set, besides integers."""
    callables: tuple[type, ...] = (Name,)
    """Types of what `call` is given to call."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._budget = len(data)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def find(self, name: Name) -> object:
        """The meaning of a name; raises `RefusedPickleError` for a name that is not admitted."""
        raise RefusedPickleError(f"it asks for {name}")

    def call(self, function: object, args: tuple[Any, ...]) -> object:
        """The result of a REDUCE, or its like, on an object from `find`."""
        raise RefusedPickleError(f"it calls {reprlib.repr(function)}")

    def build(self, target: object, state: object) -> object:
        """``target`` with its state; the result takes the target's place everywhere."""
        raise RefusedPickleError(f"it gives a state to {type(target).__name__}")

    def persistent(self, pid: object) -> object:
        """The meaning of a persistent id."""
        raise RefusedPickleError("it has a persistent id")

    def spend(self, amount: int) -> None:
        """Count bytes or elements copied by a call; refuses more than the file is long."""
        self._budget -= amount
        if self._budget < 0:
            raise RefusedPickleError("it unpacks to more than it holds")

    def load(self) -> object:
        """The value of the pickle.

        Raises:
            RefusedPickleError: it is damaged, or asks for something not admitted.
        """
        try:
            for opcode, argument, _ in pickletools.genops(self._data):
                if opcode.name in _LITERALS:
                    self._push(argument)
                elif opcode.name not in _IGNORED:
                    _OPCODES[opcode.name](self, argument)
            (value,) = self._stack
        except RefusedPickleError:
            raise
        except Exception as error:
            # A damaged pickle can make the opcodes raise anything.
            raise RefusedPickleError(f"damaged: {error!r:.200}") from error
        if isinstance(value, Name | Unbuilt):
            raise RefusedPickleError("it holds no value")
        return value

    def check_key(self, key: object) -> object:
        """The key; raises for one with a hash that could take long or overflow the stack."""
        parts = key if isinstance(key, tuple) and len(key) <= MAX_KEY_LENGTH else (key,)
        for part in parts:
            if type(part) is int and part.bit_length() <= MAX_KEY_INT_BITS:
                continue
            if not isinstance(part, self.key_types):
                raise RefusedPickleError(f"a key or an element of a set is a {type(part).__name__}")
        return key

    def fill_dict(self, target: Any, pairs: Iterable[tuple[object, object]]) -> None:  # noqa: ANN401
        """Set the items of a dictionary."""
        if not isinstance(target, dict):
            raise RefusedPickleError(f"it sets items of a {type(target).__name__}")
        for key, value in pairs:
            target[self.check_key(key)] = value

    def extend_list(self, target: object, items: list[Any]) -> None:
        """Append to a list."""
        if not isinstance(target, list):
            raise RefusedPickleError(f"it appends to a {type(target).__name__}")
        target.extend(items)

    def _push(self, value: object) -> None:
        if type(value) is int and value.bit_length() > MAX_INT_BITS:
            raise RefusedPickleError(f"an integer of {value.bit_length()} bits")
        self._stack.append(value)

    def _pop_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise RefusedPickleError("an opcode takes more than there is")
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return items

    def _call(self, function: object, args: object) -> None:
        # Any other value is refused unseen: its text can be exponentially long, for its parts may
        # be shared.
        if not isinstance(function, self.callables):
            raise RefusedPickleError(f"it calls a {type(function).__name__}")
        if not isinstance(args, tuple):
            raise RefusedPickleError("a call without arguments")
        self._push(self.call(function, args))

    def _mark(self, _: object) -> None:
        self._marks.append(len(self._stack))

    def _put(self, index: int) -> None:
        value = self._memo[index] = self._stack[-1]
        if isinstance(value, Unbuilt):
            value.memo_places.append(index)

    def _append(self, _: object) -> None:
        target, item = self._pop(2)
        self.extend_list(target, [item])
        self._push(target)

    def _appends(self, _: object) -> None:
        items = self._pop_mark()
        self.extend_list(self._stack[-1], items)

    def _setitem(self, _: object) -> None:
        target, key, value = self._pop(3)
        self.fill_dict(target, [(key, value)])
        self._push(target)

    def _setitems(self, _: object) -> None:
        items = self._pop_mark()
        self.fill_dict(self._stack[-1], _pairs(items))

    def _dict(self, _: object) -> None:
        made: dict[Any, Any] = {}
        self.fill_dict(made, _pairs(self._pop_mark()))
        self._push(made)

    def _additems(self, _: object) -> None:
        items = self._pop_mark()
        target = self._stack[-1]
        if not isinstance(target, set):
            raise RefusedPickleError(f"it adds to a {type(target).__name__}")
        target.update(self.check_key(item) for item in items)

    def _frozenset(self, _: object) -> None:
        self._push(frozenset(self.check_key(item) for item in self._pop_mark()))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push(self.find(Name(module, name)))

    def _stack_global(self, _: object) -> None:
        module, name = self._pop(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise RefusedPickleError("a name that is no text")
        self._push(self.find(Name(module, name)))

    def _reduce(self, _: object) -> None:
        self._call(*self._pop(2))

    def _newobj_ex(self, _: object) -> None:
        function, args, _keywords = self._pop(3)
        self._call(function, args)

    def _obj(self, _: object) -> None:
        function, *args = self._pop_mark()
        self._call(function, tuple(args))

    def _inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._call(self.find(Name(module, name)), tuple(self._pop_mark()))

    def _build(self, _: object) -> None:
        target, state = self._pop(2)
        built = self.build(target, state)
        self._push(built)
        if isinstance(target, Unbuilt):
            for index in target.memo_places:
                self._memo[index] = built


def _pairs(items: list[Any]) -> Iterable[tuple[object, object]]:
    """Keys and values, which alternate on the stack."""
    return zip(items[::2], items[1::2], strict=True)


_LITERALS = frozenset(
    f"{prefix}{name}"
    for name, prefixes in {
        "INT": ("", "BIN"),
        "INT1": ("BIN",),
        "INT2": ("BIN",),
        "LONG": ("",),
        "LONG1": ("",),
        "LONG4": ("",),
        "FLOAT": ("", "BIN"),
        "STRING": ("", "BIN", "SHORT_BIN"),
        "UNICODE": ("", "BIN", "SHORT_BIN"),
        "UNICODE8": ("BIN",),
        "BYTES": ("BIN", "SHORT_BIN"),
        "BYTES8": ("BIN",),
        "ARRAY8": ("BYTE",),
    }.items()
    for prefix in prefixes
)
"""Opcodes with the value as their argument."""

_IGNORED = frozenset(("PROTO", "FRAME", "STOP"))

_OPCODES: dict[str, Callable[[InertUnpickler, Any], object]] = {
    "NONE": lambda m, _: m._push(None),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "EMPTY_SET": lambda m, _: m._push(set()),
    "TUPLE1": lambda m, _: m._push(tuple(m._pop(1))),
    "TUPLE2": lambda m, _: m._push(tuple(m._pop(2))),
    "TUPLE3": lambda m, _: m._push(tuple(m._pop(3))),
    "TUPLE": lambda m, _: m._push(tuple(m._pop_mark())),
    "LIST": lambda m, _: m._push(m._pop_mark()),
    "DICT": InertUnpickler._dict,
    "FROZENSET": InertUnpickler._frozenset,
    "MARK": InertUnpickler._mark,
    "POP": lambda m, _: m._pop(1),
    "POP_MARK": lambda m, _: m._pop_mark(),
    "DUP": lambda m, _: m._push(m._stack[-1]),
    "APPEND": InertUnpickler._append,
    "APPENDS": InertUnpickler._appends,
    "SETITEM": InertUnpickler._setitem,
    "SETITEMS": InertUnpickler._setitems,
    "ADDITEMS": InertUnpickler._additems,
    "PUT": InertUnpickler._put,
    "BINPUT": InertUnpickler._put,
    "LONG_BINPUT": InertUnpickler._put,
    "MEMOIZE": lambda m, _: m._put(len(m._memo)),
    "GET": lambda m, index: m._push(m._memo[index]),
    "BINGET": lambda m, index: m._push(m._memo[index]),
    "LONG_BINGET": lambda m, index: m._push(m._memo[index]),
    "GLOBAL": InertUnpickler._global,
    "STACK_GLOBAL": InertUnpickler._stack_global,
    "REDUCE": InertUnpickler._reduce,
    "NEWOBJ": InertUnpickler._reduce,
    "NEWOBJ_EX": InertUnpickler._newobj_ex,
    "OBJ": InertUnpickler._obj,
    "INST": InertUnpickler._inst,
    "BUILD": InertUnpickler._build,
    "PERSID": lambda m, pid: m._push(m.persistent(pid)),
    "BINPERSID": lambda m, _: m._push(m.persistent(*m._pop(1))),
}
