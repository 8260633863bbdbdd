"""A suspect whose answers depend on the batch is named as such by a verdict's notes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wootz.keys import HalfKey
from wootz.workflows.suspects import QueryConfig, open_suspect_model
from wootz.workflows.verify import _batch_notes

PIXELS = torch.randint(0, 256, (20, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize(("tracked", "count"), [(False, 1), (True, 0)])
def test_batch_normalization_without_running_statistics(tmp_path, tracked: bool, count: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 10), nn.BatchNorm1d(10, track_running_stats=tracked))
    labels = torch.arange(20) % 10
    key = HalfKey(mark="half", num_classes=10, pixels=PIXELS, labels=labels, embedded=labels < 5)
    with open_suspect_model(model, QueryConfig(), tmp_path) as suspect:
        assert len(_batch_notes({"half": key}, suspect)) == count
