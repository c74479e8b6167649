"""Augmentation: new views of a picture, drawn by a policy."""

from kindsight.augment.apply import augment_pictures, views
from kindsight.augment.mixing import mix_batch
from kindsight.augment.policy import Augment, parse_augment

__all__ = ["Augment", "augment_pictures", "mix_batch", "parse_augment", "views"]
