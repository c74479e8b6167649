"""A learner in NumPy for tests of the loop: softmax regression on the mean colour of quarters."""

from __future__ import annotations

import numpy as np


class NumpyNetwork:
    """Learns with SGD and momentum; its chance is addressed, as the real one's is."""

    def __init__(self, classes: int = 2, fail_at: int = 0) -> None:
        self.kernel = np.zeros((12, classes), np.float32)
        self.velocity = np.zeros_like(self.kernel)
        self.calls: list[tuple] = []
        self.fail_at = fail_at

    def begin(self, optimizer, label_smoothing=0.0, freeze="none"):
        self.velocity = np.zeros_like(self.kernel)
        self.calls.append(("begin", optimizer.name, label_smoothing))

    def _features(self, images):
        n, height, width, _ = images.shape
        parts = images[:, : height // 2 * 2, : width // 2 * 2].astype(np.float32) / 255 - 0.5
        return parts.reshape(n, 2, height // 2, 2, width // 2, 3).mean((2, 4)).reshape(n, 12)

    def _shares(self, features):
        logits = features @ self.kernel
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def step(self, images, targets, rate, address):
        self.calls.append(("step", len(images), rate, address))
        features = self._features(images)
        shares = self._shares(features)
        noise = np.float32(1 + 1e-3 * (address[0] % 7))
        gradient = noise * features.T @ (shares - targets) / len(images)
        self.velocity = np.float32(0.9) * self.velocity - np.float32(rate) * gradient
        self.kernel = self.kernel + self.velocity
        loss = float(-np.log((shares * targets).sum(1)).sum())
        if self.fail_at and sum(call[0] == "step" for call in self.calls) >= self.fail_at:
            loss = float("nan")
        return loss, int((shares.argmax(1) == targets.argmax(1)).sum())

    def evaluate(self, images, targets):
        shares = self._shares(self._features(images))
        right = int((shares.argmax(1) == targets).sum())
        return float(-np.log(shares[np.arange(len(targets)), targets]).sum()), right

    def weights(self):
        return {"kernel": self.kernel.copy()}

    def set_weights(self, arrays):
        if arrays["kernel"].shape != self.kernel.shape:
            raise ValueError("another shape")
        self.kernel = arrays["kernel"].copy()

    def state(self):
        return {"weights": self.kernel.copy(), "velocity": self.velocity.copy()}

    def set_state(self, arrays):
        if arrays["weights"].shape != self.kernel.shape:
            raise ValueError("another shape")
        self.kernel, self.velocity = arrays["weights"].copy(), arrays["velocity"].copy()


def coloured(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, 8, 10, 3) of two kinds, redder and bluer, and their classes."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    images = random.integers(60, 190, (count, 8, 10, 3))
    images[..., 0] += 12 * targets[:, None, None]
    images[..., 2] -= 12 * targets[:, None, None]
    return images.astype(np.uint8), targets.astype(np.int64)
