"""The third-party files of the page, LiteRT.js: from npm, never in the repository.

The build of a wheel puts them into the folder ``vendor/litert``, and ``make`` into that of a clone
(see ``hatch_build.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from kindsight.errors import KindsightError

__all__ = ["FOLDER", "Library", "load_library"]

FOLDER = Path(__file__).parent / "vendor" / "litert"

_CLONE = Path(__file__).parents[4]


@dataclass(frozen=True)
class Library:
    """LiteRT.js.

    Parameters
    ----------
    version : str
    core, utilities : str
        The sources of its modules ``@litertjs/core`` and ``@litertjs/wasm-utils``.
    loader : str
        The script that starts the WebAssembly code.
    wasm : bytes
        The WebAssembly code for all browsers: without relaxed SIMD, which not all have.
    """

    version: str
    core: str
    utilities: str
    loader: str
    wasm: bytes


def load_library(folder: Path = FOLDER) -> Library:
    """Return LiteRT.js; KindsightError with the command that fetches it where it is missing."""
    try:
        return Library(
            str(json.loads((folder / "package.json").read_text("utf-8"))["version"]),
            (folder / "core.js").read_text("utf-8"),
            (folder / "wasm-utils.js").read_text("utf-8"),
            (folder / "loader.js").read_text("utf-8"),
            (folder / "litert.wasm").read_bytes(),
        )
    except (OSError, ValueError, KeyError) as error:
        cure = "pip install --force-reinstall --no-deps kindsight"
        if (_CLONE / "hatch_build.py").is_file():
            cure = f"make -C {_CLONE} web"
        raise KindsightError(
            f"An export to a web page needs LiteRT.js, which this installation lacks. Run: {cure}"
        ) from error
