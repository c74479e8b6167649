"""Checks of files: what is there, and whether it can be read."""

from kindsight.catalog.checks.contract import Check
from kindsight.catalog.checks.files.unreadable import UnreadablePictures

CHECKS: tuple[type[Check], ...] = (UnreadablePictures,)
