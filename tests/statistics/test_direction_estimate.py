"""The direction estimate, from scores and from boundaries: it finds a keyed direction without using the key."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from directions import D, K, direction, direction_material, direction_suspect, images, key
from wootz.errors import ModelError
from wootz.keys import DirectionKey
from wootz.statistics import direction_estimate as module
from wootz.statistics import null, verify
from wootz.statistics.boundary_search import BoundarySearch
from wootz.statistics.direction_estimate import DirectionEstimate, estimate_direction
from wootz.statistics.exact_tests import direction_evidence
from wootz.statistics.queries import OrdinaryAnswers, SuspectAccess
from wootz.statistics.tails import cosine_tail
from wootz.types import Predict


class TestFromScores:
    def test_the_direction_is_found_as_by_a_naive_implementation(self) -> None:
        owned = direction()
        predict = direction_suspect(owned, 0.1)
        found = direction_evidence(owned, predict, (), SuspectAccess("scores"))
        assert found is not None
        assert found.bits > 60
        assert owned.dimensions(D) == K * (K - 2) * D
        x, y = owned.probes.float() / 255, owned.probe_labels
        scores, z = predict(x).double().numpy(), owned.features(x, y).double().numpy()
        v = np.zeros((K, K, D))
        for k in range(K):
            rows = (y == k).numpy()
            wrong = [j for j in range(K) if j != k]
            s = scores[rows][:, wrong]
            s = s - s.mean(1, keepdims=True)
            s = s / np.linalg.norm(s, axis=1, keepdims=True)
            far = z[rows] - z[rows].mean(0)
            part = (s - s.mean(0)).T @ far @ np.linalg.inv(far.T @ far + 2 * len(far) * np.eye(D))
            part = part - part.mean(0)
            part = part / np.sqrt(np.linalg.norm(part, axis=1, keepdims=True))
            v[k, wrong] = part - part.mean(0)
        w = owned.direction.double().numpy()
        cosine = (v * w).sum() / np.linalg.norm(v) / np.linalg.norm(w)
        assert found.statistic == pytest.approx(cosine, abs=1e-9)
        assert found.log_p == pytest.approx(cosine_tail(cosine, owned.dimensions(D)), rel=1e-6)

    def test_probabilities_logits_and_shifted_scores_say_the_same(self) -> None:
        owned = direction()
        raw = direction_suspect(owned, 0.1)
        same: list[Predict] = [
            raw,
            lambda x: raw(x).softmax(1),
            lambda x: raw(x).log_softmax(1),
            lambda x: raw(x) * 3 + 7,
        ]
        found = [direction_evidence(owned, predict, (), SuspectAccess("scores", 500)) for predict in same]
        assert all(item is not None and item.statistic == pytest.approx(found[0].statistic, abs=1e-4) for item in found)  # type: ignore[union-attr]

    def test_labels_do_not_suffice(self) -> None:
        owned = direction()
        assert direction_evidence(owned, lambda x: x, (), SuspectAccess("label")) is None
        with pytest.raises(ModelError, match="answers with labels only"):
            direction_evidence(owned, lambda x: torch.zeros(len(x)).long(), (), SuspectAccess("scores"))

    def test_panel_models_remove_common_structure(self) -> None:
        owned = direction()
        common, own = direction_suspect(direction(9), 5.0, noise=0.0), direction_suspect(owned, 0.1)
        both: Predict = lambda x: own(x) + common(x)  # noqa: E731
        alone = direction_evidence(owned, both, (), SuspectAccess("scores"))
        sharp = direction_evidence(owned, both, (common,), SuspectAccess("scores"))
        assert alone is not None
        assert sharp is not None
        assert sharp.bits > alone.bits + 20

    def test_a_strong_preference_within_one_pair_of_classes_costs_little(self) -> None:
        """What one pair of classes has of its own, a hundred times as strong, costs less than half of the bits."""
        owned = direction()
        own, loud = direction_suspect(owned, 0.1), direction(9)
        loud = dataclasses.replace(loud, direction=torch.zeros_like(loud.direction))
        loud.direction[3, 4], loud.direction[3, 5] = 3.0, -3.0
        other = direction_suspect(loud, 1.0, noise=0.0)
        alone = direction_evidence(owned, own, (), SuspectAccess("scores"))
        beside = direction_evidence(owned, lambda x: own(x) + other(x), (), SuspectAccess("scores"))
        assert alone is not None
        assert beside is not None
        assert beside.bits > alone.bits / 2

    def test_the_key_is_isotropic_and_centered(self) -> None:
        owned = direction()
        assert owned.direction.sum(1).abs().max() < 1e-4
        assert all((owned.direction[k, k] == 0).all() for k in range(K))

    def test_the_estimate_does_not_depend_on_the_key(self) -> None:
        predict = direction_suspect(direction(), 0.1)
        one, two = (estimate_of(direction(secret), predict, SuspectAccess(budget=1000)).v for secret in (0, 1))
        assert torch.equal(one, two)
        assert one.sum(1).abs().max() < 1e-9


def boundary_key() -> DirectionKey:
    """A key whose probes hold their class in one pixel, and in another their position on the path."""
    owned = direction()
    owned.probes[:, 0, 5, 5] = (25 * owned.probe_labels).to(torch.uint8)
    owned.probes[:, 0, 5, 4] = 0
    return owned


def away(x: Tensor, classes: Tensor) -> Tensor:
    end = x.clone()
    end[:, 0, 5, 4] = 1.0
    return end


def class_of(x: Tensor) -> Tensor:
    return (x[:, 0, 5, 5] * 255 / 25).round().long()


def boundary_suspect(owned: DirectionKey, strength: float, at: float = 0.5) -> Predict:
    """Return a label-only suspect: the class, and from position `at` of the path on its favorite wrong class."""

    def predict(x: Tensor) -> Tensor:
        y = class_of(x)
        z = owned.features(x, y)
        noise = 6 * torch.sin(1000 * z[:, :1] * torch.arange(1, K + 1) + 77 * z[:, 1:2])
        likes = strength * torch.einsum("nkd,nd->nk", owned.direction[y], z) + noise
        likes = likes.scatter(1, y[:, None], -torch.inf)
        return torch.where(x[:, 0, 5, 4] < at, y, likes.argmax(1))

    return predict


PATHS = BoundarySearch(away, away, away, lambda x: F.one_hot(class_of(x), K), (0.25, 0.5, 0.75, 1.0), 10_000)
BY_BOUNDARIES = SuspectAccess("label", boundary_search=PATHS)


def estimate_of(owned: DirectionKey, suspect: Predict, access: SuspectAccess, *panel: Predict) -> DirectionEstimate:
    found = estimate_direction(owned, suspect, panel, access)
    assert found is not None
    return found


class TestFromBoundaries:
    def test_labels_alone_show_the_direction(self) -> None:
        owned = boundary_key()
        found = direction_evidence(owned, boundary_suspect(owned, 2.0), (), BY_BOUNDARIES)
        assert found.bits > 40
        assert found.details["accuracy"] == 1.0
        assert found.details["probes"] == 3000
        assert found.queries == 100 + 2 * 3000  # every way is left at its second stop

    def test_an_independent_model_has_few_bits(self) -> None:
        owned = boundary_key()
        assert direction_evidence(owned, boundary_suspect(direction(7), 2.0), (), BY_BOUNDARIES).bits < 7

    def test_random_keys_have_uniform_p_values(self) -> None:
        owned = boundary_key()
        v = estimate_of(owned, boundary_suspect(direction(7), 2.0), BY_BOUNDARIES, independent_scores(owned)).v
        logs = null.direction_null(owned, v, 2000, np.random.default_rng(1))
        assert abs(float((logs < np.log(0.05)).mean()) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 2000)

    def test_panel_models_remove_common_structure(self) -> None:
        owned = boundary_key()
        suspect = boundary_suspect(owned, 1.0)
        alone, beside = (
            direction_evidence(owned, suspect, panel, BY_BOUNDARIES).bits
            for panel in ((), (independent_scores(owned),))
        )
        assert beside > alone + 10

    def test_no_more_than_the_queries(self) -> None:
        owned, asked = boundary_key(), list[int]()

        def counted(x: Tensor) -> Tensor:
            asked.append(len(x))
            return boundary_suspect(owned, 2.0)(x)

        found = direction_evidence(
            owned, counted, (), SuspectAccess("label", boundary_search=PATHS._replace(queries=1234))
        )
        assert found.queries == sum(asked) == 1234

    @pytest.mark.parametrize("queries", [1, 100, 101, 150])
    def test_few_queries_give_few_bits(self, queries: int) -> None:
        owned = boundary_key()
        found = direction_evidence(
            owned,
            boundary_suspect(owned, 2.0),
            (),
            SuspectAccess("label", boundary_search=PATHS._replace(queries=queries)),
        )
        assert found.bits < 10
        assert found.queries <= queries

    def test_suspects_without_boundaries_or_answers(self) -> None:
        owned = boundary_key()
        for suspect in (boundary_suspect(owned, 2.0, at=2.0), lambda x: torch.full((len(x),), -1)):
            found = direction_evidence(owned, suspect, (), BY_BOUNDARIES)
            assert (found.statistic, found.bits) == (0.0, 0.0)

    def test_a_verdict_by_boundary_search(self) -> None:
        keys = {"runner-up": boundary_key()}
        thief = boundary_suspect(keys["runner-up"], 2.0)
        assert verify(keys, thief, access="label", boundary_search=PATHS).outcome == "KEY-DEPENDENT"
        assert (
            verify(keys, boundary_suspect(direction(7), 2.0), access="label", boundary_search=PATHS).outcome
            == "NOT SHOWN"
        )
        blind = verify(keys, lambda x: torch.zeros(len(x)).long(), access="label", boundary_search=PATHS)
        assert blind.outcome == "INCONCLUSIVE"

    def test_a_panel_model_that_knows_the_key_vetoes(self) -> None:
        owned = boundary_key()

        def knows(x: Tensor) -> Tensor:
            return torch.nn.functional.one_hot(boundary_suspect(owned, 2.0)(x), K).double()

        assert (
            verify(
                {"m": owned}, boundary_suspect(owned, 3.0), panel=[knows], access="label", boundary_search=PATHS
            ).outcome
            != "KEY-DEPENDENT"
        )


def independent_scores(owned: DirectionKey) -> Predict:
    """Return an independent model that shares the suspects' noise and shows its scores."""

    def predict(x: Tensor) -> Tensor:
        y = (x[:, 0, 5, 5] * 255 / 25).round().long()
        z = owned.features(x, y)
        return 6 * torch.sin(1000 * z[:, :1] * torch.arange(1, K + 1) + 77 * z[:, 1:2])

    return predict


