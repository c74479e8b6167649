"""Formats of image files: detection, checks before decoding, and what Pillow does not read."""
