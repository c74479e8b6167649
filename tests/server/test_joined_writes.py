"""Headers and body of a response are sent in one write; nothing is delayed or lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kindsight.server.run import JoiningTransport


class Recorded:
    """A transport that records its calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("close")

    def is_closing(self) -> bool:
        return "close" in self.calls


async def turn() -> None:
    """Let the event loop run its callbacks."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ([b"head", b"body"], [b"headbody"]),
        ([b"head"], [b"head"]),
        ([b"head", b"one", b"two"], [b"headone", b"two"]),
        ([b"head", b""], [b"head"]),
    ],
)
def test_two_writes_of_a_turn_are_one(written: list[bytes], sent: list[bytes]) -> None:
    async def main() -> list[Any]:
        recorded = Recorded()
        transport = JoiningTransport(recorded, asyncio.get_running_loop())
        for data in written:
            transport.write(data)
        await turn()
        return recorded.calls

    assert asyncio.run(main()) == sent


def test_a_later_part_is_not_waited_for_and_a_close_comes_last() -> None:
    async def main() -> list[Any]:
        recorded = Recorded()
        transport = JoiningTransport(recorded, asyncio.get_running_loop())
        transport.write(b"head")
        await turn()
        assert recorded.calls == [b"head"]
        transport.write(b"part")
        transport.close()
        await turn()
        assert transport.is_closing()
        return recorded.calls

    assert asyncio.run(main()) == [b"head", b"part", "close"]
