"""Liars who write the guard's log themselves. The owner knows the coins, so he can log images that agree with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from court import Court
from helpers import CPU
from lies import (
    Command,
    Judge,
    Liar,
    bits_of,
    coins,
    later,
    lean,
    notes_of,
    resigned,
    sealed,
    two_likeliest,
    write_log,
)
from wootz.data import Dataset
from wootz.keys import AnswerKey, PreferenceKey, RegisteredMaterial, read_keys
from wootz.keys.answer_log import LogLength, chain_hash, key_from_log
from wootz.models import ModelSpec, build, read_model, write_model
from wootz.statistics.exact_tests import preference_evidence
from wootz.statistics.pairwise_preferences import preference_residuals, query_preferences
from wootz.statistics.queries import SuspectAccess
from wootz.store import file_digest
from wootz.suspects.files import predictor
from wootz.training import Recipe, train
from wootz.workflows import guard_ruling
from wootz.workflows import judge as judging
from wootz.workflows.guard_log import LOG, SEALS
from wootz.workflows.guard_ruling import LogRuling


def count_all(keys: dict[str, object], log: object, *_: object) -> LogRuling:
    """Weaken: whatever is in a log that was sealed in time counts."""
    return LogRuling(keys=keys, discounts={}, notes=())  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def unsure(digits: Dataset, small_spec: ModelSpec) -> nn.Module:
    """A model that the liar registers: it knows digits so-so, so the right class is its second one often enough."""
    recipe = Recipe(loss="natural", epochs=1, lr=1e-3)
    return train(recipe, build(small_spec, 77), digits.validation, digits.probes, seed=77, execution=CPU).model


class Served(NamedTuple):
    """A run whose log the liar writes: the guard's key, the images, and the two classes its model finds likeliest."""

    liar: Liar
    run: Path
    key: AnswerKey
    pixels: Tensor
    first: Tensor
    second: Tensor
    independent: Path

    def write(self, rows: slice | Tensor) -> None:
        """Log these images."""
        shape = self.liar.digits.shape
        write_log(self.run, self.key, shape, 100.0, self.pixels[rows], self.first[rows], self.second[rows])

    def claim(self, codes: Sequence[int] = (0, 1)) -> Path:
        """Seal the log and claim the accused model."""
        self.seal()
        claim = self.liar.place / "c.json"
        assert self.liar.wootz("claim", self.run, self.liar.accused, "--out", claim).code in codes
        return claim

    def seal(self) -> None:
        sealed(self.liar.wootz, self.liar.court, self.run)

    @property
    def words(self) -> tuple[object, ...]:
        """What a judge needs to count a log."""
        return ("--suspect-since", later(), "--independent", self.independent, "--registered-model", self.run)


@pytest.fixture
def served(liar: Liar, unsure: nn.Module, independent: Path) -> Served:
    params = read_keys(liar.court.owner).materials["guard"].params
    owner_keys = liar.draw(liar.materials | {"guard": RegisteredMaterial("answers", {}, params)}, options=None)
    key, pixels = owner_keys.by_mark["guard"], liar.digits.train.pixels
    assert isinstance(key, AnswerKey)
    run = liar.run(owner_keys, model=unsure)
    return Served(liar, run, key, pixels, *two_likeliest(unsure, pixels), independent)


def mixed(rows: Tensor, to_second: Tensor) -> Tensor:
    """Return as many of `rows` that lean to the second class as of those that do not, in turns."""
    one, other = rows[to_second[rows]], rows[~to_second[rows]]
    count = min(len(one), len(other))
    return torch.stack([one[:count], other[:count]], 1).flatten()


