"""DAWN as its paper has it: keyed answers to exact queries, of all answers, and both tests of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers import context, mark_context
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction import BudgetedOracle
from wootz.attacks.extraction.retrain import Retrain, retrain
from wootz.data import Dataset
from wootz.errors import ConfigError, StoreError
from wootz.keys import AnswerKey, LabelKey, RegisteredMaterial, derive_key, key_from_log
from wootz.keys.answer_log import read_log
from wootz.keys.keyed_answers import changed_class, exact_digests, is_keyed
from wootz.models import ModelSpec
from wootz.rng import generator
from wootz.statistics.exact_tests import label_evidence
from wootz.statistics.queries import SuspectAccess
from wootz.statistics.tails import binomial_tail, bits
from wootz.suspects.files import predictor
from wootz.training import Hook
from wootz.watermarks import MARKS, AnswerFilter, Dawn, Guard, RunnerUp, check_compatible
from wootz.workflows.protection import Protection

OFTEN = Dawn(share=0.05)


def key_of(data: Dataset, cfg: Dawn = OFTEN, secret: int = 0) -> AnswerKey:
    material = MARKS["dawn"].prepare(cfg, mark_context(data), generator(0, "pick"))
    key = derive_key("dawn", material, len(data.classes), [secret.to_bytes(32, "big")], b"D" * 32)
    assert isinstance(key, AnswerKey)
    return key


def test_what_is_registered(digits: Dataset) -> None:
    material = MARKS["dawn"].prepare(Dawn(), mark_context(digits), generator(0, "pick"))
    assert material == RegisteredMaterial("answers", {}, {"share": "1/200", "digest": "exact"})
    assert MARKS["dawn"].train_hook(Dawn(), key_of(digits), digits, seed=0) == Hook()


def test_what_is_refused(digits: Dataset) -> None:
    with pytest.raises(ConfigError, match="share"):
        Dawn(share=0.5)
    with pytest.raises(ConfigError, match="mark 'dawn': needs at least three classes"):
        key_of(replace(digits, classes=("a", "b")))
    with pytest.raises(ConfigError, match="'guard' and 'dawn' both change the answers"):
        Protection(marks=("triggers", "guard", "dawn"))
    check_compatible([Guard(), RunnerUp()])


def test_every_answer_may_change_and_one_level_changes_its_fate(
    digits: Dataset, plain: nn.Module, tmp_path: Path
) -> None:
    key, images = key_of(digits), digits.thief.images()
    scores = predict_logits(plain, images)
    with AnswerFilter(key, tmp_path / "log", shape=digits.shape) as answer_filter:
        filtered = answer_filter(images, scores)
        assert torch.equal(answer_filter(images, scores), filtered)
    changed = (filtered != scores).any(1)
    assert 0.02 < changed.float().mean() < 0.09
    digests = exact_digests(digits.thief.pixels)
    assert changed.tolist() == [is_keyed(key, digest) for digest in digests]
    for row in changed.nonzero().flatten().tolist():
        base = int(scores[row].argmax())
        assert int(filtered[row].argmax()) == changed_class(key, digests[row], base) != base
    top = scores.topk(2).values
    assert (top[:, 0] - top[:, 1])[changed].median() > (top[:, 0] - top[:, 1]).quantile(0.2)
    near = digits.thief.pixels[changed].clone()
    near[:, 0, 0, 0] ^= 1
    with AnswerFilter(key, tmp_path / "other", shape=digits.shape) as answer_filter:
        again = answer_filter(near.float() / 255, scores[changed])
    assert (again != scores[changed]).any(1).float().mean() < 0.3


def test_a_log_is_checked_by_exact_digests(digits: Dataset, plain: nn.Module, tmp_path: Path) -> None:
    key, images = key_of(digits), digits.thief.images()
    with AnswerFilter(key, tmp_path / "log", shape=digits.shape) as answer_filter:
        answer_filter(images, predict_logits(plain, images))
    log = read_log(key, tmp_path / "log")
    assert len(log.base) == len(key_from_log(key, tmp_path / "log").pixels) > 10
    assert list(log.digests) == exact_digests(log.pixels)
    with pytest.raises(StoreError, match="is the log of another key"):
        read_log(key_of(digits, secret=1), tmp_path / "log")


def test_the_paper_s_test_beside_the_exact_one() -> None:
    pixels, base = torch.zeros(40, 1, 2, 2, dtype=torch.uint8), torch.zeros(40).long()
    key = LabelKey(
        mark="dawn",
        rule="wrong",
        num_classes=10,
        pixels=pixels,
        base_pixels=pixels,
        base=base,
        labels=base + 1,
        logged=True,
    )
    answers = torch.tensor([1] * 12 + [2] * 3 + [0] * 25)
    evidence = label_evidence(key, lambda x: answers, (), SuspectAccess("label"))
    assert (evidence.details["accuracy"], evidence.details["hits"], evidence.details["trials"]) == (0.3, 12, 15)
    assert evidence.details["unconditional"] == round(bits(binomial_tail(12, 40, 0.1)), 2)
    assert evidence.log_p == binomial_tail(12, 15, 1 / 9)
    assert (
        "unconditional"
        not in label_evidence(replace(key, logged=False), lambda x: answers, (), SuspectAccess("label")).details
    )


@pytest.mark.long
def test_a_thief_who_memorizes_carries_it_and_an_independent_model_does_not(
    digits: Dataset, small_spec: ModelSpec, plain: nn.Module, robust: nn.Module, tmp_path: Path
) -> None:
    key, answer = key_of(digits), predictor(plain)
    with AnswerFilter(key, tmp_path / "log", shape=digits.shape) as answer_filter:
        victim = BudgetedOracle(lambda x: answer_filter(x, answer(x)), access="label", num_classes=10)
        wide = replace(small_spec, settings={"width": 16, "hidden": 64})
        extracted = retrain(Retrain(labels="hard", epochs=60), victim, context(digits.thief, wide))
    logged = key_from_log(key, tmp_path / "log")
    own, served, other = (
        label_evidence(logged, predictor(model), (), SuspectAccess("label")) for model in (extracted, plain, robust)
    )
    assert own.bits > 40
    assert own.details["accuracy"] > 0.4
    assert own.bits > own.details["unconditional"] > 20
    assert served.bits == 0
    assert other.bits < 10
    assert other.details["accuracy"] < 0.2
