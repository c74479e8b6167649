"""What the views of a picture are, and by what each is known."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from kindsight.augment import Augment

__all__ = ["ViewPlan"]


@dataclass(frozen=True)
class ViewPlan:
    """What the views of a picture are.

    Parameters
    ----------
    flips : tuple of int
        Which of :data:`kindsight.models.views.FLIPS`, the first being 0, the picture as it is: so
        many views are no more than flipped, the rest are these in turn, augmented.
    policy : Augment
        What is done to those, drawn for each.
    """

    flips: tuple[int, ...]
    policy: Augment

    def flip(self, view: int) -> int:
        """Return how a view is flipped."""
        return self.flips[view % len(self.flips)]

    def is_drawn(self, view: int) -> bool:
        """Whether a view is augmented besides."""
        return view >= len(self.flips) and self.policy.changes_pictures

    def most(self, wanted: int) -> int:
        """Return how many views there are beside the picture as it is, `wanted` at most."""
        return wanted if self.policy.changes_pictures else min(wanted, len(self.flips) - 1)

    def address(self, view: int, seed: int) -> str:
        """Return what a view is known by, whatever picture it is of; empty for view 0."""
        if not view:
            return ""
        drawn = [self.policy.to_dict(), seed, view] if self.is_drawn(view) else []
        told = json.dumps([self.flip(view), *drawn], sort_keys=True)
        return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()
