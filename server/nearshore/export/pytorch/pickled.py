"""Reads the pickle of a state dict without running any of it.

A pickle is a program for a stack machine, and one of its instructions calls what another one has imported. Here is a
machine of our own for the instructions that torch.save() needs for tensors; pickletools explains each. It imports and
calls nothing: of the few names that it knows it makes descriptions, and what else a pickle wants is refused by name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_KINDS: Final = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""Types of storages in module torch, as safetensors spell them."""
_DICT, _TENSOR = "collections.OrderedDict", "torch._utils._rebuild_tensor_v2"
_KNOWN = {_DICT, _TENSOR, *(f"torch.{name}" for name in _KINDS)}
_LONGEST_NAME = 200  # characters that a message repeats

_IGNORED = {"PROTO", "FRAME"}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PickleError(Exception):
    """The pickle is damaged, or more than tensors by name; the text is a clause that says how."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers of one type, in a record of their own."""

    key: str  # names the record
    kind: str  # as safetensors spell it
    elements: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Which numbers of a storage a tensor has; several may share one."""

    storage: Storage
    offset: int  # in elements, as are the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """Something that a pickle imports."""

    path: str


def read_state_dict(content: bytes) -> Mapping[str, StoredTensor]:
    """The tensors of a pickle by their names; nothing says yet that their storages are there. Raises PickleError."""
    try:
        found = _Machine().run(content)
    except ValueError as error:  # of pickletools, about bytes that are no instructions
        raise PickleError(f"its pickle is damaged ({error})") from error
    if not isinstance(found, dict):
        raise PickleError("it is no state dict")
    for name, value in found.items():
        if not isinstance(value, StoredTensor):
            raise PickleError(f"{name[:_LONGEST_NAME]!r} in it is no tensor: it is no state dict")
    return found


class _Machine:
    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []  # heights of the stack
        self._memo: dict[int, Any] = {}
        self._instructions: Mapping[str, Callable[[Any], None]] = {
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "MARK": lambda _: self._marks.append(len(self._stack)),
            "TUPLE": lambda _: self._stack.append(tuple(self._pop_to_mark())),
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
            "BINGET": self._recall,
            "LONG_BINGET": self._recall,
            "GLOBAL": lambda names: self._import(*names.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self._import(*self._pop_many(2)),
            "BINPERSID": lambda _: self._stack.append(_storage(self._pop())),
            "REDUCE": lambda _: self._stack.append(_describe(*self._pop_many(2))),
            "SETITEM": lambda _: self._set(self._pop_many(2)),
            "SETITEMS": lambda _: self._set(self._pop_to_mark()),
            "BUILD": lambda _: self._leave_attributes(),
        }

    def run(self, content: bytes) -> Any:
        """What the pickle describes."""
        for opcode, argument, _ in pickletools.genops(content):
            name = opcode.name
            if name == "STOP":
                return self._pop()
            if name in _LITERALS:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _TUPLES:
                self._stack.append(tuple(self._pop_many(_TUPLES[name])))
            elif name in self._instructions:
                self._instructions[name](argument)
            elif name not in _IGNORED:
                raise PickleError(f"its pickle has the instruction {name}, which no state dict needs")
        raise PickleError("its pickle is cut off")

    def _pop(self) -> Any:
        return self._pop_many(1)[0]

    def _pop_many(self, count: int) -> list[Any]:
        return self._cut(len(self._stack) - count)

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise PickleError("its pickle is damaged (a mark is missing)")
        return self._cut(self._marks.pop())

    def _cut(self, height: int) -> list[Any]:
        """All above a height of the stack, which must be above the last mark."""
        if not max([0, *self._marks[-1:]]) <= height <= len(self._stack):
            raise PickleError("its pickle is damaged (the stack is too short)")
        popped = self._stack[height:]
        del self._stack[height:]
        return popped

    def _top(self) -> Any:
        top = self._pop()
        self._stack.append(top)
        return top

    def _remember(self, number: int) -> None:
        self._memo[number] = self._top()

    def _recall(self, number: int) -> None:
        if number not in self._memo:
            raise PickleError("its pickle is damaged (it recalls what it never made)")
        self._stack.append(self._memo[number])

    def _import(self, module: object, name: object = "") -> None:
        path = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "something without a name"
        if path not in _KNOWN:
            raise PickleError(f"its pickle wants to use {path[:_LONGEST_NAME]}, which is no part of a tensor")
        self._stack.append(_Name(path))

    def _set(self, items: list[Any]) -> None:
        target, keys = self._top(), items[::2]
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, str) for key in keys):
            raise PickleError("its pickle has something else than a dict by names")
        target.update(zip(keys, items[1::2], strict=True))

    def _leave_attributes(self) -> None:
        """A state dict has an attribute with versions of modules, which nobody needs here."""
        self._pop()
        if not isinstance(self._top(), dict):
            raise PickleError("its pickle gives attributes to something else than a dict")


def _describe(function: object, arguments: object) -> object:
    """What a call would make."""
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise PickleError("its pickle calls what is no function")
    if function.path == _DICT and not arguments:
        return {}
    if function.path == _TENSOR and len(arguments) >= 4:
        storage, offset, shape, strides = arguments[:4]
        sizes = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
        if isinstance(storage, Storage) and sizes and all(map(_is_size, (offset, *shape, *strides))):
            return StoredTensor(storage, offset, shape, strides)
    raise PickleError(f"its pickle calls {function.path} with something that torch.save() does not write")


def _storage(identity: object) -> Storage:
    """Of what torch.save() writes in place of a storage: "storage", type, key, device, number of elements."""
    if isinstance(identity, tuple) and len(identity) == 5 and identity[0] == "storage":
        _, kind, key, _, elements = identity
        name = kind.path.removeprefix("torch.") if isinstance(kind, _Name) else ""
        if name in _KINDS and isinstance(key, str) and _is_size(elements):
            return Storage(key, _KINDS[name], elements)
    raise PickleError("its pickle refers to something that is no storage")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value >= 0
