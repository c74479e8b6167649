"""Turns what docstrings have of Sphinx, ``:class:`ImageDataset``` and ``::``, into Markdown."""

from __future__ import annotations

import html
import re
from typing import Any

import griffe

_LITERAL = re.compile(r"^(.*\w)?::$", re.M)
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites every docstring; a role's name becomes a link, or code where it has no page."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            text = _ROLE.sub(lambda match: _link(obj, match[1], match[2]), obj.docstring.value)
            obj.docstring.value = _LITERAL.sub(lambda m: f"{m[1]}:" if m[1] else "", text)


def _link(obj: griffe.Object, tilde: str, name: str) -> str:
    shown = name.rpartition(".")[2] if tilde or name.startswith("kindsight.") else name.strip(".")
    return (
        f'<autoref optional identifier="{html.escape(_resolved(obj, name))}">'
        f"<code>{html.escape(shown)}</code></autoref>"
    )


def _resolved(obj: griffe.Object, name: str) -> str:
    if name.startswith("kindsight."):
        return name
    scope: griffe.Object | None = obj
    while scope is not None:
        try:
            return scope.resolve(name)
        except griffe.NameResolutionError:
            scope = scope.parent if isinstance(scope.parent, griffe.Object) else None
    return name
