"""A data set of many classes: random gray patterns, and noise on each image."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_many_classes(
    path: Path, classes: int = 300, *, each: int = 36, test: int = 4, side: int = 16, noise: float = 24.0, seed: int = 0
) -> Path:
    """Write an `.npz` file that `--data` takes, and return its path.

    Args:
        path: the file.
        classes: how many; each is one random pattern of side x side gray pixels.
        each: training images of each class. A third of all become probes, a sixth the thief's.
        test: test images of each class.
        side: of the images, in pixels.
        noise: standard deviation of the noise on each pixel, in gray levels.
        seed: of patterns and noise.
    """
    stream = np.random.default_rng(seed)
    patterns = stream.uniform(40, 215, (classes, side, side))

    def share(count: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(np.arange(classes), count)
        x = patterns[y] + noise * stream.standard_normal((len(y), side, side))
        return x.round().clip(0, 255).astype(np.uint8), y

    (x_train, y_train), (x_test, y_test) = share(each), share(test)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path
