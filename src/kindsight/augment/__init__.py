"""Augmentation: new views of a picture, drawn by a policy."""

from kindsight.augment.policy import Augment, parse_augment

__all__ = ["Augment", "parse_augment"]
