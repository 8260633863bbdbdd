"""The log of changed answers: read back, cut off, forged; and what a test by it finds."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from answer_logs import CHANGE_PARAMS, SHAPE, K, make_key, random_images, save_lines, write_log
from wootz.errors import StoreError
from wootz.keys import LabelKey, PreferenceKey, key_from_log
from wootz.keys.answer_log import chain_hash, log_entry, log_header, log_length, read_log
from wootz.keys.keyed_answers import changed_class, digests, is_keyed, projections
from wootz.statistics.exact_tests import label_evidence
from wootz.statistics.queries import SuspectAccess
from wootz.store import canonical


class TestLog:
    def test_gives_a_label_key_if_answers_were_changed(self, tmp_path: Path) -> None:
        key = make_key(0, CHANGE_PARAMS)
        lines = write_log(tmp_path / "log", key)
        logged = key_from_log(key, tmp_path / "log")
        assert isinstance(logged, LabelKey)
        assert (logged.mark, logged.rule, logged.num_classes) == ("guard", "wrong", K)
        assert 15 < len(logged.labels) == len(lines) - 1
        assert logged.base.tolist() == [line["base"] for line in lines[1:]]
        assert (logged.labels != logged.base).all()
        raw = b"".join(base64.b64decode(str(line["image"])) for line in lines[1:])
        assert logged.pixels.numpy().tobytes() == raw

    def test_gives_a_preference_key_if_the_rule_prefers_one_of_two_classes(self, tmp_path: Path) -> None:
        key = make_key()
        lines = write_log(tmp_path / "log", key)[1:]
        logged = key_from_log(key, tmp_path / "log")
        assert isinstance(logged, PreferenceKey)
        assert (logged.mark, logged.num_classes, len(logged.pixels)) == ("guard", K, len(lines))
        assert logged.first.tolist() == [line["base"] for line in lines]
        assert logged.second.tolist() == [line["second"] for line in lines]
        assert logged.preferred.tolist() == [line["answer"] == line["second"] for line in lines]
        assert 10 < int(logged.preferred.sum()) < len(lines) - 10

    def test_an_empty_one_is_no_evidence(self, tmp_path: Path) -> None:
        save_lines(tmp_path / "log", [log_header(make_key(), SHAPE, 1.5)])
        logged = key_from_log(make_key(), tmp_path / "log")
        assert len(logged.pixels) == 0
        assert logged.pixels.shape == (0, *SHAPE)

    def test_a_sealed_part(self, tmp_path: Path) -> None:
        key = make_key()
        write_log(tmp_path / "log", key)
        whole = read_log(key, tmp_path / "log")
        part = key_from_log(key, tmp_path / "log", count=5)
        assert isinstance(part, PreferenceKey)
        assert part.preferred.tolist() == (whole.answer == whole.second)[:5].tolist()

    def test_the_lengths_that_count(self) -> None:
        """Every length costs -log2 of a weight, and the weights of all lengths sum to at most 1."""
        assert log_length(63) == (0, 0.0)
        assert [log_length(lines).images for lines in (64, 75, 76, 90, 91, 107, 108, 127, 128)] == [
            64,
            64,
            76,
            76,
            91,
            91,
            108,
            108,
            128,
        ]
        weights = {length.images: 2**-length.bits for length in map(log_length, range(64, 200_000, 1))}
        assert 0.9 < sum(weights.values()) < 1

    def test_a_line_that_was_cut_off_is_left_out(self, tmp_path: Path) -> None:
        key = make_key()
        write_log(tmp_path / "log", key)
        whole = read_log(key, tmp_path / "log")
        data = (tmp_path / "log").read_bytes()
        (tmp_path / "log").write_bytes(data[:-20])
        cut = read_log(key, tmp_path / "log")
        assert cut.chains == whole.chains[:-1]
        assert data[: cut.size].endswith(b"\n")

    @pytest.mark.parametrize("number", [0, 1, 7])
    def test_every_edit_is_noticed(self, number: int, tmp_path: Path) -> None:
        key, path = make_key(), tmp_path / "log"
        write_log(path, key)
        lines = path.read_bytes().splitlines()
        fields = json.loads(lines[number])
        for name in fields:
            changed = fields | {name: 3 if fields[name] != 3 else 4}
            path.write_bytes(b"\n".join([*lines[:number], canonical(changed), *lines[number + 1 :], b""]))
            with pytest.raises(StoreError, match=f"line {number + 1}: was changed"):
                read_log(key, path)
        for other in ([*lines[:number], *lines[number + 1 :]], [*lines[: number + 1], b"{}", *lines[number + 1 :]]):
            path.write_bytes(b"\n".join([*other, b""]))
            with pytest.raises(StoreError, match="was changed"):
                read_log(key, path)

    @pytest.mark.parametrize(
        "edit",
        [
            {"base": 10},
            {"base": -1},
            {"base": "1"},
            {"second": 10},
            {"second": 2},
            {"answer": 11},
            {"more": 1},
            {"digest": "00" * 16},
        ],
    )
    def test_a_forged_line_with_a_good_chain_is_refused(self, edit: dict[str, object], tmp_path: Path) -> None:
        key, path = make_key(), tmp_path / "log"
        lines = write_log(path, key)
        save_lines(path, [*lines[:3], lines[3] | edit, *lines[4:]])
        with pytest.raises(
            StoreError, match=r"line 4: does not follow from this key and the image|is not a log of keyed answers"
        ):
            read_log(key, path)

    def test_an_image_that_was_not_chosen_or_comes_twice_is_refused(self, tmp_path: Path) -> None:
        key, path = make_key(0, CHANGE_PARAMS), tmp_path / "log"
        lines = write_log(path, key)
        save_lines(path, [*lines, lines[1]])
        with pytest.raises(StoreError, match="does not follow from this key"):
            read_log(key, path)
        pixels = random_images(20, 1)
        image_digests = digests(projections(key, SHAPE), pixels)
        row = next(n for n, digest in enumerate(image_digests) if not is_keyed(key, digest))
        save_lines(
            path, [*lines, log_entry(pixels[row], image_digests[row], 2, 3, changed_class(key, image_digests[row], 2))]
        )
        with pytest.raises(StoreError, match="does not follow from this key"):
            read_log(key, path)

    def test_another_key_s_log(self, tmp_path: Path) -> None:
        write_log(tmp_path / "log", make_key())
        with pytest.raises(StoreError, match="log of another key"):
            key_from_log(make_key(1), tmp_path / "log")

    @pytest.mark.parametrize("text", [b"", b"\n", b"{}\n", b"[]\n", b"\xff\n", b'{"chain": 1}\n'])
    def test_what_is_no_log(self, text: bytes, tmp_path: Path) -> None:
        (tmp_path / "log").write_bytes(text)
        with pytest.raises(StoreError):
            read_log(make_key(), tmp_path / "log")

    def test_the_chain_is_the_definition_s(self) -> None:
        line = {"base": 1, "answer": 2}
        assert chain_hash("ab", line) == hashlib.sha256(b'\xab{"answer":2,"base":1}').hexdigest()


def test_who_learned_the_answers_is_told_from_who_did_not(tmp_path: Path) -> None:
    key = make_key(0, CHANGE_PARAMS)
    write_log(tmp_path / "log", key, 200)
    logged = key_from_log(key, tmp_path / "log")
    assert isinstance(logged, LabelKey)
    table = {image.numpy().tobytes(): int(label) for image, label in zip(logged.pixels, logged.labels, strict=True)}

    def learned(x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([table[i.mul(255).round().to(torch.uint8).numpy().tobytes()] for i in x])

    tested = label_evidence(logged, learned, (), SuspectAccess("label"))
    assert tested.details["hits"] == tested.details["trials"] == len(logged.labels)
    assert tested.bits == pytest.approx(len(logged.labels) * math.log2(9))
    independent = label_evidence(logged, lambda x: logged.base, (), SuspectAccess("label"))
    assert independent.bits == 0
