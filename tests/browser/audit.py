"""Audit a page with axe in headless Chromium.

Chromium runs a copy of the page without its content security policy, with axe and a script that
writes the violations into the page; nothing is loaded from the network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_RUN = """
axe.run(document, {resultTypes: ["violations"]}).then((result) => {
  const found = result.violations.map((rule) => rule.id + ": " + rule.help + " at "
    + rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | "));
  const pre = document.createElement("pre");
  pre.id = "axe-violations";
  pre.textContent = JSON.stringify({found, width: document.documentElement.scrollWidth,
    passed: result.passes.length});
  document.body.append(pre);
});
"""


def browser() -> str:
    """Return the path of Chromium; skip the test if it or axe is missing, unless CI needs both."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    missing = [
        *([] if found else ["Chromium (apt-get install chromium)"]),
        *([] if AXE.is_file() else ["axe (npm ci --prefix tests/browser)"]),
    ]
    if missing and os.environ.get("KINDSIGHT_NEEDS_BROWSER"):
        pytest.fail(f"The audit of pages needs {' and '.join(missing)}.")
    if missing:
        pytest.skip(f"The audit of pages needs {' and '.join(missing)}.")
    assert found is not None
    return found


def run_browser(path: Path, *options: str) -> str:
    """Return what headless Chromium prints for a page of the disk; it cannot reach the network."""
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
        f"--user-data-dir={path.parent / 'profile'}", "--proxy-server=127.0.0.1:9", *options,
    ]  # fmt: skip
    address, _, fragment = str(path).partition("#")
    target = Path(address).as_uri() + (f"#{fragment}" if fragment else "")
    done = subprocess.run(
        [*command, target], capture_output=True, encoding="utf-8", timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def audit(
    page: str, folder: Path, *, width: int = 1280, dark: bool = False, at: str = ""
) -> dict[str, Any]:
    """Return the violations that axe finds (``found``), and the page's ``width`` in pixels.

    - `page`: HTML.
    - `at`: fragment of the address, without ``#``.
    """
    browser()  # skips where axe is missing, before it is read
    copy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page, count=1)
    scripts = f"<script>{AXE.read_text('utf-8')}</script><script>{_RUN}</script></body>"
    path = folder / "page.html"
    path.write_text(copy.replace("</body>", scripts, 1), "utf-8")
    printed = run_browser(
        Path(f"{path}#{at}") if at else path,
        f"--window-size={width},1600",
        "--virtual-time-budget=30000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--dump-dom",
    )
    match = re.search(r'<pre id="axe-violations">(.*?)</pre>', printed, flags=re.S)
    assert match is not None, "axe did not finish"
    return json.loads(unescape(match[1]))


_FRAME = """<!doctype html><html><body style="margin:0">
<iframe src="page.html{at}" width="{width}" height="1600" style="border:0"></iframe><script>
addEventListener("load", () => setTimeout(() => {{
  const document_ = document.querySelector("iframe").contentDocument;
  const pre = document.createElement("pre");
  pre.id = "value";
  try {{
    pre.textContent = JSON.stringify(new Function("document", "return " + {code})(document_));
  }} catch (error) {{
    pre.textContent = JSON.stringify(String(error));
  }}
  document.body.append(pre);
}}, 500));
</script></body></html>"""


def evaluate_in_page(
    page: str, folder: Path, expression: str, *, width: int = 1280, at: str = ""
) -> Any:
    """Return the value of a JavaScript expression on a page's ``document``, policy and all.

    The page is in a frame of this width, which may be narrower than Chromium's least window.
    """
    (folder / "page.html").write_text(page, "utf-8")
    frame = folder / "frame.html"
    fragment = f"#{at}" if at else ""
    frame.write_text(_FRAME.format(at=fragment, width=width, code=json.dumps(expression)), "utf-8")
    printed = run_browser(
        frame, "--allow-file-access-from-files", "--virtual-time-budget=10000", "--dump-dom"
    )
    match = re.search(r'<pre id="value">(.*?)</pre>', printed, flags=re.S)
    assert match is not None, "the page did not load"
    return json.loads(unescape(match[1]))
