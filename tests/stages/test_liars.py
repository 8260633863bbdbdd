"""Nine ways to claim a model that never met the key. Each liar does what he can; none is believed."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from authority import Authority
from court import Court
from helpers import CPU
from wootz.data import Dataset
from wootz.errors import SignatureError
from wootz.models import ModelSpec, build
from wootz.ownership import (
    LabelKey,
    Material,
    draw_keys,
    public_hex,
    registration_digest,
    sign_statement,
    signing_key,
    verify_statement,
)
from wootz.ownership.timestamps import timestamp_request
from wootz.stages.claim import CLAIM, claim_suspect
from wootz.stages.examine import examine
from wootz.stages.judge import Bench, Rival, judge_claim
from wootz.stages.register import REGISTERED
from wootz.stages.suspects import Asking
from wootz.store import canonical, read_tensors, write_tensors
from wootz.training import Recipe, train
from wootz.verify import null, predictor, verify
from wootz.verify.answers import labels_of
from wootz.verify.calibration import calibrate, calibrated
from wootz.verify.exact import binomial_tail, bits
from wootz.verify.sequential import walk

COUNT = 128
OWN = Asking(isolated=False)
EPS, WM_EPS = 0.1, 0.6


@pytest.fixture(scope="session")
def references(digits: Dataset, small_spec: ModelSpec) -> list[nn.Module]:
    """Three models of the liar's own, other than any that is accused."""
    recipe = Recipe(loss="natural", epochs=6, lr=5e-3)
    return [
        train(recipe, build(small_spec, s), digits.train, digits.validation, seed=s, execution=CPU).model
        for s in (31, 32, 33)
    ]