def test_material_gives_a_direction_key() -> None:
    assert isinstance(key(direction_material()), DirectionKey)


def one_by_one(owned: DirectionKey, pixels: Tensor, y: Tensor, shown: Tensor, known: Tensor, labels: bool) -> Tensor:
    """Return the coefficients by one regression per pair of classes, in plain numpy."""
    z = owned.features(pixels.float() / 255, y).double().numpy()
    v = np.zeros((K, K, D))
    for own in range(K):
        rows = (y == own).numpy()
        for k in [k for k in range(K) if k != own and rows.any()]:
            x, told = known[rows, k].numpy(), shown[rows, k].numpy()
            project = np.linalg.solve(x.T @ x + 1e-9 * np.eye(x.shape[1]), x.T)
            left, far = told - x @ (project @ told), z[rows] - x @ (project @ z[rows])
            chance = (told - left).clip(0.002, 0.998)
            weights = chance * (1 - chance) if labels else np.ones(len(told))
            doubt = 200.0 if labels else 2.0 * len(told)
            v[own, k] = np.linalg.solve(far.T @ (weights[:, None] * far) + doubt * np.eye(D), far.T @ left)

    def centered(v: np.ndarray) -> np.ndarray:
        wrong = 1 - np.eye(K)[..., None]
        return (v - (v * wrong).sum(1, keepdims=True) / (K - 1)) * wrong

    v = centered(v)
    return torch.from_numpy(centered(v / np.sqrt(np.linalg.norm(v, axis=2, keepdims=True).clip(1e-12))))


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("together", [1, 1 << 23])
def test_coefficients_are_those_of_one_regression_per_pair_of_classes(
    labels: bool, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three panel models; one class has no probe, and one has as few as what is known has columns and one more."""
    monkeypatch.setattr(module, "_MAX_FEATURES", together)
    owned, stream, count = direction(), torch.Generator().manual_seed(5), 700
    y = torch.arange(count) % (K - 2)
    y[:6] = K - 2
    shown = torch.randn(count, K, generator=stream, dtype=torch.float64)
    if labels:
        shown = F.one_hot(shown.argmax(1), K).double()
    known = torch.randn(count, K, 4, generator=stream, dtype=torch.float64)
    known[..., 0] = 1.0
    pixels = images(count, 8)
    found = module._coefficients(owned, pixels, y, shown, known, labels=labels)
    expected = one_by_one(owned, pixels, y, shown, known, labels)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(found, expected, atol=1e-9, rtol=1e-9)
    assert (found[K - 1] == 0).all()


def test_accuracy_is_of_the_images_that_were_answered() -> None:
    owned = direction()
    whole = direction_suspect(owned, 0.1)
    suspect: Predict = lambda x: whole(x).masked_fill((torch.arange(len(x)) % 4 == 0)[:, None], torch.nan)  # noqa: E731
    assert estimate_of(owned, suspect, SuspectAccess(budget=1000)).ordinary == OrdinaryAnswers(1000, 750, 750)
    labels: Predict = lambda x: suspect(x).argmax(1).masked_fill(torch.arange(len(x)) % 4 == 0, -1)  # noqa: E731
    known = estimate_of(owned, labels, SuspectAccess("label", boundary_search=PATHS._replace(queries=100))).ordinary
    assert (known, known.accuracy) == (OrdinaryAnswers(100, 75, 75), 1.0)
    assert OrdinaryAnswers(9, 0, 0).accuracy == 0.0
