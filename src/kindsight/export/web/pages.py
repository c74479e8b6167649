"""The page that classifies in a browser: as one HTML file, and as a folder for a host.

:mod:`kindsight.server.page` makes the page of a server from the same components.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kindsight.export.target import version_of
from kindsight.export.web.packing import as_text, gzip_sections
from kindsight.report.templating import clean
from kindsight.web.library import SOURCES, Library, join_modules

__all__ = ["fill_page", "join_page", "read_source", "render_file", "render_site"]

_PAGE = SOURCES / "page"

_FIXED_POLICY = "default-src 'none'; img-src blob: data:; base-uri 'none'; form-action 'none'"

LISTED = 12
"""Maximum number of classes that are named at the top of the page."""


def render_file(info: Mapping[str, Any], model: bytes, library: Library, name: str) -> str:
    """Return the page as one HTML file, which needs no server.

    Parameters
    ----------
    info : mapping
        The content of ``model.json``.
    model : bytes
        The LiteRT file, packed by :func:`.packing.pack_model`.
    library : Library
    name : str
        The page's title.
    """
    script, style = join_page("main.js"), read_source("style.css")
    policy = (
        f"{_FIXED_POLICY}; script-src 'sha256-{_digest(script)}' 'wasm-unsafe-eval'; "
        f"style-src 'sha256-{_digest(style)}'; worker-src blob:"
    )
    parts = {
        "worker-code": gzip_sections(_worker_script(library).encode()),
        "wasm-code": gzip_sections(library.wasm),
        "model-file": model,
    }
    data = [_info_block(info)]
    for place, part in parts.items():
        size, text = len(part), as_text(part)
        data.append(f'<script type="text/plain" id="{place}" data-size="{size}">{text}</script>')
    return _fill(
        info, library, name, policy=policy, style=f"<style>{style}</style>",
        data="\n".join(data), script=f"<script>{script}</script>",
    )  # fmt: skip


def render_site(
    info: Mapping[str, Any], model: bytes, library: Library, name: str
) -> dict[str, bytes]:
    """Return the page as files for a static host, by their names; arguments as `render_file`."""
    policy = (
        f"{_FIXED_POLICY}; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
        "worker-src 'self'; connect-src 'self'"
    )
    page = _fill(
        info, library, name, policy=policy, style='<link rel="stylesheet" href="style.css">',
        data=_info_block(info), script='<script src="page.js"></script>',
    )  # fmt: skip
    headers = f"/*\n  Content-Security-Policy: {policy}; frame-ancestors 'none'\n"
    headers += "  X-Content-Type-Options: nosniff\n  Referrer-Policy: no-referrer\n"
    return {
        "index.html": page.encode(),
        "style.css": read_source("style.css").encode(),
        "page.js": join_page("main.js").encode(),
        "worker.js": _worker_script(library).encode(),
        # Compressed here, because not every host does it.
        "litert.bin": gzip_sections(library.wasm),
        "model.bin": model,
        "_headers": headers.encode(),  # read by Netlify and Cloudflare Pages
    }


def fill_page(texts: Mapping[str, str], **parts: str) -> str:
    """Return the page with its texts, which are escaped, and its HTML parts."""
    page = read_source("index.html")
    for key, text in texts.items():
        page = page.replace(f"{{{{{key}}}}}", html.escape(clean(text)))
    # After the texts, because they could contain such a placeholder.
    for key, text in parts.items():
        before, _, after = page.rpartition(f"{{{{{key}}}}}")
        page = before + text + after
    return page


def join_page(entry: str) -> str:
    """Return the script of a page that starts with a module, such as ``main.js``."""
    return _closed(join_modules(_modules(), entry))


def read_source(name: str) -> str:
    """Return a file of the page."""
    return (_PAGE / name).read_text("utf-8")


def _fill(info: Mapping[str, Any], library: Library, name: str, **parts: str) -> str:
    """Return the page of an export with its texts."""
    classes = info["classes"]
    own = version_of("kindsight").get("kindsight", "")
    made = (
        f"Made with kindsight {own} ({info['backbone']}); runs on LiteRT.js "
        f"{library.version}, Apache License 2.0."
    )
    texts = {
        "title": name,
        "lead": f"Classifies images into {len(classes):,} classes: {_listed(classes)}.",
        "privacy": "Images stay on this device: the page does not upload anything.",
        "credits": made,
    }
    return fill_page(texts, **parts)


def _listed(classes: Sequence[str]) -> str:
    shown = list(classes[:LISTED])
    if len(classes) > LISTED:
        return f"{', '.join(shown)} and {len(classes) - LISTED:,} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def _worker_script(library: Library) -> str:
    """Return the script of the worker: LiteRT.js, and the modules that use it."""
    third_party = {"core": library.core, "@litertjs/wasm-utils": library.utilities}
    litert = join_modules(third_party, "core", name="litert")
    own = join_modules(_modules(), "worker.js")
    parts = [library.loader, f"const litert = (() => {{\n{litert}return litert;\n}})();"]
    return "\n".join([*parts, _closed(own)])


def _modules() -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in _PAGE.rglob("*.js")}


def _closed(script: str) -> str:
    return f"(() => {{\n{script}}})();\n"


def _info_block(info: Mapping[str, Any]) -> str:
    text = json.dumps(info).replace("<", "\\u003c")
    return f'<script type="application/json" id="model-info">{text}</script>'


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
