"""Connections: joined writes of a response, and the limit of headers of pipelined requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from kindsight.server.run import HEAD_BYTES, JoiningTransport, _Protocol


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


def test_the_end_of_a_large_body_is_not_counted_as_headers_of_the_next_request() -> None:
    sent: list[bytes] = []

    class Connected(Recorded):
        def write(self, data: bytes) -> None:
            sent.append(data)

        def get_extra_info(self, name: str) -> None:
            return None

        def pause_reading(self) -> None:
            pass

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        config = uvicorn.Config(application, lifespan="off", log_config=None)
        config.load()
        protocol = _Protocol(config, ServerState(), {})
        protocol.connection_made(Connected())
        body = bytes(HEAD_BYTES + 1)
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        protocol.data_received(head + body + head[:20])
        protocol.data_received(head[20:-4])
        await turn()
        assert sent == []
        protocol.data_received(bytes(HEAD_BYTES))
        await turn()
        assert sent and sent[0].startswith(b"HTTP/1.1 4")
        for task in protocol.tasks:
            task.cancel()
        protocol.connection_lost(None)

    asyncio.run(main())
