"""Draw apples, pears and lemons on a table for the examples of checks."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["LABELS", "fruit", "lettering", "mask"]

LABELS = ("apple", "pear", "lemon")

Image = np.ndarray

_SKIN = {"apple": (196, 40, 44), "pear": (150, 172, 62), "lemon": (240, 202, 44)}
_FINE = 2
"""Factor by which images are drawn larger and then reduced."""


def fruit(label: str, seed: int, height: int = 150, width: int = 200) -> Image:
    """Draw one to three fruits on a table in front of a wall.

    Parameters
    ----------
    label : str
        One of :data:`LABELS`.
    seed : int
        Seed of positions, colours, table and wall.
    height, width : int
        Pixels.

    Returns
    -------
    uint8 array (height, width, 3)
        RGB.
    """
    return _draw(label, seed, height, width)[0]


def mask(label: str, seed: int, height: int = 150, width: int = 200) -> Image:
    """Return the mask of an image: fruits white, background black."""
    inside = _draw(label, seed, height, width)[1] > 0.5
    return np.repeat((255 * inside).astype(np.uint8)[..., None], 3, axis=2)


def _draw(label: str, seed: int, height: int, width: int) -> tuple[Image, Image]:
    """Return the image and the fraction of each pixel that is fruit."""
    random = np.random.default_rng([LABELS.index(label), seed])
    high, wide = height * _FINE, width * _FINE
    y, x = np.mgrid[0:high, 0:wide].astype(np.float32)
    image, covered = _draw_room(random, y / high, x / wide), np.zeros_like(y)
    for number in range(int(random.integers(1, 4))):
        radius = float(random.uniform(0.15, 0.26)) * high
        left = float(random.uniform(0.2, 0.8)) * wide
        top = float(random.uniform(0.45, 0.62) + 0.08 * number) * high
        inside = _draw_fruit(image, label, random, (top, left, radius), (y, x))
        covered = np.maximum(covered, inside)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    small += random.normal(0, 2, small.shape)
    share = cv2.resize(covered, (width, height), interpolation=cv2.INTER_AREA)
    return small.clip(0, 255).round().astype(np.uint8), share


def _draw_room(random: np.random.Generator, down: Image, across: Image) -> Image:
    """Return a lit wall and a table with a checked or striped cloth."""
    wall, cloth = random.uniform(120, 225, 3), random.uniform(70, 220, 3)
    other = cloth + random.uniform(25, 60) * random.choice([-1, 1])
    light = 1.1 - 0.5 * np.hypot(across - random.uniform(0, 1), down - random.uniform(0, 0.3))
    image = wall * light[..., None]
    edge = random.uniform(0.42, 0.6)
    depth = 1 / (down - edge + 0.25)  # perspective of the stripes
    slant = random.uniform(-0.6, 0.6)
    stripes = np.sin(2 * np.pi * random.uniform(3, 7) * (across - 0.5 + slant * down) * depth / 2)
    if random.random() < 0.6:
        stripes = stripes * np.sin(2 * np.pi * random.uniform(4, 8) * depth)
    table = np.where((stripes > 0)[..., None], cloth, other) * (0.7 + 0.5 * down[..., None])
    return np.where((down > edge)[..., None], table, image).astype(np.float32)


def _draw_fruit(
    image: Image,
    label: str,
    random: np.random.Generator,
    where: tuple[float, float, float],
    grid: tuple[Image, Image],
) -> Image:
    """Draw a fruit with shadow and stalk into the image; return its mask, 0 to 1."""
    (top, left, radius), (y, x) = where, grid
    down, across = (y - top) / radius, (x - left) / radius
    shadow = np.exp(-((across - 0.35) ** 2) / 0.9 - ((down - 0.95) / 0.28) ** 2)
    image *= (1 - 0.55 * shadow)[..., None]
    inside = np.clip((_depth(label, random, down, across)) * radius / _FINE + 0.5, 0, 1)
    skin = np.array(_SKIN[label]) + random.uniform(-22, 22, 3)
    lit = 1.12 - 0.42 * np.hypot(down + 0.35, across + 0.35)
    shine = np.exp(-((down + 0.42) ** 2 + (across + 0.38) ** 2) / 0.03)
    colour = skin * lit[..., None] + 120 * shine[..., None]
    freckles = cv2.GaussianBlur(random.normal(0, 1, y.shape).astype(np.float32), (0, 0), 2)
    image += (colour + 40 * freckles[..., None] - image) * inside[..., None]
    if label != "lemon":
        height = 0.95 if label == "apple" else 1.5
        ends = [(left, top - height * radius * length) for length in (0.85, 1.15)]
        first, second = ((round(x), round(y)) for x, y in ends)
        tip = (second[0] + round(radius * random.uniform(-0.2, 0.2)), second[1])
        cv2.line(image, first, tip, (70.0, 48.0, 24.0), max(2, round(radius / 12)), cv2.LINE_AA)
    return inside


def _depth(label: str, random: np.random.Generator, down: Image, across: Image) -> Image:
    """Return the distance of each pixel inside the outline in radii, negative outside."""
    if label == "lemon":
        angle = random.uniform(-0.5, 0.5)
        long = np.cos(angle) * across + np.sin(angle) * down
        wide = np.cos(angle) * down - np.sin(angle) * across
        tips = 0.2 * np.exp(-((np.abs(long) - 1.15) ** 2) / 0.03 - wide**2 / 0.02)
        return (0.86 + tips - np.hypot(long * 0.74, wide)).astype(np.float32)
    around = np.arctan2(np.abs(across), -down)  # 0 at the top
    bulge = -0.16 * np.exp(-((around / 0.4) ** 2)) if label == "apple" else 0
    neck = 0.5 * np.exp(-((around / 0.5) ** 2)) if label == "pear" else 0
    return (0.95 + bulge + neck - np.hypot(down, across)).astype(np.float32)


def lettering(lines: int, seed: int, height: int = 150, width: int = 200) -> Image:
    """Return a page of lines that resemble text."""
    random = np.random.default_rng(seed)
    page = np.full((height, width, 3), 252, np.uint8)
    pitch = height // (lines + 1)
    for line in range(lines):
        at, left = pitch * (line + 1), width // 12
        while left < width - width // 6:
            long = int(random.integers(width // 24, width // 7))
            page[at : at + max(1, pitch // 3), left : min(left + long, width - width // 12)] = 40
            left += long + width // 30
    return page
