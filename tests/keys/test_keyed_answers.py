"""Which answers a secret changes, and to what."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
import torch

from answer_logs import CHANGE_PARAMS, FULL_SIZE_PARAMS, SHAPE, K, make_key, random_images
from wootz.data import Dataset
from wootz.keys.keyed_answers import (
    Projections,
    changed_class,
    digests,
    is_keyed,
    keyed_answer,
    preferred_class,
    projections,
)
from wootz.keys.prf import integers, stream
from wootz.statistics.tails import binomial_tail


class TestDigests:
    def test_by_hand(self) -> None:
        key, image = make_key(3), random_images(1)[0]
        step = round(100 * math.sqrt(36))
        signs = integers(key.secret, b"signs", 8 * 9, 2).tolist()
        words = stream(key.secret, b"offsets", 64)
        cells = []
        for n in range(8):
            total = sum(
                (min(max(int(image[0, r, c]), 16), 239) - 16) * (2 * signs[9 * n + 3 * (r // 2) + c // 2] - 1)
                for r in range(6)
                for c in range(6)
            )
            cells.append((total + int.from_bytes(words[8 * n : 8 * n + 8], "big") % step) // step)
        by_hand = hashlib.sha256(b"".join(cell.to_bytes(4, "little", signed=True) for cell in cells)).digest()[:16]
        assert digests(projections(key, SHAPE), image[None]) == [by_hand]

    def test_do_not_depend_on_the_batch(self) -> None:
        key_projections, pixels = projections(make_key(), SHAPE), random_images(50)
        assert digests(key_projections, pixels) == [digests(key_projections, image[None])[0] for image in pixels]

    def test_nearby_images_share_one_and_others_seldom_do(self, digits: Dataset) -> None:
        key_projections, images = projections(make_key(0, FULL_SIZE_PARAMS), digits.shape), digits.train.pixels[:2000]
        own = digests(key_projections, images)
        kept_shares = []
        for most in (1, 2, 8):
            moves = torch.randint(-most, most + 1, images.shape, generator=torch.Generator().manual_seed(most))
            moved = (images.int() + moves).clamp(0, 255).to(torch.uint8)
            kept_shares.append(np.mean([a == b for a, b in zip(own, digests(key_projections, moved), strict=True)]))
        assert kept_shares[0] > 0.97
        assert kept_shares[1] > 0.95
        assert kept_shares[0] > kept_shares[2] > 0.8
        different = [
            len(set(digests(projections(make_key(n, FULL_SIZE_PARAMS), digits.shape), images))) for n in range(8)
        ]
        assert np.mean(different) > 0.7 * len(images)  # of single keys from 0.5 to 0.9

    def test_noise_next_to_black_and_white_moves_nothing(self) -> None:
        key_projections = projections(make_key(), SHAPE)
        flat = torch.tensor([[0, 9, 16], [255, 246, 239]]).to(torch.uint8)
        black, white = (digests(key_projections, row[:, None, None, None].expand(3, *SHAPE)) for row in flat)
        assert len(set(black)) == 1
        assert len(set(white)) == 1

    def test_edges_lie_elsewhere_under_another_key(self) -> None:
        pixels = random_images(40)
        one, two = (Counter(digests(projections(make_key(n), SHAPE), pixels)) for n in (1, 2))
        assert not set(one) & set(two)
        key_projections = projections(make_key(1), SHAPE)
        assert isinstance(key_projections, Projections)
        assert ((key_projections.offsets >= 0) & (key_projections.offsets < key_projections.step)).all()


class TestClasses:
    def test_uniform_over_all_but_the_base(self) -> None:
        key, counts = make_key(), Counter[int]()
        for number in range(9000):
            counts[changed_class(key, number.to_bytes(16, "big"), 4)] += 1
        assert set(counts) == set(range(K)) - {4}
        assert sum((c - 1000) ** 2 / 1000 for c in counts.values()) < 26.1  # chi-squared, 8 degrees of freedom, 0.001

    def test_seldom_follows_the_base(self) -> None:
        key = make_key()
        for number in range(100):
            digest = number.to_bytes(16, "big")
            answers = Counter(changed_class(key, digest, base) for base in range(K))
            assert sorted(answers.values())[-1] == K - 1

    def test_one_of_two_is_preferred_by_a_fair_coin_whichever_comes_first(self) -> None:
        key = make_key()
        answers = [preferred_class(key, number.to_bytes(16, "big"), 7, 2) for number in range(10_000)]
        assert set(answers) == {2, 7}
        assert abs(answers.count(2) - 5000) < 3 * math.sqrt(2500)
        assert answers == [preferred_class(key, number.to_bytes(16, "big"), 2, 7) for number in range(10_000)]
        other = [preferred_class(key, number.to_bytes(16, "big"), 7, 3) for number in range(10_000)]
        assert abs(sum((a == 7) == (b == 7) for a, b in zip(answers, other, strict=True)) - 5000) < 150  # its own coin

    def test_an_order_is_kept_for_every_digest_and_classes_are_changed_for_some(self) -> None:
        ordered, changed, image_digests = (
            make_key(),
            make_key(0, CHANGE_PARAMS),
            [number.to_bytes(16, "big") for number in range(200)],
        )
        assert all(is_keyed(ordered, digest) for digest in image_digests)
        assert 50 < sum(is_keyed(changed, digest) for digest in image_digests) < 150
        assert [keyed_answer(ordered, d, 4, 1) for d in image_digests] == [
            preferred_class(ordered, d, 4, 1) for d in image_digests
        ]
        assert [keyed_answer(changed, d, 4, 1) for d in image_digests] == [
            changed_class(changed, d, 4) for d in image_digests
        ]

    def test_chosen_at_the_rate_of_the_share(self) -> None:
        key = make_key(0, FULL_SIZE_PARAMS)
        share = np.mean([is_keyed(key, n.to_bytes(16, "big")) for n in range(20_000)])
        assert abs(share - 0.05) < 3 * math.sqrt(0.05 * 0.95 / 20_000)


def test_the_null_holds_over_a_thousand_keys() -> None:
    """One fixed suspect, as bad as can be: it answers two thirds of the images with one favorite wrong class."""
    pixels, base = random_images(90), torch.arange(90) % K
    answers = (base + 1).remainder(K)
    answers[::3] = base[::3]
    ps = []
    for secret in range(1000):
        key = make_key(secret, CHANGE_PARAMS)
        image_digests = digests(projections(key, SHAPE), pixels)
        rows = {digest: row for row, digest in reversed(list(enumerate(image_digests))) if is_keyed(key, digest)}
        trials = [row for row in rows.values() if answers[row] != base[row]]
        hits = sum(int(answers[row]) == changed_class(key, image_digests[row], int(base[row])) for row in trials)
        ps.append(binomial_tail(hits, len(trials), 1 / (K - 1)))
    for a in (0.05, 0.01, 0.001):
        share = np.mean(np.array(ps) <= math.log(a) + 1e-12)
        assert share <= a + 3 * math.sqrt(a * (1 - a) / len(ps)), (a, share)
