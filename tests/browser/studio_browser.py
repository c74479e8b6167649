"""A studio's server, and its page in Chromium as a person uses it: clicks, keys, files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from driven_page import choose_files, view

from kindsight.export.web.chromium import Chromium

_KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "End": 35, "Home": 36}
_KEYS |= {"Enter": 13, "Escape": 27, " ": 32}
CONTROL, SHIFT = 2, 8

_WITH_STORE = "(() => { const { store } = window.kindsight ?? {}; return %s; })()"
_FIND = """[...document.querySelectorAll('button, a, summary, label')].find((each) =>
  !each.closest('nav') && !each.disabled && each.checkVisibility()
  && each.textContent.trim().startsWith(%s))"""


class StudioServer:
    """A process of ``kindsight studio``, which can be killed and started again on its port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self._options = folder, options
        self._port, self.address = 0, ""
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        command = [
            sys.executable, "-m", "kindsight", "studio", self.folder.name, "--no-browser",
            "--port", str(self._port), *self._options,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, cwd=self.folder.parent, stdout=subprocess.PIPE, encoding="utf-8",
            env={**os.environ, "PYTHONUNBUFFERED": "1"}, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = next((line for line in self._process.stdout if "http" in line), "")
        assert line, "the studio did not start"
        self.address = line[line.index("http") :].strip()
        self._port = int(self.address.split(":")[2].split("/")[0])

    def kill(self) -> None:
        """Kill the server's process alone, as if the machine had killed it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the server and all that it started."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class StudioPage:
    """The studio in a browser."""

    def __init__(self, chromium: Chromium, address: str, width: int = 1280) -> None:
        self.chromium = chromium
        self.view(width)
        chromium.open(address)
        self.wait(
            "window.kindsight?.store.images != null && document.querySelector('main') !== null"
        )

    def view(self, width: int, *, dark: bool = False, height: int = 800) -> None:
        view(self.chromium, width, dark, height)

    def get(self, expression: str) -> Any:
        """Return the value of an expression; `store` is the page's state."""
        return self.chromium.evaluate(
            f"(() => {{ const {{ store }} = kindsight; return {expression}; }})()"
        )

    def wait(self, expression: str, seconds: float = 120.0) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.chromium.evaluate(_WITH_STORE % expression)
            if found:
                return found
            time.sleep(0.05)
        text = self.chromium.evaluate("document.body.innerText")
        raise AssertionError(
            f"Not true in {seconds:g} s: {expression}\n{text[:3000]}\n{self.chromium.messages}"
        )

    def go(self, view: str) -> None:
        """Open a step."""
        self.chromium.evaluate(f"document.querySelector('nav a[href=\"#{view}\"]').click()")
        self.wait(f"document.querySelector('main.view-{view}') !== null")

    def click(self, text: str) -> None:
        """Click what begins with a text, when it is there."""
        found = _FIND % json.dumps(text)
        self.wait(f"{found} !== undefined")
        self.chromium.evaluate(f"{found}.click()")

    def point(self, selector: str, modifiers: int = 0) -> None:
        """Click the middle of an element with the mouse."""
        x, y = self.middle(selector)
        self.mouse("mousePressed", x, y, modifiers)
        self.mouse("mouseReleased", x, y, modifiers)

    def mouse(self, kind: str, x: float, y: float, modifiers: int = 0) -> None:
        self.chromium.call(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", modifiers=modifiers,
            clickCount=1, buttons=1,
        )  # fmt: skip

    def middle(self, selector: str) -> tuple[float, float]:
        """Return where the middle of an element is in the window."""
        box = self.wait(
            f"((box) => box && [box.x + box.width / 2, box.y + box.height / 2])"
            f"(document.querySelector({json.dumps(selector)})?.getBoundingClientRect())"
        )
        return box[0], box[1]

    def key(self, name: str, modifiers: int = 0) -> None:
        """Press a key."""
        code = _KEYS.get(name) or ord(name.upper())
        text = {"text": name} if len(name) == 1 and not modifiers else {}
        for kind in ("keyDown", "keyUp"):
            self.chromium.call(
                "Input.dispatchKeyEvent", type=kind, key=name, modifiers=modifiers,
                windowsVirtualKeyCode=code, **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def type(self, selector: str, text: str) -> None:
        self.chromium.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self.chromium.call("Input.insertText", text=text)

    def choose(self, selector: str, *paths: Path) -> None:
        """Choose files, or a folder, in a file field."""
        choose_files(self.chromium, selector, list(paths))

    def labels(self) -> dict[str, str | None]:
        """Return the label of each image by its name."""
        return self.get(
            "Object.fromEntries(store.images.names.map((name, row) => "
            "[name, store.images.classes[store.images.labels[row]] ?? null]))"
        )

    def settle(self) -> None:
        """Wait until all changes are sent and the page shows what the server has."""
        self.wait("store.waiting === 0 && store.images.revision === store.project.revision")
