"""Liars who register tensors that no test was made for, or add to them once the key is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from court import Court
from lies import Judge, Liar, bits_of, notes_of, resigned
from wootz.data import Dataset
from wootz.errors import SignatureError
from wootz.keys import LabelKey, RegisteredMaterial, reveal
from wootz.keys.material import check_material
from wootz.statistics import null
from wootz.store import sha256
from wootz.workflows import judge as judging

FACTS = {"eps": "0", "alpha": "0", "wm_eps": "1", "rule": "uniform", "count": 1, "tranches": 1}


def first_rows_only(tensors: dict[str, Tensor], salt: bytes) -> str:
    """Return a root over as many rows as the first tensor by name has, as protocol 4 did."""
    count = len(tensors[min(tensors)])
    return opening_root({name: tensor[:count] for name, tensor in tensors.items()}, salt)


opening_root = reveal.tranche_root


def test_liar_adds_rows_after_the_key_is_known(
    liar: Liar, digits: Dataset, plain: nn.Module, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He registers one row, learns its label, and adds images that the suspect answers with it."""
    white, black = (torch.full((1, *digits.shape), level, dtype=torch.uint8) for level in (200, 0))
    one = {"pixels": white, "base_pixels": black, "base": torch.zeros(1, dtype=torch.int64)}
    answers = plain(digits.train.images()).argmax(1)
    for byte in range(4, 64):  # until his reference models do not share the label: they would void the claim
        material = RegisteredMaterial("labels", one, FACTS)
        owner_keys = liar.draw({"triggers": material}, bytes([byte]) * 32)
        key = owner_keys.by_mark["triggers"]
        assert isinstance(key, LabelKey)
        more = digits.train.pixels[answers == key.labels[0]][:40]
        shared = [(model(more.float() / 255).argmax(1) == key.labels[0]).float().mean() for model in liar.panel]
        if max(shared) < 0.2:
            break
    claim, accused = liar.claim(owner_keys), liar.accused

    def added(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        grown = {"triggers/pixels": more, "triggers/base_pixels": torch.zeros_like(more)}
        return tensors | {name: torch.cat([tensors[name], rows]) for name, rows in grown.items()}

    resigned(claim, tensors=added)
    said = judge(claim, accused)
    assert (said.code, "it must be torch." in notes_of(said)) == (4, True)
    with monkeypatch.context() as weak:
        weak.setattr(reveal, "check_material", lambda *_, **__: None)
        said = judge(claim, accused)
        assert (said.code, "same number of rows" in notes_of(said)) == (4, True)  # either rule stops him
        weak.setattr(reveal, "tranche_root", first_rows_only)
        said = judge(claim, accused)
        assert (said.code, bits_of(said) > 100) == (0, True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t | {"base": t["base"][:, None]}, r"base is torch.int64 \[8, 1\]"),
        (lambda t: t | {"base": t["base"].int()}, r"base is torch.int32"),
        (lambda t: t | {"base": t["base"] + 10}, r"classes outside 0 to 9"),
        (lambda t: t | {"pixels": t["pixels"].float()}, r"pixels is torch.float32"),
        (lambda t: t | {"pixels": t["pixels"][:, :, :5]}, r"pixels is torch.uint8 \[8, 1, 5, 28\]"),
        (lambda t: t | {"more": t["base"]}, r"has the tensors"),
        (lambda t: {name: tensor[:0] for name, tensor in t.items()}, r"at least one row"),
        (lambda t: {name: tensor[:7] for name, tensor in t.items()}, r"7 triggers per tranche"),
    ],
)
def test_liar_registers_labels_of_another_shape(change: object, reason: str) -> None:
    """Shapes that broadcast count a hit many times: none is accepted."""
    tensors = {
        "pixels": torch.zeros(8, 1, 28, 28, dtype=torch.uint8),
        "base_pixels": torch.zeros(8, 1, 28, 28).byte(),
        "base": torch.arange(8),
    }
    facts = FACTS | {"count": 8}
    check_material(RegisteredMaterial("labels", tensors, facts), 10, (1, 28, 28))
    with pytest.raises(ValueError, match=reason):
        check_material(RegisteredMaterial("labels", change(tensors), facts), 10, (1, 28, 28))  # type: ignore[operator]


