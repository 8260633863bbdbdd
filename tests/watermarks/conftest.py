"""A data set that the digits are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wootz.rng import generator
from wootz.watermarks.baselines.out_of_distribution import smooth_fields


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of another data set: smooth fields with labels that mean nothing."""
    path = tmp_path_factory.mktemp("foreign") / "fields.npz"
    draw = generator(0, "foreign")
    images, labels = (
        smooth_fields(240, (1, 28, 28), draw)[:, 0].numpy(),
        torch.randint(0, 10, (240,), generator=draw).numpy(),
    )
    np.savez(path, x_train=images[:120], y_train=labels[:120], x_test=images[120:], y_test=labels[120:])
    return str(path)
