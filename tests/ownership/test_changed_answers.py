from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from wootz.data import Dataset
from wootz.errors import StoreError
from wootz.ownership import AnswerKey, LabelKey, OrderKey, guard_key
from wootz.ownership.answers import (
    Projections,
    chained,
    changed_class,
    chosen,
    digests,
    first_line,
    keyed_class,
    later_line,
    preferred_class,
    projections,
    read_log,
)
from wootz.ownership.prf import integers, stream
from wootz.store import canonical
from wootz.verify.evidence import label_evidence
from wootz.verify.exact import binomial_tail
from wootz.verify.reach import Reach

K, SHAPE = 10, (1, 6, 6)
CUT = {"grid": 3, "projections": 8, "step": 100, "margin": 16}
FACTS = {"rule": "order", "cost": "1/200", "most": "1/5"} | CUT
CHANGED = {"share": "1/2"} | CUT
REAL = {"share": "1/20", "grid": 7, "projections": 64, "step": 1200, "margin": 16}


def key(secret: int = 0, facts: dict[str, object] | None = None, classes: int = K) -> AnswerKey:
    return AnswerKey(mark="guard", num_classes=classes, facts=facts or FACTS, secret=secret.to_bytes(32, "big"))


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


class TestDigests:
    def test_by_hand(self) -> None:
        owned, image = key(3), images(1)[0]
        step = round(100 * math.sqrt(36))
        signs = integers(owned.secret, b"signs", 8 * 9, 2).tolist()
        words = stream(owned.secret, b"offsets", 64)
        cells = []
        for n in range(8):
            total = sum(
                (min(max(int(image[0, r, c]), 16), 239) - 16) * (2 * signs[9 * n + 3 * (r // 2) + c // 2] - 1)
                for r in range(6)
                for c in range(6)
            )
            cells.append((total + int.from_bytes(words[8 * n : 8 * n + 8], "big") % step) // step)
        by_hand = hashlib.sha256(b"".join(cell.to_bytes(4, "little", signed=True) for cell in cells)).digest()[:16]
        assert digests(projections(owned, SHAPE), image[None]) == [by_hand]

    def test_do_not_depend_on_the_batch(self) -> None:
        at, pixels = projections(key(), SHAPE), images(50)
        assert digests(at, pixels) == [digests(at, image[None])[0] for image in pixels]

    def test_nearby_images_share_one_and_others_seldom_do(self, digits: Dataset) -> None:
        at, few = projections(key(0, REAL), digits.shape), digits.train.pixels[:2000]
        own = digests(at, few)
        shares = []
        for most in (1, 2, 8):
            moves = torch.randint(-most, most + 1, few.shape, generator=torch.Generator().manual_seed(most))
            moved = (few.int() + moves).clamp(0, 255).to(torch.uint8)
            shares.append(np.mean([a == b for a, b in zip(own, digests(at, moved), strict=True)]))
        assert shares[0] > 0.97
        assert shares[1] > 0.95
        assert shares[0] > shares[2] > 0.8
        assert len(set(own)) > 0.8 * len(own)

    def test_noise_next_to_black_and_white_moves_nothing(self) -> None:
        at = projections(key(), SHAPE)
        flat = torch.tensor([[0, 9, 16], [255, 246, 239]]).to(torch.uint8)
        black, white = (digests(at, row[:, None, None, None].expand(3, *SHAPE)) for row in flat)
        assert len(set(black)) == 1
        assert len(set(white)) == 1

    def test_edges_lie_elsewhere_under_another_key(self) -> None:
        pixels = images(40)
        one, two = (Counter(digests(projections(key(n), SHAPE), pixels)) for n in (1, 2))
        assert not set(one) & set(two)
        at = projections(key(1), SHAPE)
        assert isinstance(at, Projections)
        assert ((at.offsets >= 0) & (at.offsets < at.step)).all()


class TestClasses:
    def test_uniform_over_all_but_the_base(self) -> None:
        owned, counts = key(), Counter[int]()
        for number in range(9000):
            counts[changed_class(owned, number.to_bytes(16, "big"), 4)] += 1
        assert set(counts) == set(range(K)) - {4}
        assert sum((c - 1000) ** 2 / 1000 for c in counts.values()) < 26.1  # chi-squared, 8 degrees of freedom, 0.001

    def test_seldom_follows_the_base(self) -> None:
        owned = key()
        for number in range(100):
            digest = number.to_bytes(16, "big")
            said = Counter(changed_class(owned, digest, base) for base in range(K))
            assert sorted(said.values())[-1] == K - 1

    def test_one_of_two_is_preferred_by_a_fair_coin_whichever_comes_first(self) -> None:
        owned = key()
        said = [preferred_class(owned, number.to_bytes(16, "big"), 7, 2) for number in range(10_000)]
        assert set(said) == {2, 7}
        assert abs(said.count(2) - 5000) < 3 * math.sqrt(2500)
        assert said == [preferred_class(owned, number.to_bytes(16, "big"), 2, 7) for number in range(10_000)]
        other = [preferred_class(owned, number.to_bytes(16, "big"), 7, 3) for number in range(10_000)]
        assert abs(sum((a == 7) == (b == 7) for a, b in zip(said, other, strict=True)) - 5000) < 150  # its own coin

    def test_an_order_is_kept_for_every_digest_and_classes_are_changed_for_some(self) -> None:
        ordered, changed, made = key(), key(0, CHANGED), [number.to_bytes(16, "big") for number in range(200)]
        assert all(chosen(ordered, digest) for digest in made)
        assert 50 < sum(chosen(changed, digest) for digest in made) < 150
        assert [keyed_class(ordered, d, 4, 1) for d in made] == [preferred_class(ordered, d, 4, 1) for d in made]
        assert [keyed_class(changed, d, 4, 1) for d in made] == [changed_class(changed, d, 4) for d in made]

    def test_chosen_at_the_rate_of_the_share(self) -> None:
        owned = key(0, REAL)
        share = np.mean([chosen(owned, n.to_bytes(16, "big")) for n in range(20_000)])
        assert abs(share - 0.05) < 3 * math.sqrt(0.05 * 0.95 / 20_000)


def write(path: Path, owned: AnswerKey, count: int = 60, base: torch.Tensor | None = None) -> list[dict[str, object]]:
    """Write a log of random images, by the definition of the format, and return its lines without chains."""
    pixels = images(count)
    base = torch.arange(count) % K if base is None else base
    lines, seen = [first_line(owned, SHAPE, 1.5)], set[bytes]()
    for image, digest, b in zip(pixels, digests(projections(owned, SHAPE), pixels), base.tolist(), strict=True):
        if chosen(owned, digest) and digest not in seen:
            second = (b + 1) % K
            lines.append(later_line(image, digest, b, second, keyed_class(owned, digest, b, second)))
            seen.add(digest)
    save(path, lines)
    return lines


def save(path: Path, lines: list[dict[str, object]]) -> None:
    head, data = "", b""
    for line in lines:
        head = hashlib.sha256(bytes.fromhex(head) + canonical(line)).hexdigest()
        data += canonical(line | {"chain": head}) + b"\n"
    path.write_bytes(data)


class TestLog:
    def test_gives_a_key_of_labels_where_answers_were_changed(self, tmp_path: Path) -> None:
        owned = key(0, CHANGED)
        lines = write(tmp_path / "log", owned)
        found = guard_key(owned, tmp_path / "log")
        assert isinstance(found, LabelKey)
        assert (found.mark, found.rule, found.num_classes) == ("guard", "wrong", K)
        assert 15 < len(found.labels) == len(lines) - 1
        assert found.base.tolist() == [line["base"] for line in lines[1:]]
        assert (found.labels != found.base).all()
        raw = b"".join(base64.b64decode(str(line["image"])) for line in lines[1:])
        assert found.pixels.numpy().tobytes() == raw

    def test_gives_a_key_of_orders_where_two_classes_were_ordered(self, tmp_path: Path) -> None:
        owned = key()
        lines = write(tmp_path / "log", owned)[1:]
        found = guard_key(owned, tmp_path / "log")
        assert isinstance(found, OrderKey)
        assert (found.mark, found.num_classes, len(found.pixels)) == ("guard", K, len(lines))
        assert found.first.tolist() == [line["base"] for line in lines]
        assert found.second.tolist() == [line["second"] for line in lines]
        assert found.preferred.tolist() == [line["answer"] == line["second"] for line in lines]
        assert 10 < int(found.preferred.sum()) < len(lines) - 10

    def test_an_empty_one_is_no_evidence(self, tmp_path: Path) -> None:
        save(tmp_path / "log", [first_line(key(), SHAPE, 1.5)])
        found = guard_key(key(), tmp_path / "log")
        assert len(found.pixels) == 0
        assert found.pixels.shape == (0, *SHAPE)

    def test_a_sealed_part(self, tmp_path: Path) -> None:
        owned = key()
        write(tmp_path / "log", owned)
        whole = read_log(owned, tmp_path / "log")
        part = guard_key(owned, tmp_path / "log", sealed=whole.chains[5])
        assert isinstance(part, OrderKey)
        assert part.preferred.tolist() == (whole.answer == whole.second)[:5].tolist()
        with pytest.raises(StoreError, match="no line with the chain hash"):
            guard_key(owned, tmp_path / "log", sealed="00" * 32)

    def test_a_line_that_was_cut_off_is_left_out(self, tmp_path: Path) -> None:
        owned = key()
        write(tmp_path / "log", owned)
        whole = read_log(owned, tmp_path / "log")
        data = (tmp_path / "log").read_bytes()
        (tmp_path / "log").write_bytes(data[:-20])
        cut = read_log(owned, tmp_path / "log")
        assert cut.chains == whole.chains[:-1]
        assert data[: cut.size].endswith(b"\n")

    @pytest.mark.parametrize("number", [0, 1, 7])
    def test_every_edit_is_noticed(self, number: int, tmp_path: Path) -> None:
        owned, path = key(), tmp_path / "log"
        write(path, owned)
        lines = path.read_bytes().splitlines()
        fields = json.loads(lines[number])
        for name in fields:
            changed = fields | {name: 3 if fields[name] != 3 else 4}
            path.write_bytes(b"\n".join([*lines[:number], canonical(changed), *lines[number + 1 :], b""]))
            with pytest.raises(StoreError, match=f"line {number + 1}: was changed"):
                read_log(owned, path)
        for other in ([*lines[:number], *lines[number + 1 :]], [*lines[: number + 1], b"{}", *lines[number + 1 :]]):
            path.write_bytes(b"\n".join([*other, b""]))
            with pytest.raises(StoreError, match="was changed"):
                read_log(owned, path)

    @pytest.mark.parametrize(
        "edit",
        [
            {"base": 10}, {"base": -1}, {"base": "1"}, {"second": 10}, {"second": 2}, {"answer": 11}, {"more": 1},
            {"digest": "00" * 16},
        ],
    )  # fmt: skip
    def test_a_forged_line_with_a_good_chain_is_refused(self, edit: dict[str, object], tmp_path: Path) -> None:
        owned, path = key(), tmp_path / "log"
        lines = write(path, owned)
        save(path, [*lines[:3], lines[3] | edit, *lines[4:]])
        with pytest.raises(StoreError, match=r"line 4: is not what this key makes of the image|is no log of a guard"):
            read_log(owned, path)

    def test_an_image_that_was_not_chosen_or_comes_twice_is_refused(self, tmp_path: Path) -> None:
        owned, path = key(0, CHANGED), tmp_path / "log"
        lines = write(path, owned)
        save(path, [*lines, lines[1]])
        with pytest.raises(StoreError, match="is not what this key makes"):
            read_log(owned, path)
        pixels = images(20, 1)
        made = digests(projections(owned, SHAPE), pixels)
        row = next(n for n, digest in enumerate(made) if not chosen(owned, digest))
        save(path, [*lines, later_line(pixels[row], made[row], 2, 3, changed_class(owned, made[row], 2))])
        with pytest.raises(StoreError, match="is not what this key makes"):
            read_log(owned, path)

    def test_another_key_s_log(self, tmp_path: Path) -> None:
        write(tmp_path / "log", key())
        with pytest.raises(StoreError, match="log of another key"):
            guard_key(key(1), tmp_path / "log")

    @pytest.mark.parametrize("text", [b"", b"\n", b"{}\n", b"[]\n", b"\xff\n", b'{"chain": 1}\n'])
    def test_what_is_no_log(self, text: bytes, tmp_path: Path) -> None:
        (tmp_path / "log").write_bytes(text)
        with pytest.raises(StoreError):
            read_log(key(), tmp_path / "log")

    def test_the_chain_is_the_definition_s(self) -> None:
        line = {"base": 1, "answer": 2}
        assert chained("ab", line) == hashlib.sha256(b'\xab{"answer":2,"base":1}').hexdigest()


def test_the_null_holds_over_a_thousand_keys() -> None:
    """One fixed suspect, as bad as can be: it answers two thirds of the images with one favorite wrong class."""
    pixels, base = images(90), torch.arange(90) % K
    said = (base + 1).remainder(K)
    said[::3] = base[::3]
    ps = []
    for secret in range(1000):
        owned = key(secret, CHANGED)
        made = digests(projections(owned, SHAPE), pixels)
        rows = {digest: row for row, digest in reversed(list(enumerate(made))) if chosen(owned, digest)}
        trials = [row for row in rows.values() if said[row] != base[row]]
        hits = sum(int(said[row]) == changed_class(owned, made[row], int(base[row])) for row in trials)
        ps.append(binomial_tail(hits, len(trials), 1 / (K - 1)))
    for a in (0.05, 0.01, 0.001):
        share = np.mean(np.array(ps) <= math.log(a) + 1e-12)
        assert share <= a + 3 * math.sqrt(a * (1 - a) / len(ps)), (a, share)


def test_who_learned_the_answers_is_told_from_who_did_not(tmp_path: Path) -> None:
    owned = key(0, CHANGED)
    write(tmp_path / "log", owned, 200)
    found = guard_key(owned, tmp_path / "log")
    assert isinstance(found, LabelKey)
    table = {image.numpy().tobytes(): int(label) for image, label in zip(found.pixels, found.labels, strict=True)}

    def learned(x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([table[i.mul(255).round().to(torch.uint8).numpy().tobytes()] for i in x])

    tested = label_evidence(found, learned, (), Reach("label"))
    assert tested.details["hits"] == tested.details["trials"] == len(found.labels)
    assert tested.bits == pytest.approx(len(found.labels) * math.log2(9))
    stranger = label_evidence(found, lambda x: found.base, (), Reach("label"))
    assert stranger.bits == 0
