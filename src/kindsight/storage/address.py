"""File names: local paths, and addresses such as ``s3://bucket/photos/cat.jpg``.

An address is text that begins with a scheme of two letters or more and ``://``, which excludes
Windows drives. Nothing is imported or fetched here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from kindsight.encoding import printable

__all__ = [
    "MEMBER", "absolute", "base_name", "common_folder", "is_address", "join", "member_address",
    "parent", "same_path", "scheme_of", "shown", "split_member", "title_of", "undirected",
]  # fmt: skip

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_HTTP = ("http", "https")

MEMBER = ".tar!"
"""Separates the name of a tar file from that of a file in it."""

_MEMBER = re.compile(r"(?s)(.+?\.tar)!(?:(\d{1,18})\+(\d{1,18})!)?(.+)", re.IGNORECASE)
_SECRET = re.compile(r"(?<=://)[^/?#]*@|\?.*", re.DOTALL)
# Of other schemes. Without a colon, the name before @ is a container of Azure.
_PASSWORD = re.compile(r"(?<=://)[^/]*:[^/]*@")


def is_address(name: object) -> bool:
    """Return whether a name is an address rather than a local path."""
    return isinstance(name, str) and _ADDRESS.match(name) is not None


def scheme_of(address: str) -> str:
    """Return the scheme in lower case: ``"s3"``."""
    match = _ADDRESS.match(address)
    return match[1].lower() if match else ""


def _whole(address: str) -> tuple[str, str]:
    """Return a name without the query of a URL, and the query with its question mark."""
    if scheme_of(address) not in _HTTP:
        return address, ""
    end = re.search(r"[?#]", address)
    return (address, "") if end is None else (address[: end.start()], address[end.start() :])


def undirected(name: str) -> str:
    """Return an address without trailing slashes and without the query of a URL."""
    if not is_address(name):
        return name
    whole, _ = _whole(name)
    start = whole.index("://") + 3
    return whole[:start] + whole[start:].rstrip("/")


def base_name(name: str | os.PathLike[str]) -> str:
    """Return the last component of a path or an address."""
    text = os.fspath(name)
    if not is_address(text):
        return os.path.basename(text)  # noqa: PTH119
    return undirected(text).rpartition("/")[2]


def parent(name: str) -> str:
    """Return the folder of a path or an address."""
    if not is_address(name):
        return os.path.dirname(name)  # noqa: PTH120
    whole = undirected(name)
    start = whole.index("://") + 3
    folder = whole[start:].rpartition("/")[0]
    return whole[:start] + (folder or whole[start:])


def join(root: str | os.PathLike[str] | None, path: str) -> str:
    """Join a folder, local or at an address, and a path relative to it.

    ``..`` in a path never leads out of the bucket or the host of an address.
    """
    if root is None or is_address(path):
        return path
    text = os.fspath(root)
    if not is_address(text):
        return os.path.join(text, path)  # noqa: PTH118
    base, _ = _whole(text)
    base = base.rstrip("/")
    if not {".", ".."}.intersection(path.split("/")):
        return f"{base}/{path}"
    start = base.index("://") + 3
    host, *folders = base[start:].split("/")
    for part in path.split("/"):
        if part == "..":
            folders = folders[:-1]
        elif part != ".":
            folders.append(part)
    return base[:start] + "/".join([host, *folders])


def shown(address: str) -> str:
    """Return an address safe to print: without passwords and queries, which may be signatures."""
    secret = _SECRET if scheme_of(address) in _HTTP else _PASSWORD
    return printable(secret.sub("", address))


def split_member(name: str) -> tuple[str, tuple[int, int] | None, str] | None:
    """Return tar file, byte range (offset, size) if stated, and member; None for other names."""
    if MEMBER not in name.lower() or (match := _MEMBER.fullmatch(name)) is None:
        return None
    shard, offset, size, member = match.groups()
    return shard, None if offset is None else (int(offset), int(size)), member


def member_address(shard: str, offset: int, size: int, member: str) -> str:
    """Return the name by which any process reads a member of a tar file, without an index."""
    return f"{shard}!{offset}+{size}!{member}"


def same_path(one: str, other: str) -> bool:
    """Return whether two names are of the same folder or file."""
    if is_address(one) or is_address(other):
        return undirected(one) == undirected(other)
    return Path(one).resolve() == Path(other).resolve()


def title_of(name: str) -> str:
    """Return the last component of a resolved path or of an address, usable in a file name."""
    if not is_address(name):
        return Path(name).resolve().name
    return re.sub(r"[^\w.{}-]+", "-", base_name(name)).strip("-.") or "data"


def absolute(folder: str) -> Path | str:
    """Return the absolute path of a local folder, or an address without its last slash."""
    return undirected(folder) if is_address(folder) else Path(folder).absolute()


def common_folder(folders: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the nearest folder that contains all folders, some of which are addresses.

    Also return each folder's path relative to it; if there is none, None and the folders.
    """
    plain = [undirected(folder).rstrip("/") for folder in folders]
    starts = {folder[: folder.index("://") + 3] if is_address(folder) else "" for folder in plain}
    parts = [folder.partition("://")[2].split("/") for folder in plain]
    common = [level[0] for level in takewhile(_all_equal, zip(*parts, strict=False))]
    if len(starts) > 1 or not common:
        return None, plain
    root = starts.pop() + "/".join(common)
    return root, ["/".join(names[len(common) :]) for names in parts]


def _all_equal(names: Sequence[str]) -> bool:
    return len(set(names)) == 1