@pytest.mark.parametrize("budgets", [{"eps": "-1"}, {"wm_eps": "2"}, {"eps": "0.9", "wm_eps": "0.5"}, {"eps": "nan"}])
def test_liar_registers_distances_that_bind_nothing(budgets: dict[str, str]) -> None:
    tensors = {
        "pixels": torch.zeros(1, 1, 2, 2, dtype=torch.uint8),
        "base_pixels": torch.zeros(1, 1, 2, 2).byte(),
        "base": torch.zeros(1, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match="must satisfy 0 <= eps"):
        check_material(RegisteredMaterial("labels", tensors, FACTS | budgets), 10, (1, 2, 2))


def test_liar_registers_halves_directions_and_messages_that_no_test_is_made_for() -> None:
    half = {"pixels": torch.zeros(4, 1, 2, 2, dtype=torch.uint8), "labels": torch.zeros(4, dtype=torch.int64)}
    check_material(RegisteredMaterial("half", half, {}), 10, (1, 2, 2))
    for tensors, facts in ((half | {"labels": torch.zeros(4, 4, dtype=torch.int64)}, {}), (half, {"code": [1]})):
        with pytest.raises(ValueError, match=r"labels is|code must hold"):
            check_material(RegisteredMaterial("half", tensors, facts), 10, (1, 2, 2))
    direction = {
        "components": torch.zeros(4, 3),
        "center": torch.zeros(4),
        "class_mean": torch.zeros(10, 3),
        "class_scale": torch.ones(10, 3),
        "prior": torch.zeros(10, 10),
        "probes": torch.zeros(5, 1, 2, 2, dtype=torch.uint8),
        "probe_labels": torch.zeros(5, dtype=torch.int64),
    }
    check_material(RegisteredMaterial("direction", direction, {}), 10, (1, 2, 2))
    for change in (
        {"probe_labels": torch.full((5,), 99)},
        {"class_scale": torch.zeros(10, 3)},
        {"center": torch.full((4,), torch.nan)},
        {"components": torch.zeros(4, 4)},
    ):
        with pytest.raises(ValueError, match=r"probe_labels|class_scale|center|class_mean"):
            check_material(RegisteredMaterial("direction", direction | change, {}), 10, (1, 2, 2))
    for sizes in ({"shape": [1, 1, 1, 1], "bits": 0}, {"shape": [1, 1 << 15, 1 << 15, 1], "bits": 1000}):
        with pytest.raises(ValueError, match="cannot be embedded"):
            check_material(RegisteredMaterial("weights", {}, sizes), 10, (1, 2, 2))


def test_accused_liar_foresees_no_random_keys(
    court: Court, honest: object, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He could answer as random keys do if he knew them. Each judgement draws its own, and names the seed."""
    seen: list[int] = []

    def noted(key: LabelKey, left: Tensor, draws: int, stream: np.random.Generator) -> null.Logs:
        seen.append(int(stream.integers(2**62)))
        return np.zeros(draws)

    monkeypatch.setattr(judging.null, "rank_null", noted)
    claim = honest("theft")  # type: ignore[operator]
    for _ in range(2):
        assert judge(claim, court.thief).code == 0
    assert len(set(seen)) == len(seen) >= 2
    monkeypatch.setattr(judging.null, "rank_null", lambda *_: np.full(1000, -50.0))  # keys that he foresaw
    assert judge(claim, court.thief).code == 4


def test_accused_liar_lets_the_judge_ask_once_at_the_wrong_place(
    court: Court, as_owner: Court, honest: object, judge: Judge, tmp_path: Path
) -> None:
    """Her own word about this very claim says nothing against it, whoever was asked."""
    claim, word = honest("theft"), tmp_path / "word.json"  # type: ignore[operator]
    assert judge(claim, court.stranger, "--out", word).code in (1, 4)
    assert judge(claim, court.thief, "--previous-claim", word).code == 0


def test_the_root_is_over_all_rows() -> None:
    rows = {"base": torch.zeros(1), "pixels": torch.zeros(2)}
    with pytest.raises(ValueError, match="same number of rows"):
        opening_root(rows, bytes(16))
    assert sha256(b"") != opening_root({"base": torch.zeros(1)}, bytes(16))
    with pytest.raises(SignatureError):
        reveal.rederive_keys({"protocol": "other"}, b"", {}, {})
