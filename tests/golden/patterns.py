"""Images from a formula with integers only, so that they are the same on every machine."""

import zlib

import numpy as np


def make_image(seed, height, width):
    """Return slanted triangle waves, a disk and hashed noise: uint8 (height, width, 3)."""
    y = np.arange(height, dtype=np.int64)[:, None, None]
    x = np.arange(width, dtype=np.int64)[None, :, None]
    channel = np.arange(3, dtype=np.int64)[None, None, :]
    slant = x * (3 + seed) + y * (5 - 2 * seed) + channel * (90 + 40 * seed) + 31 * seed
    wave = np.abs(slant % 512 - 256) * 3 // 4
    radius = min(height, width) // 3
    distance = (y - height // 2) ** 2 + (x - width * (2 + seed) // 6) ** 2
    disk = np.where(distance < radius * radius, 70 - 35 * channel, 0)
    # Sums of the products stay far below 2**63; the shifts mix high bits into low ones.
    mixed = (x * 374761393 + y * 668265263 + channel * 974711 + seed * 362437) % 2**32
    mixed = ((mixed ^ (mixed >> 13)) * 1274126177) % 2**32
    noise = ((mixed ^ (mixed >> 16)) & 63) - 32
    return np.clip(wave + disk + noise, 0, 255).astype(np.uint8)


def make_images(count, size):
    """Return `count` images of a (height, width): uint8 (count, height, width, 3)."""
    return np.stack([make_image(seed, *size) for seed in range(count)])


def make_weights(count):
    """Return weights for a sum that depends on the order of numbers: float64 (count,)."""
    return (np.arange(count, dtype=np.int64) * 7919 % 1009).astype(np.float64) / 1009 - 0.5


def make_tensor(name, shape):
    """Return random numbers for a tensor of a network, by its name in PyTorch: float32 `shape`.

    They are of a size at which a network of many layers neither vanishes nor explodes.
    """
    # NumPy promises that RandomState never changes.
    numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if name.endswith("running_var"):
        numbers = 1 + 0.5 * np.abs(numbers)
    elif name.endswith(("gamma", "lambda1", "layer_scale")):
        numbers = 0.3 + 0.1 * numbers
    elif len(shape) == 1 and name.endswith("weight"):  # of a normalisation
        numbers = 1 + 0.1 * numbers
    elif len(shape) == 1:
        numbers = 0.1 * numbers
    elif name.endswith("weight"):
        numbers = numbers / np.sqrt(np.prod(shape[1:]))
    return numbers.astype(np.float32)


def make_state(names, shapes):
    """Return a state dictionary of random numbers; shapes are texts such as ``"8x3x3"``."""
    sides = [tuple(int(side) for side in shape.split("x") if side) for shape in shapes]
    return {
        name: make_tensor(name, shape)
        for name, shape in zip(names, sides, strict=True)
        if not name.endswith("num_batches_tracked")
    }
