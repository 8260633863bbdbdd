"""Suspects that do not answer, or answer all images alike: there is nothing to test, and p is 1 for every key."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

import preferences
import wrong_classes
from directions import K, direction, direction_material, direction_suspect, images, key
from wootz.keys import DirectionKey, HalfKey, LabelKey, RegisteredMaterial, WeightKey
from wootz.statistics import null, verify
from wootz.statistics.direction_estimate import estimate_direction
from wootz.statistics.exact_tests import (
    direction_evidence,
    half_evidence,
    label_evidence,
    preference_evidence,
    read_bits,
    weight_evidence,
)
from wootz.statistics.pairwise_preferences import preference_residuals, query_preferences
from wootz.statistics.queries import LabelledImages, SuspectAccess
from wootz.statistics.sequential import sequential_label_evidence
from wootz.types import Predict

KEYS = range(5)
DRAWS = 50


def same(row: Tensor) -> Predict:
    """Return a suspect that answers every image with this row of scores."""
    return lambda x: row.expand(len(x), -1)


def silent(x: Tensor) -> Tensor:
    return torch.full((len(x), K), torch.nan)


def mute(x: Tensor) -> Tensor:
    return torch.full((len(x),), -1)


NOTHING = {
    "silent": silent,
    "flat": same(torch.zeros(K)),
    "constant": same(torch.randn(K, generator=torch.Generator().manual_seed(1))),
    "constant-probabilities": same(torch.randn(K, generator=torch.Generator().manual_seed(2)).softmax(0)),
    "infinite": same(torch.tensor([0.0] + [-torch.inf] * (K - 1))),
}
"""Suspects that say of no image anything that they do not say of all others."""


class TestDirections:
    @pytest.mark.parametrize("liar", NOTHING)
    @pytest.mark.parametrize("panel", [0, 1])
    def test_a_liar_without_a_direction_has_p_one(self, liar: str, panel: int) -> None:
        for secret in KEYS:
            owned = direction(secret)
            found = direction_evidence(
                owned, NOTHING[liar], [direction_suspect(direction(9), 1.0)][:panel], SuspectAccess(budget=500)
            )
            assert found is not None
            assert (found.log_p, found.statistic) == (0.0, 0.0)

    @pytest.mark.parametrize("liar", NOTHING)
    def test_random_keys_agree_about_a_liar(self, liar: str) -> None:
        owned = direction()
        found = estimate_direction(owned, NOTHING[liar], (), SuspectAccess(budget=500))
        assert found is not None
        assert (null.direction_null(owned, found.v, DRAWS, np.random.default_rng(0)) == 0).all()

    def test_a_liar_of_three_classes_gains_no_bit(self) -> None:
        small = direction_material()
        tensors = {
            name: small.tensors[name][:3] if name in ("class_mean", "class_scale") else small.tensors[name]
            for name in small.tensors
        } | {"prior": small.tensors["prior"][:3, :3], "probe_labels": torch.arange(3000) % 3}
        owned = key(RegisteredMaterial("direction", tensors, {}))
        assert isinstance(owned, DirectionKey)
        owned = dataclasses.replace(owned, num_classes=3, direction=owned.direction[:3, :3])
        found = direction_evidence(owned, same(torch.zeros(3)), (), SuspectAccess())
        assert found is not None
        assert found.bits == 0


class TestOtherMarks:
    @pytest.mark.parametrize("logged", [True, False])
    @pytest.mark.parametrize("panel", [0, 1])
    @pytest.mark.parametrize("liar", [silent, mute])
    def test_a_liar_who_is_silent_has_the_last_ranks(self, logged: bool, panel: int, liar: Predict) -> None:
        member = wrong_classes.scores_suspect(wrong_classes.confident(wrong_classes.normal(wrong_classes.N, K)))
        accesses = [SuspectAccess("label"), SuspectAccess("label", boundary_search=wrong_classes.PATHS)] + [
            SuspectAccess()
        ] * (liar is silent)
        for secret in KEYS:
            owned = (wrong_classes.logged_key if logged else wrong_classes.trigger_key)(secret)
            for access in accesses:
                found = label_evidence(owned, liar, [member][:panel], access)
                assert (found.log_p, found.details["hits"]) == (0.0, 0)

    def test_a_liar_who_is_silent_among_random_labels(self) -> None:
        owned = wrong_classes.trigger_key()
        left = torch.full((wrong_classes.N, K), torch.nan, dtype=torch.float64)
        assert np.allclose(null.rank_null(owned, left, DRAWS, np.random.default_rng(0)), 0, atol=1e-9)
        said = torch.full((wrong_classes.N,), -1)
        assert (null.label_null(owned, said, DRAWS, np.random.default_rng(0)) == 0).all()
        assert (null.sequential_null(owned, said, DRAWS, np.random.default_rng(0)) == 0).all()

    @pytest.mark.parametrize("rule", ["wrong", "uniform"])
    def test_a_liar_who_is_silent_from_the_first_query_on(self, rule: str) -> None:
        owned = dataclasses.replace(wrong_classes.trigger_key(), rule=rule)
        decoys = LabelledImages(wrong_classes.PIXELS, wrong_classes.BASE)
        found = sequential_label_evidence(owned, mute, bar=5.0, decoys=decoys)
        assert (found.log_p, found.details["stopped"]) == (0.0, False)
        assert (found.details["asked"], found.details["answered"], found.details["accuracy"]) == (60, 0, 0.0)

    @pytest.mark.parametrize("liar", [silent, mute, same(torch.zeros(K))])
    def test_a_liar_without_preferences_has_p_one(self, liar: Predict) -> None:
        accesses = (
            [SuspectAccess("label"), SuspectAccess("label", boundary_search=preferences.PAIR_PATHS)]
            if liar is mute
            else [SuspectAccess()]
        )
        for secret in KEYS:
            owned = preferences.preference_key(secret)
            for access in accesses:
                assert preference_evidence(owned, liar, (), access).log_p == 0
                left = preference_residuals(owned, query_preferences(owned, liar, access).preferences, ())
                assert (null.preference_null(left, DRAWS, np.random.default_rng(0)) == 0).all()

    def test_logs_without_an_image(self) -> None:
        order, label = preferences.preference_key(), wrong_classes.logged_key()
        none = {"pixels": order.pixels[:0], "first": order.first[:0], "second": order.second[:0]}
        order = dataclasses.replace(order, **none, preferred=order.preferred[:0])
        label = dataclasses.replace(label, pixels=label.pixels[:0], base=label.base[:0], labels=label.labels[:0])
        answers = same(torch.zeros(K))
        assert preference_evidence(order, answers, (), SuspectAccess()).log_p == 0
        assert label_evidence(label, answers, (), SuspectAccess()).log_p == 0

    @pytest.mark.parametrize("code", [None, (0, 1) * (K // 2)])
    def test_a_liar_knows_none_of_the_candidates(self, code: tuple[int, ...] | None) -> None:
        tensors = {"pixels": images(200, 2), "labels": torch.arange(200) % K}
        for secret in KEYS:
            owned = key(RegisteredMaterial("half", tensors, {} if code is None else {"code": list(code)}), secret)
            assert isinstance(owned, HalfKey)
            for liar in (silent, mute):
                assert half_evidence(owned, liar, (), SuspectAccess()).log_p == 0
            no = torch.zeros(200, dtype=torch.bool)
            assert (null.half_null(owned, no, DRAWS, np.random.default_rng(0)) == 0).all()

    @pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf, -torch.inf])
    def test_a_liar_whose_weights_hold_no_bits(self, value: float) -> None:
        params = {"weight": "w", "shape": [2, 3, 4, 4], "bits": 40}
        for secret in KEYS:
            owned = key(RegisteredMaterial("weights", {}, params), secret)
            assert isinstance(owned, WeightKey)
            tensor = torch.full((2, 3, 4, 4), value)
            found = weight_evidence(owned, mute, (), SuspectAccess("weights", weights=lambda *_, t=tensor: t))
            assert found is not None
            assert (found.log_p, found.details["hits"], found.details["bit_error_rate"]) == (0.0, 0, 1.0)
            read = read_bits(owned, tensor)
            assert (null.weight_null(owned, read, DRAWS, np.random.default_rng(0)) == 0).all()


class TestVerdicts:
    def test_a_liar_who_is_silent_is_inconclusive(self) -> None:
        owned = direction()
        verdict = verify({"runner-up": owned}, silent)
        assert (verdict.outcome, verdict.bits) == ("INCONCLUSIVE", 0.0)
        assert verdict.notes == ("the suspect refused 3000 of 3000 ordinary images",)

    def test_a_liar_who_answers_few_images_well(self) -> None:
        owned = direction()
        whole = direction_suspect(direction(7), 0.1)

        def picky(x: Tensor) -> Tensor:
            return whole(x).masked_fill((torch.arange(len(x)) % 5 != 0)[:, None], torch.nan)

        verdict = verify({"runner-up": owned}, picky)
        assert verdict.outcome == "INCONCLUSIVE"
        assert verdict.notes == ("the suspect refused 2400 of 3000 ordinary images",)
        assert verdict.evidence[0].details["accuracy"] == 1.0

    def test_most_answers_suffice_for_a_verdict(self) -> None:
        owned = direction()
        whole = direction_suspect(direction(7), 0.1)

        def shy(x: Tensor) -> Tensor:
            return whole(x).masked_fill((torch.arange(len(x)) % 5 == 0)[:, None], torch.nan)

        verdict = verify({"runner-up": owned}, shy)
        assert (verdict.outcome, verdict.notes) == ("NOT SHOWN", ())
        details = verdict.evidence[0].details
        assert (details["asked"], details["answered"], details["accuracy"]) == (3000, 2400, 1.0)

    def test_random_answers_are_inconclusive(self) -> None:
        verdict = verify({"runner-up": direction()}, lambda x: torch.randn(len(x), K).sort(1).values)
        assert verdict.outcome == "INCONCLUSIVE"
        assert "no better than chance" in verdict.notes[0]

    def test_a_liar_who_refuses_decoys(self) -> None:
        owned = {"triggers": wrong_classes.trigger_key(), "runner-up": direction()}
        assert isinstance(owned["triggers"], LabelKey)
        verdict = verify(owned, mute, access="label", sequential=True)
        assert verdict.outcome == "INCONCLUSIVE"
        assert "the suspect refused 60 of 60 ordinary images" in verdict.notes


def test_two_classes_give_a_liar_nothing_in_the_sequential_test() -> None:
    owned = dataclasses.replace(
        wrong_classes.trigger_key(), num_classes=2, base=torch.zeros(60).long(), labels=torch.ones(60).long()
    )
    found = sequential_label_evidence(owned, lambda x: torch.ones(len(x)).long(), bar=5.0)
    assert (found.log_p, found.details["stopped"]) == (0.0, False)
