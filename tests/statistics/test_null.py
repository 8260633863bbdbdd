"""Random keys: the p-values of redrawn keys have the distribution that the exact tests promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wootz.keys import DirectionKey, HalfKey, LabelKey, WeightKey
from wootz.statistics import null
from wootz.statistics.tails import cosine_tail

LEVELS = (0.05, 0.01, 1e-3, 1e-4)
DRAWS = 30_000


def holds(log_p: null.Logs) -> bool:
    """Return whether P(p <= a) <= a + 3 sigma at every level."""
    shares = [(a, float((log_p <= math.log(a) + 1e-12).mean())) for a in LEVELS]
    return all(share <= a + 3 * math.sqrt(a * (1 - a) / len(log_p)) for a, share in shares)


def label_key(rule: str, count: int, classes: int) -> LabelKey:
    base = torch.arange(count) % classes
    pixels = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    labels = (base + 1) % classes
    return LabelKey(
        mark="triggers",
        rule=rule,
        num_classes=classes,
        pixels=pixels,
        base_pixels=pixels,
        base=base,
        labels=labels,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("rule", "classes"), [("wrong", 10), ("uniform", 10), ("uniform", 2), ("wrong", 3)])
@pytest.mark.parametrize("suspect", ["constant", "random", "base"])
def test_labels_whatever_the_suspect_says(rule: str, classes: int, suspect: str) -> None:
    key = label_key(rule, 96, classes)
    said = {
        "constant": torch.zeros(96, dtype=torch.int64),
        "random": torch.randint(0, classes, (96,), generator=torch.Generator().manual_seed(1)),
        "base": key.base,
    }[suspect]
    stream = np.random.default_rng(2)
    exact, early = null.label_null(key, said, DRAWS, stream), null.sequential_null(key, said, DRAWS, stream)
    assert holds(exact)
    assert holds(early)
    if not (rule == "wrong" and suspect == "base"):  # there no answer counts, and every p is 1
        assert (exact < math.log(0.1)).mean() > 0.01  # it is a test, not a shrug


def test_a_missing_answer_never_hits() -> None:
    key = label_key("wrong", 50, 10)
    said = torch.full((50,), -1)
    assert (null.label_null(key, said, 200, np.random.default_rng(0)) == 0).all()


def test_directions_and_halves() -> None:
    stream, draw = np.random.default_rng(3), torch.Generator().manual_seed(3)
    empty = torch.empty(0)
    key = DirectionKey(
        mark="runner-up",
        num_classes=5,
        components=torch.zeros(4, 3),
        center=empty,
        class_mean=empty,
        class_scale=empty,
        prior=empty,
        probes=empty,
        probe_labels=empty,
        direction=torch.zeros(5, 5, 3),
    )
    own = torch.eye(5, dtype=torch.float64).unsqueeze(2)
    v = torch.randn(5, 5, 3, generator=draw, dtype=torch.float64) * (1 - own)
    found = null.direction_null(key, v, DRAWS, stream)
    assert holds(found)
    assert abs(float((found < math.log(0.5)).mean()) - 0.5) < 0.02
    random = torch.Generator().manual_seed(int(np.random.default_rng(7).integers(2**62)))
    w = torch.randn(40, 5, 5, 3, generator=random).double() * (1 - own)
    w = (w - w.sum(2, keepdim=True) / 4) * (1 - own)
    cosines = (w * v).flatten(1).sum(1) / w.flatten(1).norm(dim=1) / v.norm()
    plain = [cosine_tail(cosine, key.dimensions(3)) for cosine in cosines.tolist()]
    assert null.direction_null(key, v, 40, np.random.default_rng(7)) == pytest.approx(plain, abs=1e-4)
    right = torch.arange(200) % 3 == 0
    pixels = torch.zeros(200, 1, 2, 2, dtype=torch.uint8)
    half = HalfKey(mark="ood", num_classes=10, pixels=pixels, labels=pixels, embedded=right)
    assert holds(null.half_null(half, right, DRAWS, stream))


def test_messages_whatever_the_weights_say() -> None:
    key = WeightKey(
        mark="uchida",
        num_classes=10,
        weight="0.weight",
        shape=(1, 1, 2, 2),
        directions=torch.zeros(64, 4),
        message=torch.zeros(64).long(),
    )
    for read in (torch.zeros(64).long(), torch.arange(64) % 3 // 2):
        found = null.weight_null(key, read, DRAWS, np.random.default_rng(5))
        assert holds(found)
        assert (found < math.log(0.1)).mean() > 0.01


def test_the_check_of_the_check() -> None:
    stream = np.random.default_rng(4)
    assert not any(null.too_many(np.log(stream.uniform(size=1000))) for _ in range(200))
    assert null.too_many(np.log(stream.uniform(size=1000)) * 2)
