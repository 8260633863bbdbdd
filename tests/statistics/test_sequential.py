"""The sequential test and its e-process."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from wootz.keys import LabelKey
from wootz.statistics import verify
from wootz.statistics.queries import LabelledImages
from wootz.statistics.sequential import log_e_value, run_sequential_test, sequential_label_evidence
from wootz.statistics.tails import bits

CHANCE = 1 / 9


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([1 / 2, 1 / 9, 1 / 10, 1 / 99]))
def test_e_value_against_the_integral(hits: int, misses: int, chance: float) -> None:
    def ratio(r: float) -> float:
        return (r / chance) ** hits * ((1 - r) / (1 - chance)) ** misses

    mode = min(1.0, max(chance, hits / max(1, hits + misses)))
    expected = quad(ratio, chance, 1, points=[mode], limit=200)[0] / (1 - chance)
    assert log_e_value(hits, hits + misses, chance) == pytest.approx(math.log(expected), abs=1e-6)


def test_an_e_value_expects_one_under_the_null() -> None:
    for trials in (1, 5, 30):
        weights = [math.comb(trials, h) * CHANCE**h * (1 - CHANCE) ** (trials - h) for h in range(trials + 1)]
        mean = sum(w * math.exp(log_e_value(h, trials, CHANCE)) for h, w in enumerate(weights))
        assert mean == pytest.approx(1, abs=1e-9)


def test_it_stops_at_the_bar_and_queries_no_more() -> None:
    taken = []

    def answers():  # type: ignore[no-untyped-def]
        for number in range(1000):
            taken.append(number)
            yield True, True

    found = run_sequential_test(answers(), CHANCE, 40)
    assert found.crossed
    assert len(taken) == found.queried == found.hits < 20
    assert bits(found.log_p) >= 40 > bits(-log_e_value(found.hits - 1, found.hits - 1, CHANCE))


def test_peeking_after_every_query_does_not_raise_the_error() -> None:
    draws = np.random.default_rng(0).random((4000, 100)) < CHANCE
    for bar in (math.log2(20), math.log2(100)):
        crossed = sum(run_sequential_test(((True, bool(hit)) for hit in row), CHANCE, bar).crossed for row in draws)
        level = 2**-bar
        assert crossed / len(draws) <= level + 3 * math.sqrt(level * (1 - level) / len(draws))


def test_twenty_queries_bring_forty_bits_at_a_hit_rate_of_nine_tenths() -> None:
    draws = np.random.default_rng(1).random((400, 128)) < 0.9
    asked = [run_sequential_test(((True, bool(hit)) for hit in row), 1 / 10, 40).queried for row in draws]
    assert np.median(asked) <= 20


def labels_key(count: int = 96, classes: int = 10) -> LabelKey:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (count, 1, 4, 4), generator=generator).to(torch.uint8)
    base = torch.randint(0, classes, (count,), generator=generator)
    labels = (base + 1 + torch.randint(0, classes - 1, (count,), generator=generator)) % classes
    return LabelKey(
        mark="triggers", rule="wrong", num_classes=classes, pixels=pixels, base_pixels=pixels, base=base, labels=labels
    )


class Answering:
    """A suspect that answers some images from a table, records its queries, and answers -1 to the rest."""

    def __init__(self, known: dict[bytes, int]) -> None:
        self.known, self.asked = known, []  # type: ignore[var-annotated]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        names = [image.mul(255).round().to(torch.uint8).numpy().tobytes() for image in x]
        self.asked += names
        return torch.tensor([self.known.get(name, -1) for name in names])


def knowing(pixels: torch.Tensor, labels: torch.Tensor) -> dict[bytes, int]:
    return {image.numpy().tobytes(): int(label) for image, label in zip(pixels, labels, strict=True)}


class TestSequentialLabelEvidence:
    key = labels_key()
    decoys = LabelledImages(labels_key(40).pixels.flip(0) ^ 1, labels_key(40).base)

    def test_decoys_go_one_to_one_and_their_answers_are_counted(self) -> None:
        suspect = Answering(knowing(self.key.pixels, self.key.labels) | knowing(*self.decoys))
        found = sequential_label_evidence(self.key, suspect, bar=40, decoys=self.decoys)
        assert found.sequential is not None
        assert found.sequential.stopped
        assert found.bits >= 40
        assert found.queries == len(suspect.asked) == 2 * found.details["triggers"]
        assert found.details["accuracy"] == 1
        assert found.details["fixed"] > found.bits

    def test_the_budget_holds_decoys_too(self) -> None:
        suspect = Answering({})
        found = sequential_label_evidence(self.key, suspect, bar=40, decoys=self.decoys, budget=11)
        assert found.sequential is not None
        assert not found.sequential.stopped
        assert found.queries == len(suspect.asked) == 10
        assert found.bits == 0

    def test_an_answer_equal_to_the_base_class_neither_helps_nor_hurts(self) -> None:
        silent = Answering(knowing(self.key.pixels, self.key.base))
        found = sequential_label_evidence(self.key, silent, bar=40)
        assert (found.details["stopped"], found.details["trials"], found.bits) == (False, 0, 0)

    def test_a_missing_answer_is_a_miss(self) -> None:
        found = sequential_label_evidence(self.key, Answering({}), bar=40)
        assert found.details["trials"] == len(self.key.labels)
        assert found.bits == 0

    def test_selective_refusal_is_reported(self) -> None:
        evasive = Answering(knowing(*self.decoys))
        found = sequential_label_evidence(self.key, evasive, bar=40, decoys=self.decoys)
        assert (found.details["unanswered"], found.details["evasive"], found.bits) == ([96, 0], True, 0)
        rude = sequential_label_evidence(self.key, Answering({}), bar=40, decoys=self.decoys)
        assert (rude.details["unanswered"], rude.details["evasive"]) == ([96, 40], False)

    def test_the_verdict_spends_only_what_it_needs(self) -> None:
        suspect = Answering(knowing(self.key.pixels, self.key.labels))
        verdict = verify({"triggers": self.key}, suspect, access="label", sequential=True)
        assert verdict.outcome == "KEY-DEPENDENT"
        assert len(suspect.asked) < 25
        stranger = Answering(knowing(self.key.pixels, (self.key.labels + 1) % 10))
        assert verify({"triggers": self.key}, stranger, access="label", sequential=True).outcome == "NOT SHOWN"

    def test_tries_are_subtracted(self) -> None:
        suspect = Answering(knowing(self.key.pixels, self.key.labels))
        once, often = (verify({"triggers": self.key}, suspect, access="label", tries=tries) for tries in (1, 64))
        assert once.bits - often.bits == pytest.approx(6)
        assert "6.0 bits subtracted for multiple testing" in often.notes[0]
