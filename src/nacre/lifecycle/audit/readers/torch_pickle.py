"""The pickle of a PyTorch checkpoint, read as a list of instructions that never runs anything.

Python's pickle can import and call whatever a file names. Here a small machine of its own follows the instructions that
a state dictionary needs; what it meets is only ever plain values and descriptions of tensors. Names outside the few
below, and all other instructions, are refused. Instructions are documented in Python's `pickletools`.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from nacre.lifecycle.audit.readers.files import damaged, shown
from nacre.lifecycle.audit.said import say

MOST_INSTRUCTIONS = 4_000_000
CONVERT = "save it again as safetensors on a machine that trusts it"

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "UntypedStorage": "U8",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """Bytes that tensors share: `key` names them in the file, `n_values` are of `dtype`."""

    key: str
    dtype: str
    n_values: int


@dataclass(frozen=True)
class Stored:
    """A tensor as the pickle describes it; `offset` and `strides` count values of `dtype`."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A name that the pickle mentions. It is never looked up."""

    module: str
    name: str


class _Mark:
    pass


_MARK = _Mark()


class _Refused(Exception):
    """Something that no state dictionary has; the message says what."""


def load(stream: BytesIO, path: Path) -> Any:
    """The next pickled value of `stream`: plain values, `Stored` for tensors. Raises CheckpointError."""
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MOST_INSTRUCTIONS:
                raise _Refused(say("it has more than {n:,} instructions", n=MOST_INSTRUCTIONS))
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except _Refused as error:
        raise damaged(path, say("was not opened: {reason}", reason=error.args[0]), CONVERT) from error
    except (ValueError, IndexError, KeyError, TypeError, struct.error, EOFError, OverflowError) as error:
        raise damaged(path, say("its pickle is damaged: {why}", why=shown(str(error)))) from error
    raise damaged(path, "its pickle ends before its end")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME"):
            raise _Refused(say("it holds the instruction {opcode}, which no table of tensors needs", opcode=opcode))

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing")
        return value

    def pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def put(self, index: Any) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def global_name(self, argument: Any) -> None:
        if argument is None:  # STACK_GLOBAL takes both names from the stack
            name, module = self.pop(), self.pop()
        else:
            module, name = str(argument).split(" ", 1)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        if not _is_known(module, name):
            raise _Refused(say("it names {name}, code that was not run", name=shown(f"{module}.{name}")))
        self.stack.append(_Name(module, name))

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is no function")
        self.stack.append(_called(function, arguments))

    def set_items(self, items: list[Any]) -> None:
        table = self.stack[-1]
        if not isinstance(table, dict) or len(items) % 2:
            raise ValueError("items of something that is no table")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | None):
                raise _Refused("it holds a table whose keys are no plain values")
            table[key] = value

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("items of something that is no list")
        self.stack[-1].extend(items)

    def persistent(self, _: Any) -> None:
        match self.pop():
            case ("storage", _Name("torch" | "torch.storage", kind), str(key), _, int(n_values), *rest):
                if kind not in _STORAGES or n_values < 0 or any(one is not None for one in rest):
                    raise _Refused(say("it holds a storage of the kind {kind}", kind=shown(str(kind))))
                self.stack.append(Storage(key, _STORAGES[kind], n_values))
            case _:
                raise ValueError("a reference to something that is no storage")


_VALUES = frozenset(
    {
        "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
        "SHORT_BINBYTES", "BINBYTES", "SHORT_BINSTRING",
    }
)  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_DICT": dict, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple, "MARK": lambda: _MARK,
}  # fmt: skip
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.global_name,
    "REDUCE": _Machine.reduce,
    "BINPERSID": _Machine.persistent,
    "BUILD": lambda machine, _: (machine.pop(), None)[1],  # attributes of a table: a state dictionary's `_metadata`
}


def _is_known(module: str, name: str) -> bool:
    if module == "torch._utils":
        return name in _REBUILT
    if module in ("torch", "torch.storage"):
        return name in _STORAGES or name in _DTYPES or name in ("Size", "Tensor", "device")
    return (module, name) in _OTHERS


def _called(function: _Name, arguments: tuple[Any, ...]) -> Any:
    match (function.name, arguments):
        case ("OrderedDict", ()):
            return {}
        case ("Size", (tuple() | list() as sizes,)):
            return tuple(sizes)
        case ("device", _):
            return None
        case ("_rebuild_tensor" | "_rebuild_tensor_v2", (Storage() as storage, offset, shape, strides, *_)):
            return _stored(storage, storage.dtype, offset, shape, strides)
        case ("_rebuild_tensor_v3", (Storage() as storage, offset, shape, strides, _, _, _Name("torch", dtype), *_)):
            return _stored(storage, _DTYPES[dtype], offset, shape, strides)
        case ("_rebuild_parameter" | "_rebuild_parameter_with_state", (Stored() as tensor, *_)):
            return tensor
        case ("_rebuild_from_type_v2", (_Name() as inner, _Name(), tuple() as inner_arguments, _)):
            if inner.name not in _REBUILT:
                raise _Refused(say("it rebuilds a tensor with {name}", name=shown(inner.name)))
            return _called(inner, inner_arguments)
    called = shown(f"{function.module}.{function.name}")
    raise _Refused(say("it calls {name} in a way that no table of tensors needs", name=called))


_REBUILT = (
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
    "_rebuild_parameter_with_state",
)  # fmt: skip
_OTHERS = frozenset(
    {
        ("collections", "OrderedDict"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch.nn.parameter", "Parameter"),
    }
)


def _stored(storage: Storage, dtype: str, offset: Any, shape: Any, strides: Any) -> Stored:
    numbers = [offset, *shape, *strides]
    if len(shape) != len(strides) or not all(type(one) is int and 0 <= one < 1 << 62 for one in numbers):
        raise ValueError("a tensor of impossible shape")
    return Stored(storage, dtype, offset, tuple(shape), tuple(strides))


def state_dict(value: Any, path: Path, notes: list[str]) -> dict[str, Stored]:
    """The named tensors of a loaded checkpoint, from its usual places. Raises CheckpointError where there are none."""
    for keys in ((), ("state_dict",), ("model_state_dict",), ("model",), ("module",), ("model", "state_dict")):
        inner = value
        for key in keys:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            continue
        found = {name: item for name, item in inner.items() if isinstance(name, str) and isinstance(item, Stored)}
        if found:
            others = len(inner) - len(found)
            if others:
                what = say("{n} entries beside the tensors were passed over", n=others)
                notes.append(say("{where}: {reason}", where=shown(path.name), reason=what))
            return found
    raise damaged(path, "holds no named tensors", "save a state_dict")
