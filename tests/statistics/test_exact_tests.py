"""Every kind of key: evidence for marked suspects, none for others, and a null that holds for any suspect."""

from __future__ import annotations

import dataclasses
import math
from typing import get_args

import numpy as np
import pytest
import torch

import preferences
import wrong_classes
from directions import D, K, direction_material, images, key
from preferences import boundary_suspect as boundaries
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import AnswerKey, DirectionKey, HalfKey, Key, LabelKey, RegisteredMaterial
from wootz.records import EvidenceRecord
from wootz.statistics import EXACT_TESTS, verify
from wootz.statistics.exact_tests import half_evidence, label_evidence, preference_evidence
from wootz.statistics.queries import SuspectAccess
from wootz.statistics.sequential import sequential_label_evidence
from wootz.statistics.tails import binomial_tail, cosine_tail, hypergeometric_tail
from wootz.suspects.files import predictor
from wootz.workflows.verify import records

N = 128


def label_material(rule: str = "wrong") -> RegisteredMaterial:
    pixels = images(N)
    tensors = {"pixels": pixels, "base_pixels": pixels, "base": torch.arange(N) % K}
    return RegisteredMaterial("labels", tensors, {"rule": rule})


def half_material() -> RegisteredMaterial:
    return RegisteredMaterial("half", {"pixels": images(200, 2), "labels": torch.arange(200) % K}, {})


