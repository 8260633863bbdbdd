from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers import context, mark_context
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction import BudgetedOracle
from wootz.attacks.extraction.retrain import Retrain, retrain
from wootz.data import Dataset
from wootz.errors import ConfigError, ModelError, StoreError
from wootz.keys import AnswerKey, derive_key, key_from_log
from wootz.keys.answer_log import read_log
from wootz.keys.keyed_answers import digests, preferred_class, projections
from wootz.models import ModelSpec
from wootz.rng import generator
from wootz.statistics.exact_tests import preference_evidence
from wootz.statistics.queries import SuspectAccess
from wootz.suspects.files import predictor
from wootz.training import Hook
from wootz.watermarks import MARKS, AnswerFilter, CalibrationScores, Guard
from wootz.watermarks.answer_filter import uncertainty_threshold
from wootz.watermarks.guard import prepare_guard

OFTEN = Guard(cost=0.1, most=0.1)


def key_of(cfg: Guard, data: Dataset, secret: int = 0) -> AnswerKey:
    material = prepare_guard(cfg, mark_context(data), generator(0, "pick"))
    key = derive_key("guard", material, len(data.classes), [secret.to_bytes(32, "big")], b"D" * 32)
    assert isinstance(key, AnswerKey)
    return key


class Service:
    """A model behind a guard: its scores on the thief's images, and the key and log that change them."""

    def __init__(self, digits: Dataset, model: nn.Module, place: Path, cfg: Guard = OFTEN) -> None:
        self.key, self.log, self.shape = key_of(cfg, digits), place / "guard.jsonl", digits.shape
        self.images = digits.thief.images()
        self.scores = predict_logits(model, self.images)
        self.calibration = CalibrationScores(
            predict_logits(model, digits.validation.images()), digits.validation.labels
        )

    def open(self, allow: Tensor | None = None) -> AnswerFilter:
        return AnswerFilter(self.key, self.log, shape=self.shape, calibration=self.calibration, allow=allow)


@pytest.fixture
def service(digits: Dataset, plain: nn.Module, tmp_path: Path) -> Service:
    return Service(digits, plain, tmp_path)


