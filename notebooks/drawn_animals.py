"""Draws the images of these notebooks: faces of animals, so that nothing has to be downloaded.

What tells two animals apart is the shape of ears and snout. Colour, size, position, tilt, light and
background say nothing, so a network that memorises them is soon found out.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

ANIMALS = ("bear", "cat", "dog", "fox", "mouse", "rabbit")
SIDE = 96
SCALE = 3  # drawn larger and scaled down, which smooths the edges


def draw(animal: str, seed: int) -> np.ndarray:
    """Return an image of an animal's face, uint8 (96, 96, 3), RGB.

    The same animal and seed give the same image.
    """
    random = np.random.default_rng([seed, ANIMALS.index(animal)])
    side = SIDE * SCALE
    image = background(random, side)
    size = side * random.uniform(0.19, 0.27)
    centre = side * random.uniform(0.4, 0.6, 2)
    face = Face(image, centre, size, random.uniform(-0.35, 0.35), random.uniform(40, 225, 3))
    ears(face, animal, random)
    face.ellipse((0, 0), (1.0, random.uniform(0.85, 1.0)))
    snout(face, animal)
    for x in (-0.38, 0.38):
        face.ellipse((x, -0.2), (0.13, 0.16), (25, 25, 25))
    for _ in range(random.integers(0, 4)):  # straws and leaves in front
        first, last = random.uniform(0, side, (2, 2)).astype(int)
        colour = random.uniform(30, 225, 3).tolist()
        cv2.line(
            image, tuple(map(int, first)), tuple(map(int, last)), colour, random.integers(2, 9)
        )
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(float)
    light = random.uniform(0.55, 1.25)
    noise = random.normal(0, random.uniform(4, 16), small.shape)
    return (small * light + noise).clip(0, 255).astype(np.uint8)


class Face:
    """Draws parts in the face's own coordinates: (0, 0) is its middle, 1 its radius."""

    def __init__(self, image, centre, size, tilt, colour):
        self.image, self.centre, self.size, self.tilt = image, centre, size, tilt
        self.colour = colour
        self.turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])

    def points(self, corners):
        return (self.centre + self.size * np.asarray(corners, float) @ self.turn.T).astype(np.int32)

    def shade(self, factor):
        return tuple(float(value) for value in np.clip(self.colour * factor, 0, 255))

    def ellipse(self, middle, radii, colour=None, tilt=0.0):
        axes = tuple(max(1, int(self.size * radius)) for radius in radii)
        (point,) = self.points([middle])
        angle = np.degrees(self.tilt + tilt)
        colour = self.shade(1) if colour is None else colour
        cv2.ellipse(
            self.image, tuple(map(int, point)), axes, angle, 0, 360, colour, -1, cv2.LINE_AA
        )

    def polygon(self, corners, colour):
        cv2.fillPoly(self.image, [self.points(corners)], colour, cv2.LINE_AA)


def ears(face, animal, random):
    dark, length = face.shade(0.75), random.uniform(0.9, 1.15)
    for side in (-1, 1):
        if animal in ("cat", "fox"):
            wide = 0.55 if animal == "cat" else 0.4
            tip = (side * 0.85, -1.35 * length) if animal == "cat" else (side * 0.7, -1.6 * length)
            face.polygon([(side * (0.95 - wide), -0.75), tip, (side * 0.98, -0.2)], dark)
        elif animal == "dog":
            face.ellipse((side * 1.0, 0.1), (0.3, 0.75 * length), dark, side * -0.25)
        elif animal == "rabbit":
            face.ellipse((side * 0.42, -1.35), (0.2, 0.8 * length), dark, side * 0.15)
        else:
            radius = 0.36 if animal == "bear" else 0.62
            face.ellipse((side * 0.8, -0.75), (radius * length, radius * length), dark)


def snout(face, animal):
    light, black = face.shade(1.25), (25, 25, 25)
    if animal in ("dog", "bear"):
        face.ellipse((0, 0.4), (0.45, 0.36), light)
        face.ellipse((0, 0.25), (0.18, 0.12), black)
    elif animal in ("fox", "mouse"):
        face.polygon([(-0.5, 0.25), (0.5, 0.25), (0, 1.15)], light)
        face.ellipse((0, 0.95), (0.13, 0.11), black)
    else:
        face.polygon([(-0.13, 0.2), (0.13, 0.2), (0, 0.36)], black)
        for side in (-1, 1):
            for slope in (-0.1, 0.12):
                ends = face.points([(side * 0.2, 0.4), (side * 0.95, 0.4 + slope)])
                cv2.line(face.image, *(tuple(map(int, end)) for end in ends), black, 2, cv2.LINE_AA)


def background(random, side):
    image = np.empty((side, side, 3), np.uint8)
    image[:] = random.uniform(30, 225, 3)
    for _ in range(random.integers(4, 10)):
        corner = random.uniform(0, side, 2).astype(int)
        axes = random.uniform(side * 0.05, side * 0.3, 2).astype(int)
        colour = random.uniform(30, 225, 3).tolist()
        if random.uniform() < 0.5:
            cv2.ellipse(image, tuple(map(int, corner)), tuple(map(int, axes)),
                        random.uniform(0, 180), 0, 360, colour, -1)  # fmt: skip
        else:
            cv2.rectangle(
                image, tuple(map(int, corner)), tuple(map(int, corner + axes)), colour, -1
            )
    return image


def write_folder(folder, animals, train: int, validation: int) -> Path:
    """Write folder/train/ANIMAL and folder/validation/ANIMAL, so many images of each; return it."""
    for split, first, count in (("train", 0, train), ("validation", 100_000, validation)):
        for animal in animals:
            target = Path(folder, split, animal)
            target.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                image = draw(animal, first + number)
                cv2.imwrite(str(target / f"{animal}-{number:04d}.png"), image[:, :, ::-1])
    return Path(folder)
