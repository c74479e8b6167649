"""A walked folder as a tree: how many pictures lie where."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from kindsight.catalog.walk import Listing

__all__ = ["Tree", "join"]


@dataclass
class Tree:
    """A walked folder tree, with the number of pictures in and below each folder."""

    listings: list[Listing]
    own: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    empty: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, listings: Iterable[Listing]) -> Tree:
        """Build the tree from a walk, in which parents come before their children."""
        tree = cls(list(listings))
        for folder, files in tree.listings:
            tree.own[folder] = len(files)
        tree.total = dict(tree.own)
        for folder, _ in reversed(tree.listings):  # children before parents: no recursion
            if folder:
                parent, _, name = folder.rpartition("/")
                tree.total[parent] += tree.total[folder]
                kind = tree.children if tree.total[folder] else tree.empty
                kind.setdefault(parent, []).append(name)
        for names in (*tree.children.values(), *tree.empty.values()):
            names.sort()
        return tree

    def pictured(self, folder: str) -> list[str]:
        """Return the names of the folders in this one that hold pictures, at any depth."""
        return self.children.get(folder, [])

    def unwrap(self, folder: str, known: Collection[str]) -> str:
        """Go down through wrappers: single folders without pictures of their own."""
        while len(names := self.pictured(folder)) == 1:
            inner = join(folder, names[0])
            if self.own[inner] or names[0] in known:
                break
            folder = inner
        return folder


def join(folder: str, name: str) -> str:
    """Join two parts of a relative path."""
    return f"{folder}/{name}" if folder else name
