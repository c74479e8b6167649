"""Augmentation: new views of an image, drawn by a policy."""

from kindsight.augment.apply import augment_images, views
from kindsight.augment.mixing import mix_batch
from kindsight.augment.policy import Augment, parse_augment

__all__ = ["Augment", "augment_images", "mix_batch", "parse_augment", "views"]