def answering(pixels: torch.Tensor, labels: torch.Tensor) -> object:
    known = {image.numpy().tobytes(): int(label) for image, label in zip(pixels, labels, strict=True)}

    def predict(x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([known.get(i.mul(255).round().to(torch.uint8).numpy().tobytes(), 0) for i in x])

    return predict


class TestLabels:
    def test_counts_hits_given_the_answers_that_differ_from_the_base(self) -> None:
        owned = key(label_material())
        assert isinstance(owned, LabelKey)
        assert (owned.labels != owned.base).all()
        said = owned.labels.clone()
        said[64:] = owned.base[64:]
        said[0] = (owned.labels[0] + 1) % K if (owned.labels[0] + 1) % K != owned.base[0] else (owned.labels[0] + 2) % K
        found = label_evidence(owned, answering(owned.pixels, said), (), SuspectAccess("label"))
        assert found.details | {"chance": 0} == {
            "hits": 63,
            "triggers": 128,
            "trials": 64,
            "chance": 0,
            "rule": "wrong",
        }
        assert found.log_p == binomial_tail(63, 64, 1 / 9)
        assert found.queries == 128

    def test_uniform_labels_have_the_unconditional_null(self) -> None:
        owned = key(label_material("uniform"))
        found = label_evidence(owned, answering(owned.pixels, owned.labels), (), SuspectAccess("label"))
        assert found.log_p == binomial_tail(128, 128, 1 / 10)

    def test_a_budget_takes_the_first_ones_in_registered_order(self) -> None:
        owned = key(label_material())
        found = label_evidence(owned, answering(owned.pixels, owned.labels), (), SuspectAccess("label", 10))
        assert (found.queries, found.details["hits"]) == (10, 10)

    def test_a_miss_never_raises_bits_and_an_attack_on_the_model_can_not_help_a_liar(self) -> None:
        owned = key(label_material())
        said, last = owned.labels.clone(), math.inf
        for row in range(0, N, 8):
            said[row] = (said[row] + 3) % K
            now = label_evidence(owned, answering(owned.pixels, said), (), SuspectAccess("label")).bits
            assert now <= last
            last = now


class TestHalf:
    def test_the_embedded_against_the_other_half(self) -> None:
        owned = key(half_material())
        assert isinstance(owned, HalfKey)
        assert int(owned.embedded.sum()) == 100
        said = torch.where(owned.embedded, owned.labels, (owned.labels + 1) % K)
        found = half_evidence(owned, answering(owned.pixels, said), (), SuspectAccess("label"))
        assert found.log_p == hypergeometric_tail(100, 100, 100, 200)
        assert found.details["accuracy"] == 1
        assert found.details["control"] == 0

    def test_a_message_is_read_by_the_bits_of_its_classes(self) -> None:
        material = half_material()
        code = [0, 1] * (K // 2)
        owned = key(RegisteredMaterial("half", material.tensors, {**material.params, "code": code}))
        assert isinstance(owned, HalfKey)
        assert owned.code == tuple(code)
        say_other = torch.where(
            owned.embedded, (owned.labels + 2) % K, (owned.labels + 1) % K
        )  # right bits, wrong classes
        say_other[0] = -1  # unanswered: never the label's bit
        found = half_evidence(owned, answering(owned.pixels, say_other), (), SuspectAccess("label"))
        lost = int(owned.embedded[0])
        assert found.details["bit_error"] == pytest.approx(lost / 200)
        assert found.statistic == pytest.approx(1 - lost / 200)
        assert found.log_p == hypergeometric_tail(100 - lost, 100 - lost, 100, 200)
        blind = answering(owned.pixels, owned.labels)
        found = half_evidence(owned, blind, (blind,), SuspectAccess("label"))
        assert found.details["bit_error"] == 0.5
        assert found.details["panel_bit_error"] == [0.5]
        assert found.bits == 0

    def test_a_model_that_knows_every_true_label_proves_nothing(self) -> None:
        owned = key(half_material())
        everyone = answering(owned.pixels, owned.labels)  # type: ignore[union-attr]
        found = half_evidence(owned, everyone, (everyone,), SuspectAccess("label"))  # type: ignore[arg-type]
        assert found.details["accuracy"] == 1
        assert found.details["panel"] == [1.0]
        assert found.bits == 0


ALPHAS = (0.05, 0.01, 0.001, 0.0001)


def holds(log_ps: np.ndarray) -> None:
    """P(p <= a) <= a + 3 sigma at every level."""
    for a in ALPHAS:
        share = (log_ps <= math.log(a) + 1e-12).mean()
        assert share <= a + 3 * math.sqrt(a * (1 - a) / len(log_ps)), (a, share)


def label_null(count: int) -> np.ndarray:
    """One fixed worst-case suspect: it answers every trigger with one favorite wrong class."""
    material = label_material()
    said = (material.tensors["base"] + 1).remainder(K)
    said[:40] = material.tensors["base"][:40]
    cache: dict[int, float] = {}
    ps = np.empty(count)
    for secret in range(count):
        labels = key(material, secret).labels  # type: ignore[union-attr]
        hits = int((said == labels).sum())
        ps[secret] = cache.setdefault(hits, binomial_tail(hits, N - 40, 1 / 9))
    return ps


def direction_null(count: int) -> np.ndarray:
    """A suspect with a strong structure of its own, fixed; 80 dimensions of it, keys drawn anew."""
    material = direction_material()
    other = key(material, 10**9)
    assert isinstance(other, DirectionKey)
    v = (other.direction * torch.linspace(0.1, 4, D)).double().numpy().ravel()
    ps = np.empty(count)
    for secret in range(count):
        w = key(material, secret).direction.double().numpy().ravel()  # type: ignore[union-attr]
        ps[secret] = cosine_tail(float(v @ w / np.linalg.norm(v) / np.linalg.norm(w)), other.dimensions(D))
    return ps


def half_null(count: int) -> np.ndarray:
    material = half_material()
    right = torch.arange(200) % 3 == 0
    cache: dict[int, float] = {}
    ps = np.empty(count)
    for secret in range(count):
        hits = int((right & key(material, secret).embedded).sum())  # type: ignore[union-attr]
        ps[secret] = cache.setdefault(hits, hypergeometric_tail(hits, int(right.sum()), 100, 200))
    return ps


@pytest.mark.parametrize("null", [label_null, direction_null, half_null])
def test_the_null_holds_over_five_thousand_keys(null: object) -> None:
    holds(null(5000))  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("null", [label_null, direction_null, half_null])
def test_the_null_holds_over_a_hundred_thousand_keys(null: object) -> None:
    holds(null(100_000))  # type: ignore[operator]


class TestVerdict:
    def owned(self) -> LabelKey:
        found = key(label_material())
        assert isinstance(found, LabelKey)
        return found

    def test_outcomes(self) -> None:
        owned = self.owned()
        knows = answering(owned.pixels, owned.labels)
        ignorant = answering(owned.pixels, owned.base)
        assert verify({"triggers": owned}, knows, panel=(ignorant,)).outcome == "KEY-DEPENDENT"  # type: ignore[arg-type]
        assert verify({"triggers": owned}, ignorant).outcome == "NOT SHOWN"  # type: ignore[arg-type]
        assert verify({"triggers": owned}, knows, bar=1e6).outcome == "NOT SHOWN"  # type: ignore[arg-type]

    def test_a_panel_model_over_the_bar_voids_the_claim(self) -> None:
        owned = self.owned()
        knows = answering(owned.pixels, owned.labels)
        verdict = verify({"triggers": owned}, knows, panel=(knows,))  # type: ignore[arg-type]
        assert verdict.outcome == "INVALID CLAIM"
        assert "panel model 0 reaches" in verdict.notes[0]

    def test_an_upside_down_suspect_is_inconclusive(self) -> None:
        owned = key(direction_material())
        verdict = verify({"runner-up": owned}, lambda x: torch.randn(len(x), K).sort(1).values)
        assert verdict.outcome == "INCONCLUSIVE"

    def test_access_that_suits_no_mark(self) -> None:
        with pytest.raises(ConfigError, match="none of the marks runner-up can be tested"):
            verify({"runner-up": key(direction_material())}, lambda x: x, access="label")

    def test_every_key_has_a_test_except_one_that_needs_a_log(self) -> None:
        assert set(EXACT_TESTS) == {*get_args(Key)} - {AnswerKey}

    def test_relabeling_classes_in_key_and_suspect_leaves_p_unchanged(self) -> None:
        owned = self.owned()
        turn = lambda t: (t + 4) % K  # noqa: E731
        said = owned.labels.clone()
        said[::2] = owned.base[::2]
        turned = dataclasses.replace(owned, labels=turn(owned.labels), base=turn(owned.base))
        one = label_evidence(owned, answering(owned.pixels, said), (), SuspectAccess("label"))  # type: ignore[arg-type]
        two = label_evidence(turned, answering(owned.pixels, turn(said)), (), SuspectAccess("label"))  # type: ignore[arg-type]
        assert one.log_p == two.log_p


def test_predictor_shows_what_access_allows(plain: torch.nn.Module, digits: Dataset) -> None:
    x = digits.test.images()[:3]
    assert predictor(plain)(x).shape == (3, 10)
    assert torch.equal(predictor(plain, "label")(x), predictor(plain)(x).argmax(1))


class TestNullAndMeasure:
    """Evidence names the null distribution and the statistic of the test that was run."""

    def test_keyed_labels(self) -> None:
        wrong, uniform = wrong_classes.trigger_key(), dataclasses.replace(wrong_classes.trigger_key(), rule="uniform")
        scores = wrong_classes.scores_suspect(wrong_classes.confident(wrong_classes.normal(wrong_classes.N, K)))
        boundaries = wrong_classes.boundary_suspect(wrong_classes.normal(wrong_classes.N, K))
        by_boundaries = SuspectAccess("label", boundary_search=wrong_classes.PATHS)
        found = [
            label_evidence(key, suspect, (), access)
            for key, suspect, access in (
                (uniform, scores, SuspectAccess()),
                (wrong, scores, SuspectAccess("label")),
                (wrong, scores, SuspectAccess()),
                (wrong, boundaries, by_boundaries),
            )
        ]
        assert [item.null.split(" over ")[0] for item in found] == ["binomial"] * 2 + ["sum of Savage scores"] * 2
        assert "all classes" in found[0].null
        assert "given the answers that are wrong" in found[1].null
        assert found[0].measure == found[1].measure
        assert found[2].measure.endswith("by residual log-score")
        assert found[3].measure.endswith("by residual distance to the decision boundary")
        assert "e-process" in sequential_label_evidence(wrong, scores, bar=40).null

    def test_pairwise_preferences(self) -> None:
        key = preferences.preference_key()
        strength = preferences.normal(preferences.N)
        accesses = [
            SuspectAccess(),
            SuspectAccess("label"),
            SuspectAccess("label", boundary_search=preferences.PAIR_PATHS),
        ]
        suspects = [preferences.scores_suspect(preferences.pair_scores(strength)), *[boundaries(strength)] * 2]
        found = [preference_evidence(key, s, (), a) for s, a in zip(suspects, accesses, strict=True)]
        assert {item.null for item in found} == {found[0].null}
        assert "fair coin" in found[0].null
        names = ["log-score difference", "answered label", "signed distance to the decision boundary"]
        assert all(name in item.measure for name, item in zip(names, found, strict=True))

    def test_records_carry_both_and_older_lines_load(self) -> None:
        owned = key(label_material())
        assert isinstance(owned, LabelKey)
        verdict = verify({"triggers": owned}, answering(owned.pixels, owned.labels), access="label")  # type: ignore[arg-type]
        (record,) = records(verdict)
        assert (record.null, record.measure) == (verdict.evidence[0].null, verdict.evidence[0].measure)
        line = dataclasses.asdict(record)
        older = EvidenceRecord(**{name: value for name, value in line.items() if name not in ("null", "measure")})
        assert (older.null, older.measure) == ("", "")
        assert EvidenceRecord(**line) == record
