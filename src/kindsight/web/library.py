"""The JavaScript of pages: kindsight's modules as one script; LiteRT.js, which runs networks.

LiteRT.js is from npm and never in the repository. The build of a wheel puts it into the folder
``vendor/litert``; ``make`` does so in a clone (see ``hatch_build.py``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kindsight.errors import KindsightError

__all__ = ["FOLDER", "SOURCES", "Library", "join_modules", "load_library"]

# Of a path, the last part is the module: names of files are unique.
_IMPORT = re.compile(r'^import \{([^}]*)\} from "(?:\./(?:\w{1,64}/){0,8}(?=\w))?([^"]+)";\n', re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.M)
_EXPORT_LIST = re.compile(r"^export \{([^}]*)\};\n?", re.M)
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*\n?", re.M)


def join_modules(modules: Mapping[str, str], entry: str, *, name: str = "") -> str:
    """Return a script that runs a module after those that it imports, each in its own scope.

    The modules may only import and export names: ``import { a, b } from "./x.js";``,
    ``export function a``, ``export { a };``. A global constant `name` gets the exports of `entry`.

    Parameters
    ----------
    modules : mapping
        Sources by the name of the file, such as ``"resize.js"``, or of the package.
    entry : str
        The module that is run last.
    """
    order: dict[str, str] = {}

    def add(module: str) -> None:
        if module in order:
            return
        source = modules[module]
        for _, imported in _IMPORT.findall(source):
            add(imported)
        order[module] = _scoped(source)

    add(entry)
    names = {module: f"module{number}" for number, module in enumerate(order)}
    parts = ['"use strict";']
    for module, body in order.items():
        linked = re.sub(r"\x00(.*?)\x00", lambda match: names[match[1]], body)
        parts.append(f"const {names[module]} = (() => {{\n{linked}}})();")
    if name:
        parts.append(f"const {name} = {names[entry]};")
    return "\n".join(parts) + "\n"


def _scoped(source: str) -> str:
    """Return a module's body: imports as constants, with NUL around a module's name."""
    exported = _EXPORT.findall(source)
    for names in _EXPORT_LIST.findall(source):
        exported += [each.strip() for each in names.split(",") if each.strip()]
    body = _IMPORT.sub(lambda match: f"const {{{match[1]}}} = \0{match[2]}\0;\n", source)
    body = _SOURCE_MAP.sub("", _EXPORT_LIST.sub("", _EXPORT.sub("", body)))
    return f"{body.rstrip()}\nreturn {{ {', '.join(exported)} }};\n"


SOURCES = Path(__file__).parent
"""The folder of kindsight's JavaScript, with third-party JavaScript in ``vendor``."""

FOLDER = SOURCES / "vendor" / "litert"

_CLONE = Path(__file__).parents[3]


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
        The WebAssembly code for all browsers, without relaxed SIMD, which some lack.
    """

    version: str
    core: str
    utilities: str
    loader: str
    wasm: bytes


def load_library(folder: Path = FOLDER) -> Library:
    """Return LiteRT.js; KindsightError, with the command that fetches it, if it is missing."""
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
            f"The format web needs LiteRT.js, which this installation lacks. Run: {cure}"
        ) from error