class TestConfig:
    @pytest.mark.parametrize("wrong", [{"cost": 0}, {"most": 2}, {"grid": 0}, {"step": 0}, {"margin": 128}])
    def test_out_of_range(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Guard(**wrong)  # type: ignore[arg-type]

    def test_what_is_registered_is_exact(self, digits: Dataset) -> None:
        material = prepare_guard(Guard(), mark_context(digits), generator(0, "pick"))
        assert (material.kind, material.tensors, material.tranches) == ("answers", {}, 1)
        assert (material.params["cost"], material.params["most"], material.params["rule"]) == ("1/200", "1/5", "order")

    def test_the_row_adds_nothing_to_training(self, digits: Dataset) -> None:
        row = MARKS["guard"]
        assert row.config is Guard
        assert row.train_hook(Guard(), key_of(Guard(), digits), digits, seed=0) == Hook()


class TestGap:
    """Ten images from the least sure on; what a coin costs after each, in twentieths: 1, 2, 1, 2, 3, 4, ..."""

    scores = torch.stack([torch.arange(1.0, 11) / 10, torch.zeros(10), torch.full((10,), -1.0)], 1)
    labels = torch.tensor([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])

    @pytest.mark.parametrize(
        ("cost", "most", "images"),
        [(0.05, 1.0, 1), (0.1, 1.0, 4), (0.15, 1.0, 5), (0.15, 0.4, 4), (0.5, 0.65, 6), (0.04, 1.0, 0), (0.5, 0.05, 0)],
    )
    def test_as_many_images_as_the_cost_allows(self, cost: float, most: float, images: int) -> None:
        shuffled = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
        gap = uncertainty_threshold(CalibrationScores(self.scores[shuffled], self.labels[shuffled]), cost + 1e-9, most)
        assert int((self.scores[:, 0] <= gap).sum()) == images

    def test_the_cost_is_what_a_coin_takes_on_average(self, service: Service) -> None:
        scores, labels = service.calibration
        top = scores.topk(2)
        uncertain = top.values[:, 0] - top.values[:, 1] <= uncertainty_threshold(service.calibration, 0.004, 1.0)
        right = (top.indices == labels[:, None]).double()
        coins = torch.rand(500, len(labels), generator=generator(0, "coins")) < 0.5
        served = torch.where(coins & uncertain, right[:, 1], right[:, 0]).mean()
        assert uncertain.any()
        assert float(right[:, 0].mean() - served) == pytest.approx(0.004, abs=0.002)


class TestAnswers:
    def test_a_coin_decides_between_the_two_likeliest_classes_of_unsure_answers(self, service: Service) -> None:
        with service.open() as answer_filter:
            filtered = answer_filter(service.images, service.scores)
        top = service.scores.topk(2)
        uncertain = (top.values[:, 0] - top.values[:, 1]) <= uncertainty_threshold(service.calibration, 0.1, 0.1)
        changed = (filtered != service.scores).any(1)
        assert not (changed & ~uncertain).any()
        assert 0.3 < changed[uncertain].float().mean() < 0.7
        assert torch.equal(filtered.sort(1).values, service.scores.sort(1).values)
        at, rows = projections(service.key, service.shape), uncertain.nonzero().flatten()
        pixels = service.images[rows].mul(255).round().to(torch.uint8)
        for row, digest in zip(rows.tolist(), digests(at, pixels), strict=True):
            base, second = top.indices[row].tolist()
            assert int(filtered[row].argmax()) == preferred_class(service.key, digest, base, second)
            assert set(filtered[row].topk(2).indices.tolist()) == {base, second}

    def test_nothing_given_is_changed(self, service: Service) -> None:
        images, scores = service.images.clone(), service.scores.clone()
        with service.open() as answer_filter:
            answer_filter(service.images, service.scores)
        assert torch.equal(images, service.images)
        assert torch.equal(scores, service.scores)

    def test_the_same_whatever_was_asked_before(
        self, service: Service, digits: Dataset, plain: nn.Module, tmp_path: Path
    ) -> None:
        with service.open() as answer_filter:
            once = answer_filter(service.images, service.scores)
            assert torch.equal(answer_filter(service.images, service.scores), once)
        (tmp_path / "elsewhere").mkdir()
        with Service(digits, plain, tmp_path / "elsewhere").open() as answer_filter:
            for row in reversed(range(len(once))):
                image, scores = service.images[row : row + 1], service.scores[row : row + 1]
                assert torch.equal(answer_filter(image, scores)[0], once[row])

    def test_slight_noise_seldom_brings_the_true_answer_back(self, service: Service, plain: nn.Module) -> None:
        with service.open() as answer_filter:
            filtered = answer_filter(service.images, service.scores).argmax(1)
            moves = torch.randint(-2, 3, service.images.shape, generator=generator(0, "noise"))
            near = (service.images.mul(255).round() + moves).clamp(0, 255) / 255
            again = answer_filter(near, predict_logits(plain, near)).argmax(1)
        changed = filtered != service.scores.argmax(1)
        assert (again == filtered)[changed].float().mean() > 0.8

    def test_two_classes_have_an_order_too(self, digits: Dataset, tmp_path: Path) -> None:
        two = replace(digits, classes=("a", "b"))
        scores = torch.rand(200, 2, generator=generator(0, "two"))
        calibration = CalibrationScores(scores, torch.zeros(200).long())
        with AnswerFilter(
            key_of(OFTEN, two), tmp_path / "log", shape=digits.shape, calibration=calibration
        ) as answer_filter:
            changed = (answer_filter(digits.thief.images()[:200], scores) != scores).any(1)
            assert 0 < int(changed.sum()) < answer_filter.count <= 20

    def test_allowed_images_keep_the_model_s_answer(self, service: Service) -> None:
        with service.open() as answer_filter:
            changed = (answer_filter(service.images, service.scores) != service.scores).any(1)
        allow = service.images[changed][:5].mul(255).round().to(torch.uint8)
        with service.open(allow) as answer_filter:
            assert torch.equal(
                answer_filter(service.images[changed][:5], service.scores[changed][:5]), service.scores[changed][:5]
            )

    def test_rows_without_an_answer_stay_so(self, service: Service) -> None:
        scores = torch.full_like(service.scores, float("nan"))
        with service.open() as answer_filter:
            assert answer_filter(service.images, scores).isnan().all()
            assert answer_filter.count == 0

    def test_labels_are_no_scores(self, service: Service) -> None:
        with service.open() as answer_filter, pytest.raises(ModelError, match=r"changes scores \[N, 10\], not \[3\]"):
            answer_filter(service.images[:3], torch.zeros(3).long())


class TestLog:
    def test_holds_each_changed_image_once_and_goes_on(self, service: Service) -> None:
        half = len(service.images) // 2
        with service.open() as answer_filter:
            answer_filter(service.images[:half], service.scores[:half])
            first, head = answer_filter.count, answer_filter.head
        with AnswerFilter(service.key, service.log, shape=service.shape) as answer_filter:
            assert (answer_filter.count, answer_filter.head) == (first, head)
            filtered = answer_filter(service.images, service.scores)
            count, head = answer_filter.count, answer_filter.head
        log = read_log(service.key, service.log)
        assert 0 < first < count == len(set(log.digests)) == len(log.base)
        assert log.chains[-1] == head
        assert log.gap == uncertainty_threshold(service.calibration, 0.1, 0.1)
        assert ((log.answer == log.base) | (log.answer == log.second)).all()
        assert int((filtered != service.scores).any(1).sum()) >= int((log.answer != log.base).sum()) > 0
        gaps = service.scores.topk(2).values
        uncertain = gaps[:, 0] - gaps[:, 1] <= log.gap
        asked = {i.numpy().tobytes() for i in service.images[uncertain].mul(255).round().to(torch.uint8)}
        assert {image.numpy().tobytes() for image in log.pixels} <= asked
        assert service.log.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("cut", [10, -10])
    def test_goes_on_after_a_line_that_was_cut_off(self, cut: int, service: Service) -> None:
        with service.open() as answer_filter:
            answer_filter(service.images, service.scores)
            count = answer_filter.count
        service.log.write_bytes(service.log.read_bytes()[:cut])
        with service.open() as answer_filter:
            assert answer_filter.count == (0 if cut > 0 else count - 1)
            answer_filter(service.images, service.scores)
            assert answer_filter.count == count
        assert len(key_from_log(service.key, service.log).pixels) == count

    def test_a_new_one_needs_ordinary_scores(self, service: Service) -> None:
        with pytest.raises(ConfigError, match="needs the model's scores on ordinary images"):
            AnswerFilter(service.key, service.log, shape=service.shape)
        service.open().close()

    def test_one_that_was_changed_is_not_continued(self, service: Service) -> None:
        with service.open() as answer_filter:
            answer_filter(service.images, service.scores)
        data = service.log.read_bytes()
        service.log.write_bytes(data.replace(b'"base":', b'"base": ', 1))
        service.open().close()
        service.log.write_bytes(data.replace(b'"answer":', b'"answer":1', 1))
        with pytest.raises(StoreError, match="line 2: was changed"):
            service.open()
        service.log.write_bytes(data)
        service.open().close()

    def test_of_other_images(self, service: Service) -> None:
        service.open().close()
        with pytest.raises(StoreError, match=r"is of images \[1, 28, 28\], not \[3, 8, 8\]"):
            AnswerFilter(service.key, service.log, shape=(3, 8, 8))

    def test_one_service_a_log(self, service: Service) -> None:
        with service.open(), pytest.raises(StoreError, match="another process writes it"):
            service.open()

    def test_an_answer_that_can_not_be_logged_is_not_given(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with service.open() as answer_filter:
            before, head = service.log.read_bytes(), answer_filter.head
            with monkeypatch.context() as broken:
                broken.setattr("wootz.store.os.fsync", full)
                with pytest.raises(StoreError, match=r"No space left on device\); no answer was sent"):
                    answer_filter(service.images, service.scores)
            assert (service.log.read_bytes(), answer_filter.head, answer_filter.count) == (before, head, 0)
            answer_filter(service.images, service.scores)
            assert answer_filter.count == len(key_from_log(service.key, service.log).pixels) > 0

    def test_many_threads_leave_one_chain(self, service: Service) -> None:
        with service.open() as answer_filter:
            alone = answer_filter(service.images, service.scores)
            count = answer_filter.count
        service.log.unlink()
        parts = [slice(start, start + 200) for start in range(0, len(alone), 100)]
        with service.open() as answer_filter, ThreadPoolExecutor(8) as pool:
            filtered = list(pool.map(lambda part: answer_filter(service.images[part], service.scores[part]), parts))
            assert answer_filter.count == count
        assert all(torch.equal(got, alone[part]) for got, part in zip(filtered, parts, strict=True))
        assert len(read_log(service.key, service.log).base) == count


@pytest.mark.long
def test_a_thief_of_labels_learns_it_and_an_independent_model_does_not(
    service: Service, digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module
) -> None:
    answer = predictor(plain)
    with service.open() as answer_filter:
        victim = BudgetedOracle(lambda x: answer_filter(x, answer(x)), access="label", num_classes=10)
        wide = replace(small_spec, settings={"width": 16, "hidden": 64})
        extracted = retrain(Retrain(labels="hard", epochs=60), victim, context(digits.thief, wide))
    key = key_from_log(service.key, service.log)
    for access in ("label", "scores"):
        bits = [
            preference_evidence(key, predictor(m), (), SuspectAccess(access)).bits for m in (extracted, plain, robust)
        ]  # type: ignore[arg-type]
        assert bits[0] > 20
        assert max(bits[1:]) < 10
