"""Augmentation: random changes of images in training, sampled from a policy."""

from kindsight.augment.apply import augment_images, augmented_copies, mix_batch
from kindsight.augment.policy import Augment, parse_augment

__all__ = ["Augment", "augment_images", "augmented_copies", "mix_batch", "parse_augment"]