class TestChosenImages:
    """Images whose coins agree with what every model of the kind answers."""

    @pytest.fixture
    def claim(self, served: Served, references: Sequence[nn.Module]) -> Path:
        """The log was sealed before the suspect, which never met the key."""
        answers = served.pixels, served.first, served.second
        leaning = lean(predictor(references[0]), *answers)
        agree = (leaning > 0) == coins(served.key, served.liar.digits.shape, *answers)
        rows = mixed(agree.nonzero().flatten(), leaning > 0)
        assert len(rows) > 200
        served.write(rows)
        return served.claim(codes=[0])  # he believes it himself

    def test_liar_logs_images_whose_coins_agree_with_other_models(
        self, served: Served, claim: Path, accused: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        since, both = served.words[:2], served.words[2:]
        for words, why in (
            ((), "nobody says since when"),
            (since, "without the registered model"),
            ((*since, *both[2:]), "needs an independent model"),
            ((*since, *both[:2]), "without the registered model"),
            ((*since, *both), "its images were chosen"),
        ):
            said = judge(claim, accused, *words)
            assert (said.code, why in notes_of(said)) == (1, True), notes_of(said)
        with monkeypatch.context() as weak:
            weak.setattr(judging, "rule_on_log", count_all)
            for words in (since, (*since, *both)):
                assert judge(claim, accused, *words).code in (0, 4)
            assert judge(claim, accused, *since).code == 0

    def test_liar_says_that_another_model_was_registered(
        self, served: Served, claim: Path, court: Court, accused: Path, judge: Judge
    ) -> None:
        said = judge(claim, accused, *served.words[:-1], court.owner)
        assert (said.code, "is not the model that was registered" in notes_of(said)) == (4, True)


class TestOwnPairs:
    """The suspect was known when the log was written, and other models say nothing of what it leans to."""

    def log_on(
        self,
        run: Path,
        key: AnswerKey,
        suspect: nn.Module,
        other: nn.Module,
        panel: Sequence[nn.Module],
        digits: Dataset,
        gap: float,
        pairs: tuple[Tensor, Tensor],
    ) -> None:
        """Log images on which coins agree with the suspect, while the other model's votes for and against cancel."""
        pixels, (first, second) = digits.train.pixels, pairs
        heads = coins(key, digits.shape, pixels, first, second)
        whole = PreferenceKey(mark="guard", num_classes=10, pixels=pixels, first=first, second=second, preferred=heads)
        reference_models = [predictor(member) for member in panel]
        his, theirs = (
            preference_residuals(
                whole, query_preferences(whole, predictor(model), SuspectAccess()).preferences, reference_models
            )
            for model in (suspect, other)
        )
        rows = ((his > 0) == heads).nonzero().flatten()
        with_us = (theirs[rows] > 0) == heads[rows]
        pro, contra = (part[theirs[part].abs().argsort()] for part in (rows[with_us], rows[~with_us]))
        sizes = theirs[pro].abs()
        chosen = []
        for row in contra.tolist():  # each vote against, and one for that is about as large
            near = int((sizes - theirs[row].abs()).abs().argmin())
            if sizes[near].isinf():
                break
            chosen += [row, int(pro[near])]
            sizes[near] = torch.inf
        at = torch.tensor(chosen)
        assert len(at) > 200
        write_log(run, key, digits.shape, gap, pixels[at], first[at], second[at])

    def test_liar_logs_other_classes_than_the_registered_model_finds_likeliest(
        self,
        served: Served,
        digits: Dataset,
        blank: list[nn.Module],
        accused: Path,
        plain: nn.Module,
        judge: Judge,
        independent: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        order = predictor(plain)(digits.train.images()).argsort(dim=1, descending=True)[:, 5:7]
        turned = torch.rand(len(order), generator=torch.Generator().manual_seed(0)) < 0.5
        pairs = torch.where(turned, order[:, 0], order[:, 1]), torch.where(turned, order[:, 1], order[:, 0])
        self.log_on(served.run, served.key, plain, read_model(independent)[0], blank, digits, 100.0, pairs)
        claim, words = served.claim(), served.words
        said = judge(claim, accused, *words)
        assert said.code == 1, notes_of(said)
        strict = bits_of(said)
        with monkeypatch.context() as weak:
            weak.setattr(guard_ruling, "_explained", lambda key, *_: torch.ones(len(key.pixels), dtype=torch.bool))
            said = judge(claim, accused, *words)
            assert (said.code, bits_of(said) > strict) == (0, True), notes_of(said)

    @pytest.fixture
    def suspect(self, references: Sequence[nn.Module], small_spec: ModelSpec, tmp_path: Path) -> Path:
        write_model(tmp_path / "suspect", references[1], small_spec, {"data": "mnist-5k"})
        return tmp_path / "suspect"

    @pytest.mark.parametrize("gap", [1e-6, 1e9])
    def test_liar_logs_a_gap_to_his_liking(
        self,
        as_owner: Court,
        digits: Dataset,
        references: Sequence[nn.Module],
        plain: nn.Module,
        robust: nn.Module,
        suspect: Path,
        wootz: Command,
        judge: Judge,
        independent: Path,
        tmp_path: Path,
        gap: float,
        clean_log: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """So small that the model is sure of each entry, or so large that it is unsure of everything."""
        run, claim = as_owner.owner, tmp_path / "c.json"
        model, key = read_model(run)[0], read_keys(run).by_mark["guard"]
        assert isinstance(key, AnswerKey)
        pairs = two_likeliest(model, digits.train.pixels)
        panel = [robust, plain]
        self.log_on(run, key, references[1], read_model(independent)[0], panel, digits, gap, pairs)
        sealed(wootz, as_owner, run)
        wootz("claim", run, suspect, "--out", claim)
        words = ("--suspect-since", later(), "--independent", independent, "--registered-model", run)
        said = judge(claim, suspect, *words)
        why = "explains no entry" if gap < 1 else "of ordinary images unsure"
        assert (said.code, why in notes_of(said)) == (1, True), notes_of(said)
        with monkeypatch.context() as weak:
            if gap < 1:
                weak.setattr(guard_ruling, "_explained", lambda key, *_: torch.ones(len(key.pixels), dtype=torch.bool))
            else:
                weak.setattr(guard_ruling, "_is_rare", lambda *_: True)
            said = judge(claim, suspect, *words)
            assert (said.code, "entries of the guard's log count" in notes_of(said)) == (0, True), notes_of(said)


@pytest.fixture
def clean_log(court: Court) -> object:
    """Leave the owner's run without a log."""
    yield
    for file in (LOG, SEALS):
        (court.owner / file).unlink(missing_ok=True)


def test_liar_chooses_how_much_of_the_log_counts(
    served: Served,
    blank: list[nn.Module],
    accused: Path,
    plain: nn.Module,
    judge: Judge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A log that nobody chose, and a seal at the luckiest of all moments: a fixed series of lengths, at a price."""
    served.write(slice(400))
    log = served.run / LOG
    logged, answer = key_from_log(served.key, log), predictor(plain)
    assert isinstance(logged, PreferenceKey)

    def luck(count: int) -> float:
        parts = {name: getattr(logged, name)[:count] for name in ("pixels", "first", "second", "preferred")}
        return preference_evidence(
            replace(logged, **parts), answer, [predictor(member) for member in blank], SuspectAccess()
        ).bits

    best = max(range(64, 390, 3), key=luck)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[: best + 1]))
    claim, words = served.claim(), served.words
    said = judge(claim, accused, *words)
    assert said.code == 1
    strict = guard_bits(said)
    with monkeypatch.context() as weak:
        weak.setattr("wootz.workflows.certificate.log_length", lambda lines: LogLength(lines, 0.0))
        weak.setattr(guard_ruling, "_explained", lambda key, *_: torch.ones(len(key.pixels), dtype=torch.bool))
        weak.setattr(guard_ruling, "_tested", lambda _: iter(()))
        loose = guard_bits(judge(claim, accused, *words))
        assert loose == pytest.approx(luck(best), abs=0.02)
        assert loose > strict


def guard_bits(said: object) -> float:
    """Return the bits of the guard alone; 0 where it does not count."""
    found = {item["mark"]: float(item["bits"]) for item in said.json["evidence"]}  # type: ignore[attr-defined]
    return found.get("guard", 0.0)


@pytest.mark.parametrize("how", ["forgotten", "reordered", "of another log", "too long"])
def test_liar_chooses_among_his_seals(served: Served, accused: Path, judge: Judge, how: str) -> None:
    """Seals are points of one chain: he may leave some out or order them, at the price that each length has anyway."""
    served.write(slice(100))
    served.seal()
    served.write(slice(200))
    claim, words = served.claim(), served.words
    plain = judge(claim, accused, *words)

    def change(predicate: dict[str, object]) -> None:
        seals = predicate["guard"]["seals"]  # type: ignore[index]
        if how == "forgotten":
            seals.pop()
        elif how == "reordered":
            seals.reverse()
        elif how == "of another log":
            seals[-1].update(head="0" * 64)
        else:
            seals[-1].update(lines=150)

    resigned(claim, change)
    said = judge(claim, accused, *words)
    if how in ("forgotten", "reordered"):  # the shorter log counts, and pays for its own length
        assert (plain.code, said.code) == (1, 1)
        counted = [int(notes_of(word).split(" entries of")[0].split()[-1]) for word in (plain, said)]
        assert counted[1] < counted[0]
    else:
        assert said.code == 4, notes_of(said)


def test_liar_edits_his_log(served: Served, accused: Path, judge: Judge) -> None:
    """An entry that is not what the key makes of its image, and one image twice: the log does not hold."""
    served.write(slice(100))
    claim, words = served.claim(), served.words
    log, told = claim.with_suffix(".guard.jsonl"), (served.run / LOG).read_text().splitlines()

    def flipped(entries: list[dict[str, object]]) -> None:
        entries[5]["answer"] = (
            entries[5]["base"] if entries[5]["answer"] == entries[5]["second"] else entries[5]["second"]
        )

    def twice(entries: list[dict[str, object]]) -> None:
        entries[6] = dict(entries[5])

    edits: tuple[Callable[[list[dict[str, object]]], None], ...] = (flipped, twice)
    for edit in edits:
        entries = [json.loads(line) for line in told]
        edit(entries)
        chain, lines = "", []
        for entry in entries:
            fields = {name: value for name, value in entry.items() if name != "chain"}
            chain = chain_hash(chain, fields)
            lines.append(json.dumps(fields | {"chain": chain}))
        log.write_text("\n".join(lines) + "\n")
        assert judge(claim, accused, *words).code == 4  # not the one that was signed
        resigned(claim, lambda p: p["guard"].update(log=file_digest(log)))
        said = judge(claim, accused, *words)
        assert (said.code, "does not follow from this key" in notes_of(said)) == (4, True), notes_of(said)
