"""Headless Chromium, driven over a pipe by the DevTools protocol, for verifying exported pages."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from kindsight.errors import KindsightError

__all__ = ["BROWSERS", "Chromium", "find_browser"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""The commands of Chromium and Chrome; the first one that exists is used."""

_OPTIONS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--disable-extensions", "--hide-scrollbars", "--mute-audio", "--remote-debugging-pipe",
)  # fmt: skip

_FROM_BROWSER, _TO_BROWSER = 4, 3  # the descriptors of the protocol


def find_browser() -> str | None:
    """Return the path of Chromium or Chrome; None if there is none that can be driven."""
    if os.name != "posix":  # the pipe would have to be passed in another way
        return None
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Chromium:
    """One headless browser with one page, in a new profile; it cannot reach the network.

    Parameters
    ----------
    browser : str
        Path of Chromium.
    options : str
        Further options of its command line.
    network : bool
        Whether servers on this machine can be reached.
    seconds : float
        Maximum wait for a response, in seconds.

    Raises
    ------
    KindsightError
        If it does not start; in every method, if it does not respond.
    """

    def __init__(
        self, browser: str, *options: str, network: bool = False, seconds: float = 120.0
    ) -> None:
        self.seconds = seconds
        self.messages: list[str] = []  # what the page wrote to its console, and refused scripts
        self._profile = tempfile.mkdtemp(prefix="kindsight-chromium-")
        self._buffer, self._count, self._session = b"", 0, ""
        command = [browser, *_OPTIONS, f"--user-data-dir={self._profile}", *options]
        if os.geteuid() == 0:  # Chromium's sandbox refuses to run as root
            command.append("--no-sandbox")
        if not network:
            command.append("--proxy-server=127.0.0.1:9")
        self._process, self._read, self._write = _start(command)
        try:
            target = self._send("Target.createTarget", {"url": "about:blank"})["targetId"]
            attached = self._send("Target.attachToTarget", {"targetId": target, "flatten": True})
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "DOM"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol on the page and return its result."""
        return self._send(method, parameters)

    def open(self, address: str) -> None:
        """Load a page; its scripts may still run afterwards."""
        loaded = self.call("Page.navigate", url=address)
        if error := loaded.get("errorText"):
            raise KindsightError(f"Chromium could not load {address[:200]}: {error}.")
        self.evaluate(
            "new Promise((done) => document.readyState === 'complete' ? done(0) "
            ": addEventListener('load', () => done(0)))"
        )

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited if it is a promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            text = details.get("exception", {}).get("description", details.get("text", ""))
            raise KindsightError(f"A script failed in Chromium: {str(text)[:500]}")
        return result["result"].get("value")

    def close(self) -> None:
        """End the browser and delete its profile."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _send(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self._write, data) :]
        except OSError as error:
            raise KindsightError("Chromium ended early.") from error
        end = time.monotonic() + self.seconds
        while True:
            answer = self._receive(end, method)
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise KindsightError(f"Chromium rejected {method}: {answer['error']}.")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _receive(self, end: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]:
                raise KindsightError(
                    f"Chromium did not respond to {method} within {self.seconds:g} seconds."
                )
            data = os.read(self._read, 1 << 20)
            if not data:
                raise KindsightError("Chromium ended early.")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.consoleAPICalled":
            texts = [str(each.get("value", "")) for each in parameters["args"]]
            self.messages.append(f"{parameters['type']}: {' '.join(texts)}")
        elif event.get("method") == "Log.entryAdded":
            entry = parameters["entry"]
            self.messages.append(f"{entry['level']}: {entry['text']}")
        elif event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            text = details.get("exception", {}).get("description", details.get("text"))
            self.messages.append(f"exception: {text}")


def _start(command: list[str]) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start a browser; return its process and the pipe's ends to read and to write."""
    browser_reads, write = os.pipe()
    read, browser_writes = os.pipe()
    # A shell assigns the ends to the protocol's descriptors, which may be in use in this process.
    script = f'exec "$@" {_TO_BROWSER}<&{browser_reads} {_FROM_BROWSER}>&{browser_writes}'
    try:
        process = subprocess.Popen(
            ["/bin/bash", "-c", script, "chromium", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(browser_reads, browser_writes),
        )  # fmt: skip
    except OSError as error:
        os.close(write)
        os.close(read)
        raise KindsightError(f"Chromium could not be started: {error.strerror}.") from error
    finally:
        os.close(browser_reads)
        os.close(browser_writes)
    return process, read, write


def as_address(path: Path) -> str:
    """Return the file:// URL of a path."""
    return path.absolute().as_uri()
