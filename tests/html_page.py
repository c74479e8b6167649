"""An HTML parser for the tests of reports, and a hostile text."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "line", "rect", "circle", "path", "br"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></title></style>{{ 7*7 }}"


class Page(HTMLParser):
    """The parts of a page that the tests check, from an independent parser."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.unbalanced: list[str] = []
        self.rows: list[list[str]] = []
        self.pieces: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if self.open:
            self.pieces.append((self.open[-1], data))
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data.strip()

    def text_of(self, tag: str) -> str:
        return "".join(data for name, data in self.pieces if name == tag)

    @property
    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags]
