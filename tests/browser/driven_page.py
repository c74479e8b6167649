"""What tests do with a page in Chromium: its window, its theme, its file fields."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kindsight.export.web.chromium import Chromium


@contextmanager
def opened_chromium(browser: str) -> Iterator[Chromium]:
    """Open a browser that reaches this machine's addresses and has a webcam."""
    opened = Chromium(
        browser, "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        network=True,
    )  # fmt: skip
    try:
        yield opened
    finally:
        opened.close()


def view(
    chromium: Chromium, width: int, dark: bool = False, height: int = 900, still: bool = False
) -> None:
    """Set the size of the window and the theme; `still`: without animations."""
    chromium.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
    )  # fmt: skip
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    if still:
        features.append({"name": "prefers-reduced-motion", "value": "reduce"})
    chromium.call("Emulation.setEmulatedMedia", features=features)


def choose_files(chromium: Chromium, selector: str, paths: list[Path]) -> None:
    """Choose files, or a folder, in a file field."""
    root = chromium.call("DOM.getDocument")["root"]["nodeId"]
    node = chromium.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    chromium.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])
