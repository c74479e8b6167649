"""Joining of JavaScript modules into one script, as a page without a server needs it."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["join_modules"]

# Of a path, the last part is the module: names of files are unique.
_IMPORT = re.compile(r'^import \{([^}]*)\} from "(?:\./(?:\w{1,64}/){0,8}(?=\w))?([^"]+)";\n', re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.M)
_EXPORT_LIST = re.compile(r"^export \{([^}]*)\};\n?", re.M)
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*\n?", re.M)


def join_modules(modules: Mapping[str, str], entry: str, *, name: str = "") -> str:
    """Return a script that runs a module after those that it imports, each in its own scope.

    The modules may only have imports and exports of names: ``import { a, b } from "./x.js";``,
    ``export function a``, ``export { a };``. A global constant `name` gets the exports of `entry`.

    Parameters
    ----------
    modules : mapping
        Sources by the name of the file, ``"resize.js"``, or of the package.
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