@pytest.fixture(scope="session")
def fitted(digits: Dataset, references: list[nn.Module]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images fitted to labels of the liar's choice on the ensemble: pixels, originals, their classes, the labels.

    False Claims (arXiv 2304.06607): signed steps against several models at once, which transfer to others.
    """
    few = digits.train.take(slice(COUNT))
    x, wanted = few.images(), (few.labels + 1 + torch.arange(COUNT) % 9) % 10
    made = x.clone()
    for _ in range(60):
        made.requires_grad_()
        loss = sum(nn.functional.cross_entropy(model(made), wanted) for model in references)
        (gradient,) = torch.autograd.grad(loss, made)  # type: ignore[arg-type]
        made = (made.detach() - 0.03 * gradient.sign()).clamp(x - WM_EPS + 0.01, x + WM_EPS - 0.01).clamp(0, 1)
    return (made * 255).round().to(torch.uint8), few.pixels, few.labels, wanted


def material(pixels: Tensor, originals: Tensor, classes: Tensor) -> Material:
    facts = {
        "eps": str(EPS), "alpha": "0.02", "wm_eps": str(WM_EPS), "rule": "wrong", "count": len(pixels), "tranches": 1
    }  # fmt: skip
    return Material("labels", {"pixels": pixels, "base_pixels": originals, "base": classes}, facts)


def drawn(what: Material, digits: Dataset, secret: bytes) -> LabelKey:
    """Register the liar's images and draw the key, as the protocol wants it."""
    ring = draw_keys(secret, {"triggers": what}, classes=digits.classes, shape=digits.shape, panel=[])
    key = ring.keys["triggers"]
    assert isinstance(key, LabelKey)
    return key


def naive(said: Tensor, wanted: Tensor) -> float:
    """Bits of the test that others use: hits against chance 1 / 10, whoever chose the labels."""
    return bits(binomial_tail(int((said == wanted).sum()), len(said), 0.1))


class TestTransfer:
    """Images that every model of the kind answers alike."""

    def test_labels_fitted_to_an_ensemble(
        self, fitted: tuple[Tensor, Tensor, Tensor, Tensor], digits: Dataset, plain: nn.Module, robust: nn.Module
    ) -> None:
        pixels, originals, classes, wanted = fitted
        assert naive(labels_of(predictor(plain), pixels), wanted) > 40  # the attack works, and fools the usual test
        key = drawn(material(pixels, originals, classes), digits, b"\1" * 32)
        for accused in (plain, robust):
            assert verify({"triggers": key}, predictor(accused)).word != "KEY-DEPENDENT"

    def test_an_image_is_ground_again_until_its_label_fits(
        self, fitted: tuple[Tensor, Tensor, Tensor, Tensor], digits: Dataset, plain: nn.Module
    ) -> None:
        pixels, originals, classes, _ = (tensor.clone() for tensor in fitted)
        said, tries, best = labels_of(predictor(plain), pixels), 300, 0.0
        at = 0
        for step in range(tries):
            key = drawn(material(pixels, originals, classes), digits, b"\2" * 32)
            best = max(best, verify({"triggers": key}, predictor(plain)).bits)
            missing = (key.labels != said).nonzero().flatten()
            at = int(missing[step % len(missing)])
            pixels[at, 0, 0, 0] ^= 1  # one gray level in a corner: another image, the same answer
        assert best < math.log2(tries) + 12  # one root over all images: each try draws all labels anew
        assert best < 40


def test_a_million_keys_are_ground(fitted: tuple[Tensor, ...], digits: Dataset, plain: nn.Module) -> None:
    pixels, originals, classes, _ = fitted
    key = drawn(material(pixels, originals, classes), digits, b"\3" * 32)
    said = labels_of(predictor(plain), pixels)
    best = bits(float(null.label_null(key, said, 2**20, np.random.default_rng(3)).min()))
    assert 12 < best < 40  # about 20, as many as were tried; the bar is out of reach


class TestSelection:
    """Answers chosen after they were seen."""

    @pytest.fixture
    def claim(self, as_owner: Court, tmp_path: Path) -> Path:
        (as_owner.owner / "key/burnt.jsonl").unlink(missing_ok=True)
        claim_suspect(as_owner.owner, as_owner.stranger, tmp_path / "c.json", OWN)
        return tmp_path / "c.json"

    def test_misses_are_dropped(self, claim: Path, as_owner: Court) -> None:
        keep = _hits(claim, as_owner)
        assert refused(claim, as_owner, lambda t: t | {k: t[k][keep] for k in t if k.startswith("triggers/")})

    def test_hits_come_first(self, claim: Path, as_owner: Court) -> None:
        hits = _hits(claim, as_owner)
        order = torch.argsort(~hits, stable=True)
        first = [(True, bool(hit)) for hit in hits[order]]
        assert walk(first, 1 / 9, 20).log_p < walk([(True, bool(h)) for h in hits], 1 / 9, 20).log_p  # it would pay
        assert refused(claim, as_owner, lambda t: t | {k: t[k][order] for k in t if k.startswith("triggers/")})

    def test_a_class_map_is_fitted_on_the_triggers(self, as_owner: Court, digits: Dataset, plain: nn.Module) -> None:
        stream = np.random.default_rng(5)
        images = torch.randint(0, 256, (COUNT, 1, 28, 28), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
        said = labels_of(predictor(plain), images)
        labels = torch.from_numpy(stream.integers(0, 10, COUNT))
        counts = torch.zeros(10, 10).index_put((said, labels), torch.ones(COUNT), accumulate=True)
        _, mine = linear_sum_assignment(counts.numpy(), maximize=True)
        mapped = torch.tensor(mine)[said]
        assert int((mapped == labels).sum()) > int((said == labels).sum())  # it would pay
        reading = calibrate(
            predictor(plain), digits.probes.pixels[:200], digits.probes.labels[:200], shape=digits.shape, num_classes=10
        )
        assert reading.classes == tuple(range(10))  # ordinary images decide, and the judge asks those
        assert torch.equal(labels_of(calibrated(predictor(plain), reading), images), said)


def _hits(claim: Path, court: Court) -> Tensor:
    proven = examine(claim.read_bytes(), claim.with_suffix(".safetensors"), authorities=court.authority.roots)
    key = proven.keys["triggers"]
    assert isinstance(key, LabelKey)
    from wootz.models import read_model

    return labels_of(predictor(read_model(court.stranger)[0]), key.pixels) == key.labels


def refused(claim: Path, court: Court, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> bool:
    """Return whether a judge refuses a claim whose material was changed and signed again by its owner."""
    from wootz.store import file_digest

    path = claim.with_suffix(".safetensors")
    write_tensors(path, change(read_tensors(path)))
    told = verify_statement(claim.read_bytes(), CLAIM)
    data = sign_statement(signing_key(), told.subject, CLAIM, dict(told.predicate) | {"material": file_digest(path)})
    claim.write_bytes(data)
    return (
        judge_claim(claim, court.stranger, Bench(authorities=court.authority.roots, isolated=False)).verdict
        == "INVALID CLAIM"
    )


class TestTime:
    """A registration that would like to be older than it is."""

    @pytest.fixture
    def claim(self, as_owner: Court, tmp_path: Path) -> Path:
        (as_owner.owner / "key/burnt.jsonl").unlink(missing_ok=True)
        claim_suspect(as_owner.owner, as_owner.thief, tmp_path / "c.json", OWN)
        return tmp_path / "c.json"

    def restamped(self, claim: Path, token: Callable[[dict[str, Any]], bytes]) -> bytes:
        told = verify_statement(claim.read_bytes(), CLAIM)
        first = verify_statement(canonical(told.predicate["registered"]), REGISTERED)
        stamped = dict(first.predicate)
        stamped["token"] = base64.b64encode(token(stamped["registration"])).decode()
        again = json.loads(sign_statement(signing_key(), first.subject, REGISTERED, stamped))
        return sign_statement(
            signing_key(), told.subject, CLAIM, dict(told.predicate) | {"registered": again, "registered_token": ""}
        )

    def test_another_registration_s_token(self, claim: Path, as_owner: Court) -> None:
        token = as_owner.authority.stamp(timestamp_request(b"\7" * 32))
        with pytest.raises(SignatureError, match="time token does not verify"):
            examine(
                self.restamped(claim, lambda _: token), claim.with_suffix(".safetensors"),
                authorities=as_owner.authority.roots,
            )  # fmt: skip

    def test_a_clock_of_one_s_own(self, claim: Path, as_owner: Court, tmp_path: Path) -> None:
        (tmp_path / "clock").mkdir()
        own = Authority(tmp_path / "clock")
        data = self.restamped(
            claim, lambda registration: own.stamp(timestamp_request(registration_digest(registration)))
        )
        with pytest.raises(SignatureError, match="time token does not verify"):
            examine(data, claim.with_suffix(".safetensors"), authorities=as_owner.authority.roots)

    def test_a_token_is_left_out_or_taken_anew(self, claim: Path, as_owner: Court) -> None:
        assert (
            judge_claim(claim, as_owner.thief, Bench(authorities=as_owner.authority.roots, isolated=False)).verdict
            == "KEY-DEPENDENT"
        )
        stamp = as_owner.authority.stamp
        trusting = Bench(authorities=as_owner.authority.roots, isolated=False)
        whole = claim.read_bytes()
        claim.write_bytes(self.restamped(claim, lambda _: b""))
        cell = judge_claim(claim, as_owner.thief, trusting)
        assert (cell.verdict, "is missing" in cell.notes[0]) == ("INVALID CLAIM", True)
        claim.write_bytes(whole)
        claim.write_bytes(self.restamped(claim, lambda r: stamp(timestamp_request(registration_digest(r)))))
        cell = judge_claim(claim, as_owner.thief, trusting)
        assert cell.verdict == "NOT SHOWN"  # other labels follow from another token
        assert all(item.bits < 20 for item in cell.evidence)


class TestReplay:
    """What is public already, and what was added later."""

    def test_an_opened_tranche_on_another_suspect(self, as_owner: Court, tmp_path: Path) -> None:
        (as_owner.owner / "key/burnt.jsonl").unlink(missing_ok=True)
        first, second = tmp_path / "first.json", tmp_path / "second.json"
        claim_suspect(as_owner.owner, as_owner.stranger, first, OWN)
        (as_owner.owner / "key/burnt.jsonl").unlink()  # the liar forgets
        assert claim_suspect(as_owner.owner, as_owner.thief, second, OWN).verdict == "KEY-DEPENDENT"
        roots = as_owner.authority.roots
        assert judge_claim(second, as_owner.thief, Bench(authorities=roots, isolated=False)).verdict == "KEY-DEPENDENT"
        cell = judge_claim(second, as_owner.thief, Bench(authorities=roots, isolated=False, earlier=(first,)))
        assert (cell.verdict, "about another suspect" in cell.notes[0]) == ("INVALID CLAIM", True)
        again = judge_claim(second, as_owner.thief, Bench(authorities=roots, isolated=False, earlier=(second,)))
        assert again.verdict == "KEY-DEPENDENT"

    def test_a_second_mark_is_forged_into_a_stolen_model(
        self, as_owner: Court, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for run in (as_owner.owner, as_owner.thief):
            (run / "key/burnt.jsonl").unlink(missing_ok=True)
        honest, forged = tmp_path / "honest.json", tmp_path / "forged.json"
        claim_suspect(as_owner.owner, as_owner.thief, honest, OWN)
        monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(as_owner.keys / "thief.pem"))
        assert claim_suspect(as_owner.thief, as_owner.thief, forged, OWN).verdict == "KEY-DEPENDENT"
        rival = Rival(honest, (as_owner.thief, as_owner.owner))
        cell = judge_claim(
            forged, as_owner.thief, Bench(authorities=as_owner.authority.roots, isolated=False, rival=rival)
        )
        assert cell.verdict == "INVALID CLAIM"


def test_nobody_signs_for_another(as_owner: Court, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner's registration, copied, does not make its reader an owner."""
    monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(tmp_path / "liar.pem"))
    assert public_hex(signing_key()) not in (as_owner.owner / "registration.json").read_text()
    (as_owner.owner / "key/burnt.jsonl").unlink(missing_ok=True)
    claim_suspect(as_owner.owner, as_owner.thief, tmp_path / "c.json", OWN)
    cell = judge_claim(tmp_path / "c.json", as_owner.thief, Bench(authorities=as_owner.authority.roots, isolated=False))
    assert cell.verdict == "INVALID CLAIM"


def test_random_keys_do_too_well_on_no_honest_suspect(as_owner: Court, plain: nn.Module) -> None:
    """The judge's check of her own test: it holds, and it can fail."""
    stream = np.random.default_rng(0)
    assert not null.too_many(np.log(stream.uniform(size=1000)))
    assert null.too_many(np.log(stream.uniform(size=1000) ** 3))
