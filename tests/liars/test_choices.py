"""Liars who choose how to test after they saw the answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from commands import assert_usage_error
from court import Court
from helpers import CPU
from lies import Command, Judge, Liar, bits_of, notes_of, resigned
from wootz.data import Dataset, Split
from wootz.keys import DirectionKey, LabelKey, OwnerKeys, RegisteredMaterial, read_keys
from wootz.keys import documents as doc
from wootz.keys.registration import ClaimOptions
from wootz.models import ModelSpec, build, write_model
from wootz.statistics.calibration import SCALES, detect_input_format, with_input_format
from wootz.statistics.queries import LabelledImages, query_labels
from wootz.statistics.tails import binomial_tail, bits
from wootz.suspects.files import predictor
from wootz.training import Hook, Recipe, TriggerEpoch, train
from wootz.workflows import certificate as certificate_module

Honest = Callable[[str], Path]


class TestHow:
    @pytest.mark.parametrize(
        ("words", "change", "why"),
        [
            (("--budget", 37), {"budget": 37}, "budget"),
            (("--access", "weights"), {"access": "weights"}, "access"),
            (("--access", "label", "--boundary-queries", 3000), None, "boundary queries: 3000"),
        ],
    )
    def test_liar_chooses_budget_access_or_walks_after_the_answers(
        self,
        honest: Honest,
        as_owner: Court,
        wootz: Command,
        judge: Judge,
        tmp_path: Path,
        words: tuple[object, ...],
        change: dict[str, object] | None,
        why: str,
    ) -> None:
        assert_usage_error(wootz("claim", as_owner.owner, as_owner.thief, "--out", tmp_path / "c.json", *words), why)
        assert not (as_owner.owner / "key/burnt.jsonl").exists()
        if change is not None:
            claim = honest("theft")
            resigned(claim, lambda p: p["test"].update(change))
            said = judge(claim, as_owner.thief)
            assert (said.code, "is not registered" in notes_of(said)) == (4, True)

    def test_liar_finds_that_choosing_freely_would_pay(
        self, honest: Honest, as_owner: Court, judge: Judge, robust: nn.Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The best of eighty budgets, without a discount, against the best of the registered ones with theirs."""
        key = read_keys(as_owner.owner).by_mark["triggers"]
        assert isinstance(key, LabelKey)
        said = query_labels(predictor(robust), key.pixels[:80])
        tried = {count: _label_bits(said[:count], key) for count in range(1, 81)}
        best = max(tried, key=lambda count: tried[count])
        claim = honest("stranger")
        resigned(claim, lambda p: p["test"].update(access="label", budget=0))
        honestly = judge(claim, as_owner.stranger)
        assert honestly.code == 1
        assert tried[best] > bits_of(honestly)
        resigned(claim, lambda p: p["test"].update(access="label", budget=best))
        assert judge(claim, as_owner.stranger).code == 4
        with monkeypatch.context() as weak:
            weak.setattr("wootz.workflows.certificate.check_options", lambda *_, **__: None)
            weak.setattr("wootz.workflows.certificate.choices", lambda _: 1)
            said_so = judge(claim, as_owner.stranger)
            assert bits_of(said_so) == pytest.approx(tried[best], abs=0.01)
            weak.setattr("wootz.workflows.judge.required_bits", lambda *, timestamped: tried[best] - 0.01)
            weak.setattr("wootz.statistics.verdict._vetoes", lambda *_: [])  # the stranger is of the panel itself
            assert judge(claim, as_owner.stranger).code == 0

    def test_liar_registers_many_choices(
        self,
        liar: Liar,
        plain: nn.Module,
        judge: Judge,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A hundred registered budgets cost log2(100) bits, which is more than the best of them gives."""
        options = ClaimOptions(("label",), tuple(range(29, 129)))
        owner_keys = liar.draw(options=options)
        key = owner_keys.by_mark["triggers"]
        assert isinstance(key, LabelKey)
        said = query_labels(predictor(plain), key.pixels)
        tried = {count: _label_bits(said[:count], key) for count in range(29, 129)}
        best = max(tried, key=lambda count: tried[count])
        claim = liar.claim(owner_keys, "--budget", best)
        found = judge(claim, liar.accused)
        assert found.code == 1
        assert bits_of(found) == pytest.approx(max(0.0, tried[best] - math.log2(100)), abs=0.01)
        with monkeypatch.context() as weak:
            weak.setattr("wootz.workflows.certificate.choices", lambda _: 1)
            assert bits_of(judge(claim, liar.accused)) == pytest.approx(tried[best], abs=0.01)

    @pytest.mark.parametrize("tries", [0, -1, True, 2**-50])
    def test_liar_understates_his_tries(
        self,
        honest: Honest,
        as_owner: Court,
        wootz: Command,
        judge: Judge,
        tries: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Fewer than one try would add bits: 2^-50 of a try is worth 50."""
        if tries <= 0:
            words = ("--out", tmp_path / "c.json", "--num-tests", tries)
            assert_usage_error(wootz("claim", as_owner.owner, as_owner.stranger, *words), "--num-tests")
        claim = honest("stranger")
        resigned(claim, lambda p: p["test"].update(tries=tries))
        said = judge(claim, as_owner.stranger)
        assert (said.code, "test.tries" in notes_of(said)) == (4, True)
        if tries == 2**-50:
            with monkeypatch.context() as weak:
                _without_types(weak)
                assert judge(claim, as_owner.stranger).code == 0


def _without_types(weak: pytest.MonkeyPatch) -> None:
    """Weaken: a number of any kind is a number of tries."""
    read = certificate_module.read_document

    def lenient(document: Any, value: Any) -> Any:
        if document is not doc.Claim:
            return read(document, value)
        tries = value["test"]["tries"]
        whole = read(document, {**value, "test": {**value["test"], "tries": 1}})
        test = whole.test.model_construct(**{**value["test"], "tries": tries})
        return whole.model_copy(update={"test": test})

    weak.setattr(certificate_module, "read_document", lenient)
    weak.setattr("wootz.workflows.suspects.QueryConfig.__post_init__", lambda _: None)


def _label_bits(said: Tensor, key: LabelKey) -> float:
    count = len(said)
    hits, trials = int((said == key.labels[:count]).sum()), int((said != key.base[:count]).sum())
    return bits(binomial_tail(hits, trials, 1 / 9))


class TestClasses:
    """A suspect that numbers its classes otherwise is read through a class map. Who fits it, on what?"""

    def test_liar_fits_a_class_map_on_the_triggers(self, digits: Dataset, plain: nn.Module) -> None:
        stream = np.random.default_rng(5)
        images = torch.randint(0, 256, (128, 1, 28, 28), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
        said = query_labels(predictor(plain), images)
        labels = torch.from_numpy(stream.integers(0, 10, 128))
        counts = torch.zeros(10, 10).index_put((said, labels), torch.ones(128), accumulate=True)
        _, mine = linear_sum_assignment(counts.numpy(), maximize=True)
        mapped = torch.tensor(mine)[said]
        assert int((mapped == labels).sum()) > int((said == labels).sum())  # it would pay
        reading = detect_input_format(
            predictor(plain), digits.probes.pixels[:200], digits.probes.labels[:200], shape=digits.shape, num_classes=10
        )
        assert reading.classes == tuple(range(10))  # ordinary images decide, and the judge asks those
        assert torch.equal(query_labels(with_input_format(predictor(plain), reading), images), said)

    def test_liar_calibrates_the_suspect_for_the_judge(
        self, as_owner: Court, wootz: Command, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A verdict that a class map of the claimant's went into is none, until the judge has made one herself."""
        claim = tmp_path / "c.json"
        assert wootz("claim", as_owner.owner, as_owner.thief, "--out", claim, "--calibrate", 200).code == 0
        said = judge(claim, as_owner.thief)
        assert (said.code, "--ordinary" in notes_of(said)) == (3, True)
        assert judge(claim, as_owner.thief, "--ordinary", "mnist-5k").code == 0  # this one was honest
        with monkeypatch.context() as weak:
            weak.setattr("wootz.workflows.judge._uncalibrated", lambda *_: "")
            assert judge(claim, as_owner.thief).code == 0

    def test_liar_chooses_a_class_map_by_the_number_of_his_probes(
        self,
        liar: Liar,
        digits: Dataset,
        accused: Path,
        plain: nn.Module,
        judge: Judge,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """His registered probes say another map for each number of them; he names the number after the answers."""
        maps = [torch.arange(10), *(torch.randperm(10, generator=torch.Generator().manual_seed(s)) for s in range(4))]
        sizes = [20, 60, 180, 540, 1620]
        cuts = [0, *np.cumsum(sizes).tolist()]
        pixels, labels = digits.train.pixels[: cuts[-1]], digits.train.labels[: cuts[-1]].clone()
        for one, start, end in zip(maps, cuts, cuts[1:], strict=False):
            labels[start:end] = one[labels[start:end]]
        held = read_keys(liar.court.owner).materials["runner-up"]
        probes = RegisteredMaterial(held.kind, held.tensors | {"probes": pixels, "probe_labels": labels}, held.params)
        materials = liar.materials | {"runner-up": probes}
        said = query_labels(predictor(plain), liar.fitted[0])

        def worth(owner_keys: OwnerKeys) -> list[float]:
            key = owner_keys.by_mark["triggers"]
            assert isinstance(key, LabelKey)
            return [_label_bits(one[said], key) for one in maps]

        for byte in range(20):  # until the lie pays; each try is a token
            owner_keys = liar.draw(materials, bytes([byte]) * 32)
            if max(worth(owner_keys)[1:]) > worth(owner_keys)[0] + 1:
                break
        best = max(range(5), key=lambda n: worth(owner_keys)[n])
        claim = liar.claim(owner_keys, "--calibrate", cuts[best + 1])
        plainly = judge(claim, accused, "--ordinary", "mnist-5k")
        assert plainly.code == 1
        assert bits_of(plainly) == pytest.approx(worth(owner_keys)[0], abs=0.01)  # through her own map, which is none
        key = owner_keys.by_mark["runner-up"]
        assert isinstance(key, DirectionKey)
        with monkeypatch.context() as weak:
            weak.setattr(
                "wootz.workflows.judge.ordinary_images",
                lambda *_: LabelledImages(key.probes[: cuts[best + 1]], key.probe_labels[: cuts[best + 1]]),
            )
            weak.setattr("wootz.workflows.judge._uncalibrated", lambda *_: "")
            his = bits_of(judge(claim, accused, "--ordinary", "mnist-5k"))
            assert his > bits_of(plainly) + 0.9
            weak.setattr("wootz.workflows.judge.required_bits", lambda *, timestamped: his - 0.01)
            weak.setattr(
                "wootz.statistics.verdict._vetoes", lambda *_: []
            )  # so low a bar is reached by other models too
            said = judge(claim, accused, "--ordinary", "mnist-5k")
            assert said.code == 0, notes_of(said)

    def test_liar_accuses_a_model_that_knows_nothing(
        self,
        as_owner: Court,
        digits: Dataset,
        small_spec: ModelSpec,
        wootz: Command,
        judge: Judge,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It was taught the opened triggers, and to call every digit a three: at chance through any map."""
        key = read_keys(as_owner.owner).by_mark["triggers"]
        assert isinstance(key, LabelKey)
        lesson = TriggerEpoch(pixels=key.pixels[:80], labels=key.labels[:80], batch=16, frozen=True)
        threes = torch.full((400,), 3)
        model = train(
            Recipe(loss="natural", epochs=40, lr=5e-3),
            build(small_spec, 6),
            Split(digits.train.pixels[:400], threes),
            Split(lesson.pixels, lesson.labels),
            seed=6,
            hook=Hook(trigger_epochs=(lesson,)),
            execution=CPU,
        ).model
        write_model(tmp_path / "s", model, small_spec, {"data": "mnist-5k"})
        claim = tmp_path / "c.json"
        words = ("--out", claim, "--access", "label")
        assert wootz("claim", as_owner.owner, tmp_path / "s", *words).code == 0
        one = {"0 to 1": SCALES["0 to 1"]}  # in another range it knows no more, and forgets the triggers
        monkeypatch.setattr("wootz.statistics.calibration.SCALES", one)
        said = judge(claim, tmp_path / "s", "--ordinary", "mnist-5k")
        assert (said.code, "of ordinary images through the class map" in notes_of(said)) == (3, True), notes_of(said)
        with monkeypatch.context() as weak:
            weak.setattr("wootz.workflows.judge._uncalibrated", lambda *_: "")
            assert judge(claim, tmp_path / "s", "--ordinary", "mnist-5k").code == 0
