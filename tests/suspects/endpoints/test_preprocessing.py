"""Preprocessing of images for endpoints."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from suspects.endpoints.client_process import random_images
from wootz.errors import ConfigError
from wootz.suspects.endpoints import Preprocessing
from wootz.suspects.endpoints.preprocessing import encode_png, preprocess


def test_range_layout_and_order() -> None:
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(preprocess(x, Preprocessing()), x.numpy())
    assert np.array_equal(preprocess(x, Preprocessing(layout="NHWC")), x.numpy().transpose(0, 2, 3, 1))
    assert np.array_equal(preprocess(x, Preprocessing(order="BGR")), x.numpy()[:, ::-1])
    assert np.allclose(preprocess(x, Preprocessing(scale="0-255")), x.numpy() * 255)
    normal = preprocess(x, Preprocessing(scale="mean/std", mean=(0.1, 0.2, 0.3), std=(0.5,)))
    assert np.allclose(normal[:, 2], (x.numpy()[:, 2] - 0.3) / 0.5, atol=1e-6)


def test_size_and_channels() -> None:
    x = random_images(2)
    result = preprocess(x, Preprocessing(channels=3, size=(8, 6)))
    assert result.shape == (2, 3, 8, 6)
    assert np.array_equal(result[:, 0], result[:, 2])
    assert np.allclose(preprocess(torch.full((1, 1, 5, 5), 0.25), Preprocessing(size=(3, 3))), 0.25)


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 3]), st.integers(0, 99))
def test_a_png_has_the_gray_levels(height: int, width: int, channels: int, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (1, channels, height, width), dtype=np.uint8)
    (png,) = encode_png(torch.from_numpy(levels).float() / 255, Preprocessing())
    image = Image.open(io.BytesIO(png))
    image.verify()
    image = Image.open(io.BytesIO(png))
    assert image.mode == ("L" if channels == 1 else "RGB")
    assert np.array_equal(np.asarray(image).reshape(height, width, channels), levels[0].transpose(1, 2, 0))


def test_settings_that_do_not_fit_are_rejected() -> None:
    x = torch.zeros(1, 3, 2, 2)
    with pytest.raises(ConfigError, match="the images have 3"):
        preprocess(x, Preprocessing(channels=1))
    with pytest.raises(ConfigError, match="one number or 3"):
        preprocess(x, Preprocessing(scale="mean/std", mean=(0.1, 0.2)))
    with pytest.raises(ConfigError, match="height and width"):
        Preprocessing(size=(3,))
    with pytest.raises(ConfigError, match="1 or 3 channels, not 2"):
        encode_png(torch.zeros(1, 2, 2, 2), Preprocessing())
