"""Liars who choose images, labels, or which of them count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch
from torch import Tensor, nn

from court import Court, label_material
from lies import Judge, Liar, bits_of, notes_of, resigned
from wootz.data import Dataset
from wootz.keys import LabelKey, read_keys
from wootz.keys.prf import integers
from wootz.statistics.exact_tests import label_evidence
from wootz.statistics.queries import SuspectAccess, query_labels
from wootz.statistics.sequential import run_sequential_test
from wootz.store import read_tensors
from wootz.suspects.files import predictor
from wootz.workflows.reference_models import ReferenceModels

DRAW = "wootz.keys.keys._draw_labels"


def test_liar_fits_labels_to_an_ensemble(
    liar: Liar, judge: Judge, independent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False Claims (arXiv 2304.06607). Labels of his own choice would pay; the registered ones follow the images."""
    said = judge(liar.claim(liar.draw(), name="drawn"), liar.accused)
    assert (said.code, bits_of(said) < 20) == (1, True)
    with monkeypatch.context() as weak:
        weak.setattr(DRAW, lambda *_: liar.fitted[3])  # the owner chooses the labels
        claim = liar.claim(liar.draw(), name="chosen")
        assert judge(claim, liar.accused).code == 0
        said = judge(claim, liar.accused, "--independent", independent)  # a judge's own model would tell even then
        assert (said.code, "reaches" in notes_of(said)) == (4, True)


def test_liar_grinds_an_image_until_its_label_fits(
    liar: Liar, plain: nn.Module, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels that depend on their own image alone are ground one by one; under one root each change draws all anew."""
    pixels, originals, classes, _ = (tensor.clone() for tensor in liar.fitted)
    said = query_labels(predictor(plain), pixels)
    keep = said != classes
    pixels, originals, classes, said = pixels[keep], originals[keep], classes[keep], said[keep]

    def own(image: Tensor) -> int:
        return int(integers(b"\2" * 32, image.numpy().tobytes(), 1, 9)) + 1

    for row in range(len(pixels)):
        for level in range(256):
            pixels[row, 0, 0, 0] = int(originals[row, 0, 0, 0]) ^ level
            if abs(int(pixels[row, 0, 0, 0]) - int(originals[row, 0, 0, 0])) > 150:
                continue
            if (int(classes[row]) + own(pixels[row])) % 10 == int(said[row]):
                break

    materials = {"triggers": label_material(pixels, originals, classes)}
    assert judge(liar.claim(liar.draw(materials), name="rooted"), liar.accused).code == 1
    with monkeypatch.context() as weak:
        offsets = torch.tensor([own(image) for image in pixels])
        weak.setattr(DRAW, lambda rule, base, *_: (base + offsets) % 10)  # a label for each image by itself
        assert judge(liar.claim(liar.draw(materials), name="apart"), liar.accused).code == 0


class TestSelection:
    """Answers chosen after they were seen."""

    def test_liar_replaces_the_images_that_missed(
        self,
        honest: Callable[[str], Path],
        as_owner: Court,
        judge: Judge,
        robust: nn.Module,
        digits: Dataset,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """He knows the drawn offsets by now: he takes other images, and gives each a class with which it hits."""
        claim = honest("stranger")
        images = digits.train.pixels[:80]
        said = query_labels(predictor(robust), images)
        held = read_tensors(claim.with_suffix(".safetensors"))
        offsets = self.offsets(as_owner, held["triggers/base"])
        shifted = (images.int() + torch.where(images < 128, 100, -100)).to(torch.uint8)
        new = {"triggers/pixels": images, "triggers/base_pixels": shifted, "triggers/base": (said - offsets) % 10}
        resigned(claim, tensors=lambda t: t | new)
        refused = judge(claim, as_owner.stranger)
        assert (refused.code, "not those that were registered" in notes_of(refused)) == (4, True)
        with monkeypatch.context() as weak:
            weak.setattr("wootz.keys.reveal.tranche_root", lambda *_: ANY)
            weak.setattr("wootz.workflows.certificate.reference_models", lambda models, registration: _blank(models))
            assert judge(claim, as_owner.stranger).code == 0

    @staticmethod
    def offsets(court: Court, base: Tensor) -> Tensor:
        key = read_keys(court.owner).by_mark["triggers"]
        assert isinstance(key, LabelKey)
        return (key.labels[: len(base)] - base) % 10

    def test_liar_drops_the_misses_or_puts_hits_first(
        self, honest: Callable[[str], Path], as_owner: Court, judge: Judge, robust: nn.Module
    ) -> None:
        key = read_keys(as_owner.owner).by_mark["triggers"]
        assert isinstance(key, LabelKey)
        hits = (query_labels(predictor(robust), key.pixels) == key.labels)[:80]
        assert 0 < int(hits.sum()) < 80
        order = torch.argsort(~hits, stable=True)
        for rows in (hits, order):
            claim = honest("stranger")

            def change(tensors: dict[str, Tensor], rows: Tensor = rows) -> dict[str, Tensor]:
                return tensors | {k: t[rows] for k, t in tensors.items() if k.startswith("triggers/")}

            resigned(claim, tensors=change)
            assert judge(claim, as_owner.stranger).code == 4
            for file in claim.parent.iterdir():
                file.unlink()
            claim.parent.rmdir()
        # It would pay: hits alone, and hits first under a test that stops early.
        few = LabelKey(
            mark="triggers",
            rule="wrong",
            num_classes=10,
            pixels=key.pixels[:80][hits],
            base_pixels=key.base_pixels[:80][hits],
            base=key.base[:80][hits],
            labels=key.labels[:80][hits],
        )
        answer, reach = predictor(robust), SuspectAccess("label")
        assert label_evidence(few, answer, (), reach).bits > label_evidence(key, answer, (), reach).bits + 10
        told = [(True, bool(hit)) for hit in hits]
        assert (
            run_sequential_test(sorted(told, reverse=True), 1 / 9, 20).log_p
            < run_sequential_test(told, 1 / 9, 20).log_p
        )


def _blank(models: list[nn.Module]) -> object:
    """Return a panel without members: replaced images are answered by panels as by the suspect."""
    return ReferenceModels()
