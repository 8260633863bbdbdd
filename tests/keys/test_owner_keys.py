from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from authority import Authority
from wootz.errors import KeyFolderError, SignatureError
from wootz.keys import (
    CommitmentOpening,
    LabelKey,
    OwnerKeys,
    RegisteredMaterial,
    derive_key,
    draw_keys,
    fresh_secret,
    key_context,
    open_tranche,
    owner_secret,
    prf,
    read_keys,
    register,
    registration_digest,
    run_secret,
    timestamp_request,
    tranche_root,
    write_keys,
)
from wootz.keys.material import check_material
from wootz.keys.prf import gaussian, half, integers, stream, subkey

SECRET = bytes(range(32))
FOUR = [subkey(SECRET, str(k)) for k in range(4)]
OPENINGS = [CommitmentOpening(secret, subkey(secret, "salt")) for secret in FOUR]


def material(count: int = 40) -> RegisteredMaterial:
    pixels = torch.randint(0, 256, (count, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    tensors = {"pixels": pixels, "base_pixels": pixels.clone(), "base": torch.arange(count) % 3}
    params = {"rule": "wrong", "eps": "0.25", "alpha": "0", "wm_eps": "0.5", "count": count, "tranches": 4}
    return RegisteredMaterial("labels", tensors, params)


def draw(secret: bytes = SECRET, classes: tuple[str, ...] = ("a", "b", "c"), **more: Any) -> OwnerKeys:
    return draw_keys(secret, {"triggers": material()}, classes=classes, shape=(1, 4, 4), panel=["sha256:00"], **more)


def check_direction(num_classes: int, features: int) -> None:
    tensors = {"components": torch.zeros(16, features), "probes": torch.zeros(5, 1, 4, 4, dtype=torch.uint8)}
    check_material(RegisteredMaterial("direction", tensors, {}), num_classes, (1, 4, 4))


class TestRandomFunction:
    def test_known_answer(self) -> None:
        framed = (32).to_bytes(8, "big") + SECRET + (1).to_bytes(8, "big") + b"x"
        assert stream(SECRET, b"x", 16) == hashlib.shake_256(framed).digest(16)
        assert stream(SECRET, b"x", 64)[:16] == stream(SECRET, b"x", 16)

    def test_purposes_do_not_run_into_each_other(self) -> None:
        assert subkey(SECRET, "a", "b") != subkey(SECRET, "ab")
        assert stream(b"ab", b"c", 8) != stream(b"a", b"bc", 8)

    @pytest.mark.parametrize("high", [2, 3, 9, 10, 256, 257, 300])
    def test_integers_are_uniform(self, high: int) -> None:
        counts = Counter(integers(SECRET, b"i", 50_000, high).tolist())
        assert set(counts) == set(range(high))
        assert stats.chisquare([counts[k] for k in range(high)]).pvalue > 1e-4

    def test_integers_from_the_most_values_are_uniform(self) -> None:
        found = integers(SECRET, b"i", 1_000_000, 65_536)
        assert (int(found.min()), int(found.max())) == (0, 65_535)
        for part in (found // 256, found % 256):
            assert stats.chisquare(torch.bincount(part, minlength=256).numpy()).pvalue > 1e-4

    @pytest.mark.parametrize("high", [1, 2, 3, 7, 300, 65_535, 65_536])
    def test_integers_are_words_below_the_largest_multiple(self, high: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each value has equally many words; all other words are passed over."""
        multiple = 2**64 // high * high
        words = [0, high - 1, high, multiple - 1, *range(multiple, min(2**64, multiple + 3)), 2**64 - 1, 5]
        data = b"".join(word.to_bytes(8, "big") for word in words)
        monkeypatch.setattr(prf, "stream", lambda secret, purpose, length: data[:length])
        accepted = [word % high for word in words if word < multiple]
        assert integers(SECRET, b"i", len(accepted), high).tolist() == accepted

    def test_integers_do_not_depend_on_how_many_are_drawn(self) -> None:
        many = integers(SECRET, b"i", 1000, 300)
        assert (many.dtype, len(integers(SECRET, b"i", 0, 300))) == (torch.int64, 0)
        for count in (1, 10, 999):
            assert torch.equal(integers(SECRET, b"i", count, 300), many[:count])

    @pytest.mark.parametrize("high", [-1, 0, 65_537, 2**64])
    def test_integers_from_no_values_or_too_many(self, high: int) -> None:
        with pytest.raises(ValueError, match="must be from 1 to 65536"):
            integers(SECRET, b"i", 10, high)

    def test_more_random_bytes_than_a_key_may_take(self) -> None:
        for draw in (lambda: integers(SECRET, b"i", 2**40, 10), lambda: gaussian(SECRET, b"g", (2**20, 2**20))):
            with pytest.raises(ValueError, match="random bytes"):
                draw()

    def test_gaussians_are_gaussian(self) -> None:
        values = gaussian(SECRET, b"g", (200, 100)).flatten().numpy()
        assert stats.kstest(values, "norm").pvalue > 1e-4
        assert abs((values**4).mean() - 3) < 0.2

    def test_half_is_half_and_every_item_equally_likely(self) -> None:
        masks = torch.stack([half(SECRET, str(k).encode(), 20) for k in range(2000)])
        assert (masks.sum(1) == 10).all()
        assert (masks.float().mean(0) - 0.5).abs().max() < 0.06


class TestKeys:
    def test_labels_follow_secret_and_registration(self) -> None:
        one, two = (derive_key("m", material(), 3, FOUR, bytes([k]) * 32) for k in (1, 2))
        again = derive_key("m", material(), 3, FOUR, bytes([1]) * 32)
        assert isinstance(one, LabelKey)
        assert torch.equal(one.labels, again.labels)  # type: ignore[union-attr]
        assert not torch.equal(one.labels, two.labels)  # type: ignore[union-attr]
        assert (one.labels != one.base).all()

    def test_a_key_shows_nothing_of_itself(self) -> None:
        owner_keys = draw()
        for text in (repr(owner_keys), repr(owner_keys.by_mark["triggers"]), str(owner_keys)):
            assert "tensor" not in text
            assert subkey(SECRET, "mark", "triggers", "0").hex() not in text

    def test_changing_one_pixel_changes_the_registration_and_so_the_labels(self) -> None:
        other = material()
        other.tensors["pixels"][0, 0, 0, 0] ^= 1
        changed = draw_keys(SECRET, {"triggers": other}, classes=("a", "b", "c"), shape=(1, 4, 4), panel=["sha256:00"])
        assert changed.registration["root"] != draw().registration["root"]
        assert not torch.equal(changed.by_mark["triggers"].labels, draw().by_mark["triggers"].labels)  # type: ignore[union-attr]

    def test_the_registration_is_public_and_holds_no_secret(self) -> None:
        owner_keys = draw()
        text = str(owner_keys.registration)
        for parts in owner_keys.openings.values():
            assert all(value.hex() not in text for part in parts for value in part)
        assert registration_digest(owner_keys.registration) == registration_digest(
            dict(reversed(owner_keys.registration.items()))
        )

    @pytest.mark.parametrize(("num_classes", "features"), [(2, 30), (1, 3), (3, 0)])
    def test_a_direction_without_dimensions(self, num_classes: int, features: int) -> None:
        with pytest.raises(ValueError, match="needs at least 3 classes and 1 feature"):
            check_direction(num_classes, features)

    @pytest.mark.parametrize(("num_classes", "features"), [(65_536, 1), (3000, 30)])
    def test_a_direction_too_large_to_draw(self, num_classes: int, features: int) -> None:
        with pytest.raises(ValueError, match="the maximum is 268435456"):
            check_direction(num_classes, features)

    def test_a_message_too_long_to_draw(self) -> None:
        params = {"weight": "w", "shape": [64, 64, 3, 3], "bits": 10**9}
        message = RegisteredMaterial("weights", {}, params)
        with pytest.raises(ValueError, match="random bytes"):
            derive_key("m", message, 10, FOUR, b"")
        with pytest.raises(ValueError, match="a message of 1000000000 bits"):
            draw_keys(SECRET, {"m": message}, classes=("a", "b", "c"), shape=(1, 4, 4), panel=[])

    def test_labels_of_three_hundred_classes(self) -> None:
        base = torch.arange(3000) % 300
        tensors = {"pixels": base, "base_pixels": base, "base": base}
        key = derive_key("m", RegisteredMaterial("labels", tensors, {"rule": "wrong"}), 300, FOUR[:1], b"")
        assert isinstance(key, LabelKey)
        assert (key.labels != base).all()
        assert len(key.labels.unique()) == 300

    @pytest.mark.parametrize(("rule", "num_classes", "said"), [("wrong", 2, "at least 3"), ("any", 10, "by the rule")])
    def test_labels_without_a_choice_or_a_rule(self, rule: str, num_classes: int, said: str) -> None:
        tensors, params = material().tensors | {"base": torch.arange(40) % num_classes}, material().params
        labels = RegisteredMaterial("labels", tensors, params | {"rule": rule})
        with pytest.raises(ValueError, match=said):
            draw_keys(SECRET, {"m": labels}, classes=tuple(map(str, range(num_classes))), shape=(1, 4, 4), panel=[])


class TestTranches:
    def test_a_tranche_opens_alone_and_with_its_own_secret(self) -> None:
        after = bytes(32)
        whole = derive_key("m", material(), 3, FOUR, after)
        assert isinstance(whole, LabelKey)
        for number in range(4):
            rows = slice(10 * number, 10 * number + 10)
            part = open_tranche("m", material().tranche(number), 3, FOUR[number], after, number)
            assert torch.equal(part.labels, whole.labels[rows])
            assert torch.equal(part.pixels, whole.pixels[rows])
        again = open_tranche("m", material().tranche(1), 3, FOUR[0], after, 1)
        assert not torch.equal(again.labels, whole.labels[10:20])

    def test_labels_follow_the_time_token(self, authority: Authority) -> None:
        tokens = []

        def stamp(digest: bytes) -> bytes:
            tokens.append(authority.stamp(timestamp_request(digest)))
            return tokens[-1]

        one, two = (draw(fetch_token=stamp) for _ in range(2))
        assert one.registration == two.registration
        assert not torch.equal(one.by_mark["triggers"].labels, two.by_mark["triggers"].labels)  # type: ignore[union-attr]
        assert key_context(one.registration, tokens[0]) != key_context(one.registration, tokens[1])
        with pytest.raises(SignatureError, match="is missing"):
            key_context(one.registration)
        with pytest.raises(SignatureError, match="does not name"):
            key_context(draw().registration, tokens[0])
        with pytest.raises(SignatureError, match="something else"):
            draw(fetch_token=lambda _: tokens[0], classes=("a", "b", "d"))

    def test_the_root_against_a_plain_re_derivation(self) -> None:
        tensors = material(5).tensors
        salts = stream(b"salt", b"leaves", 16 * 5)

        def leaf(row: int) -> bytes:
            base, pixels, origin = (tensors[name][row] for name in ("base", "pixels", "base_pixels"))
            parts = b"base [] torch.int64;" + base.numpy().tobytes()
            parts += b"base_pixels [1, 4, 4] torch.uint8;" + origin.numpy().tobytes()
            parts += b"pixels [1, 4, 4] torch.uint8;" + pixels.numpy().tobytes()
            return hashlib.sha256(b"\0" + salts[16 * row : 16 * row + 16] + parts).digest()

        def node(a: bytes, b: bytes) -> bytes:
            return hashlib.sha256(b"\1" + a + b).digest()

        leaves = [leaf(row) for row in range(5)]
        root = node(node(node(leaves[0], leaves[1]), node(leaves[2], leaves[3])), leaves[4])
        assert tranche_root(tensors, b"salt") == "sha256:" + root.hex()

    def test_order_and_every_part_of_a_row_matter(self) -> None:
        whole = material(6).tensors
        assert tranche_root(whole, b"s") != tranche_root({k: t.flip(0) for k, t in whole.items()}, b"s")
        for name in whole:
            changed = whole | {name: whole[name].clone()}
            changed[name].view(-1)[0] ^= 1
            assert tranche_root(changed, b"s") != tranche_root(whole, b"s")


class TestFolder:
    def test_round_trip_and_mode(self, tmp_path: Path) -> None:
        write_keys(tmp_path, draw())
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o700
        assert all(p.stat().st_mode & 0o077 == 0 for p in (tmp_path / "key").iterdir())
        again = read_keys(tmp_path)
        assert torch.equal(again.by_mark["triggers"].labels, draw().by_mark["triggers"].labels)  # type: ignore[union-attr]
        assert again.registration == draw().registration

    def test_any_flipped_byte_is_noticed(self, tmp_path: Path) -> None:
        write_keys(tmp_path, draw())
        for name in ("key/key.json", "key/triggers.safetensors", "registration.json"):
            path = tmp_path / name
            whole = path.read_bytes()
            for place in range(0, len(whole), max(1, len(whole) // 60)):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
                try:
                    owner_keys = read_keys(tmp_path)
                except KeyFolderError as error:
                    assert str(tmp_path) in str(error)
                    assert "\n" not in str(error)
                else:  # a byte of white space
                    assert torch.equal(owner_keys.by_mark["triggers"].labels, draw().by_mark["triggers"].labels)  # type: ignore[union-attr]
                    assert owner_keys.registration == draw().registration
            path.write_bytes(whole)

    def test_no_key(self, tmp_path: Path) -> None:
        with pytest.raises(KeyFolderError, match="holds no key"):
            read_keys(tmp_path)


class TestOwner:
    def test_made_once_and_private(self, tmp_path: Path, owner: Path) -> None:
        assert owner_secret() == owner_secret()
        assert owner.stat().st_mode & 0o777 == 0o600
        assert len(owner_secret()) == 32
        assert owner_secret(tmp_path / "other") != owner_secret()

    def test_every_run_has_its_own(self) -> None:
        assert run_secret(SECRET, "a") != run_secret(SECRET, "b")
        assert fresh_secret() != fresh_secret()

    def test_a_foreign_file(self, owner: Path) -> None:
        owner.write_text("hello")
        with pytest.raises(KeyFolderError, match="is not an owner's secret"):
            owner_secret()


def test_registration_binds_everything() -> None:
    args = {"classes": ("a", "b", "c"), "shape": (1, 4, 4), "panel": ["sha256:00"]}
    base = register({"triggers": material()}, {"triggers": OPENINGS}, **args)  # type: ignore[arg-type]
    for change in ({"classes": ("a", "b", "d")}, {"shape": (1, 4, 5)}, {"panel": []}):
        other = register({"triggers": material()}, {"triggers": OPENINGS}, **args | change)  # type: ignore[arg-type]
        assert registration_digest(other) != registration_digest(base)
