"""What a thief has who has no digits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from wootz.data import Split


@pytest.fixture(scope="session")
def foreign() -> Split:
    """Return 6,000 images of soft spots, of five kinds: the label says how coarse they are and how rare."""
    generator = torch.Generator().manual_seed(0)
    pixels, labels = [], []
    for label, (size, rarity) in enumerate(((4, 0.5), (5, 0.5), (7, 0.5), (7, 1.0), (10, 1.0))):
        coarse = torch.randn(1200, 1, size, size, generator=generator)
        field = F.interpolate(coarse, size=(28, 28), mode="bilinear")
        field = field / field.std((1, 2, 3), keepdim=True)
        pixels.append((6 * (field - rarity)).sigmoid().mul(255).to(torch.uint8))
        labels.append(torch.full((1200,), label))
    order = torch.randperm(6000, generator=generator)
    return Split(torch.cat(pixels)[order], torch.cat(labels)[order])
