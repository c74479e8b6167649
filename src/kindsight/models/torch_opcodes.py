"""The few pickle opcodes that a PyTorch state dictionary is made of, interpreted without pickle.

A pickle is a program for a small stack machine, and Python's own machine can be made to import
and call anything. This one knows 29 opcodes out of 68, and what they may name or call is in
:mod:`.torch_values`. Its work is linear in the bytes it reads. Nothing that it builds is ever
walked through, compared or printed as a whole, so values that contain themselves, or that double
at every step, do no harm.

The opcodes are described in ``Lib/pickletools.py`` of CPython.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kindsight.errors import WeightsError
from kindsight.models.torch_values import GLOBALS, Storage, Symbol, call, make_storage, refusal

__all__ = ["Machine"]

MAX_STEPS = 1_000_000  # opcodes in one file; EfficientNet-Lite2 takes some 15,000
MAX_STACK = 20_000  # values waiting; Python's writer empties the stack every 1,000 entries
MAX_TEXT = 1_000  # bytes in one name

PROTO, STOP = 0x80, ord(".")


class Machine:
    """Interprets the pickles of one file, one after the other.

    Parameters
    ----------
    data : memoryview
        The whole file, as unsigned bytes.
    position : int
        Where the next pickle starts; :meth:`run` moves it on.
    """

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.data = data
        self.position = position
        self.storages: dict[str, Storage] = {}  # all that were named so far, by key
        self._steps = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []

    def run(self) -> Any:
        """Interpret one pickle, up to its STOP.

        Returns
        -------
        object
            None, bool, int, str, Symbol, Storage or Tensor, or a tuple, a list or a dict (with
            keys of str) of these.

        Raises
        ------
        WeightsError
            For any other opcode or global, and for a pickle that is damaged or too large.
        """
        self._stack, self._marks, self._memo = [], [], []
        start = self.position
        try:
            if bytes(self.take(2)) != bytes([PROTO, 2]):
                raise refusal("something that is not a pickle of protocol 2")
            while (code := self.take(1)[0]) != STOP:
                start = self.position - 1
                self._step(code)
            result = self.pop()
            if self._stack or self._marks:
                raise refusal("a pickle that ends with values left over")
        except WeightsError as error:
            raise WeightsError(f"{error} (At byte {start:,}.)") from None
        return result

    def _step(self, code: int) -> None:
        action = ACTIONS.get(code)
        if action is None:
            raise refusal(f"the pickle opcode {REFUSED.get(code, hex(code))}")
        action(self)
        self._steps += 1
        if self._steps > MAX_STEPS or len(self._stack) + len(self._marks) > MAX_STACK:
            raise refusal(
                f"a pickle of more than {MAX_STEPS:,} opcodes, or {MAX_STACK:,} values at a time"
            )

    def take(self, count: int) -> memoryview:
        """Return the next ``count`` bytes."""
        if count > len(self.data) - self.position:
            raise WeightsError(
                "A weights file must hold all that it announces. Received: "
                f"{len(self.data):,} bytes, where {count:,} were to follow byte "
                f"{self.position:,}; the file is cut off or damaged."
            )
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, size: int, *, signed: bool = False) -> int:
        """Read a little-endian whole number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the last value from the stack, never one under the last mark."""
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise refusal("a pickle that takes a value from an empty stack")
        return self._stack.pop()

    def pop_of(self, kind: type) -> Any:
        """Take the last value, which must be of this very type."""
        value = self.pop()
        if type(value) is not kind:
            raise refusal(f"{type(value).__name__} in the place of {kind.__name__}")
        return value

    def mark(self) -> None:
        """Remember the height of the stack, for the opcode that takes all above it."""
        self._marks.append(len(self._stack))

    def pop_to_mark(self) -> list[Any]:
        """Take all values above the last mark."""
        if not self._marks:
            raise refusal("a pickle that looks for a mark it has not set")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def put(self, index: int) -> None:
        """Remember the last value. Writers number these from zero, without a gap."""
        self.push(value := self.pop())
        if index != len(self._memo):
            raise refusal(f"a memo entry out of order, {index}")
        self._memo.append(value)

    def get(self, index: int) -> None:
        """Put a remembered value on the stack."""
        if index >= len(self._memo):
            raise refusal(f"a memo entry that was never written, {index}")
        self.push(self._memo[index])

    def text(self) -> None:
        """Read a string: its length in bytes, then UTF-8."""
        size = self.number(4)
        if size > MAX_TEXT:
            raise refusal(f"a string of {size:,} bytes (at most {MAX_TEXT:,})")
        self.push(_decoded(bytes(self.take(size))))

    def symbol(self) -> None:
        """Read the name of a global: two lines, the module and the name in it."""
        lines = bytes(self.data[self.position : self.position + MAX_TEXT]).split(b"\n", 2)
        if len(lines) != 3:
            raise refusal("a global without a name")
        self.position += len(lines[0]) + len(lines[1]) + 2
        name = _decoded(b".".join(lines[:2]))
        if name not in GLOBALS:
            raise refusal(f"the global {name[:100]!r}")
        self.push(Symbol(name))

    def persistent(self) -> None:
        """Turn the description of a storage into that storage, the same for the same key."""
        storage = make_storage(self.pop_of(tuple))
        known = self.storages.setdefault(storage.key, storage)
        if (known.kind, known.size) != (storage.kind, storage.size):
            raise refusal(f"two different descriptions of storage {storage.key!r}")
        self.push(known)

    def reduce(self) -> None:
        """Do one of the two calls that a file may ask for."""
        arguments = self.pop_of(tuple)
        self.push(call(self.pop_of(Symbol), arguments))

    def build(self) -> None:
        """Drop the attribute ``_metadata`` that a state dictionary carries; refuse all others."""
        state = self.pop_of(dict)
        self.push(self.pop_of(dict))
        if list(state) != ["_metadata"]:
            raise refusal("the pickle opcode BUILD with more than a dictionary's _metadata")

    def set_items(self, items: list[Any]) -> None:
        """Store keys and values, which alternate, in the dictionary under them."""
        target = self.pop_of(dict)
        if len(items) % 2 or any(type(key) is not str for key in items[::2]):
            raise refusal("a dictionary whose keys are not all strings")
        target.update(zip(items[::2], items[1::2], strict=True))
        self.push(target)

    def extend(self, items: list[Any]) -> None:
        """Add values to the list under them."""
        target = self.pop_of(list)
        target.extend(items)
        self.push(target)

    def tuple_of(self, count: int) -> None:
        """Replace the last ``count`` values by a tuple of them."""
        self.push(tuple([self.pop() for _ in range(count)][::-1]))


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise refusal("a name that is not UTF-8") from None


ACTIONS: dict[int, Callable[[Machine], None]] = {
    ord("("): Machine.mark,
    ord("N"): lambda machine: machine.push(None),
    0x88: lambda machine: machine.push(True),
    0x89: lambda machine: machine.push(False),
    ord("J"): lambda machine: machine.push(machine.number(4, signed=True)),
    ord("K"): lambda machine: machine.push(machine.number(1)),
    ord("M"): lambda machine: machine.push(machine.number(2)),
    ord("X"): Machine.text,
    ord("c"): Machine.symbol,
    ord("Q"): Machine.persistent,
    ord("R"): Machine.reduce,
    ord("b"): Machine.build,
    ord(")"): lambda machine: machine.push(()),
    0x85: lambda machine: machine.tuple_of(1),
    0x86: lambda machine: machine.tuple_of(2),
    0x87: lambda machine: machine.tuple_of(3),
    ord("t"): lambda machine: machine.push(tuple(machine.pop_to_mark())),
    ord("]"): lambda machine: machine.push([]),
    ord("a"): lambda machine: machine.extend([machine.pop()]),
    ord("e"): lambda machine: machine.extend(machine.pop_to_mark()),
    ord("}"): lambda machine: machine.push({}),
    ord("s"): lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1]),
    ord("u"): lambda machine: machine.set_items(machine.pop_to_mark()),
    ord("q"): lambda machine: machine.put(machine.number(1)),
    ord("r"): lambda machine: machine.put(machine.number(4)),
    ord("h"): lambda machine: machine.get(machine.number(1)),
    ord("j"): lambda machine: machine.get(machine.number(4)),
}

# Only so that a refusal can name what it refuses.
REFUSED_CODES = b"012IFLSTUVPGBCiodlgp\x80\x81\x82\x83\x84\x8a\x8b" + bytes(range(0x8C, 0x99))
REFUSED_NAMES = """POP POP_MARK DUP INT FLOAT LONG STRING BINSTRING SHORT_BINSTRING UNICODE PERSID
    BINFLOAT BINBYTES SHORT_BINBYTES INST OBJ DICT LIST GET PUT PROTO NEWOBJ EXT1 EXT2 EXT4 LONG1
    LONG4 SHORT_BINUNICODE BINUNICODE8 BINBYTES8 EMPTY_SET ADDITEMS FROZENSET NEWOBJ_EX
    STACK_GLOBAL MEMOIZE FRAME BYTEARRAY8 NEXT_BUFFER READONLY_BUFFER"""
REFUSED = dict(zip(REFUSED_CODES, REFUSED_NAMES.split(), strict=True))
