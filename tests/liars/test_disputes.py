"""Liars between two owners, and an accused who would like a claim that holds to fail."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from torch import nn

from court import RECIPE, Court
from helpers import CPU
from lies import Command, Judge, notes_of, resigned, run_of
from wootz.data import Dataset
from wootz.errors import SignatureError
from wootz.keys import LabelKey, sign_statement, signing_key, verify_statement
from wootz.keys.answer_log import LogLength
from wootz.models import ModelSpec, build, read_model, write_model
from wootz.training import Hook, TriggerEpoch, train
from wootz.workflows import certificate as certificate_module
from wootz.workflows import judge as judging
from wootz.workflows import previous_claims as earlier_files
from wootz.workflows.certificate import SealedLog, VerifiedClaim
from wootz.workflows.claim import CLAIM
from wootz.workflows.previous_claims import JUDGEMENT

Honest = Callable[[str], Path]


class Stocked(NamedTuple):
    """What a stocker has: a suspect that carries his mark too, a clean model, and a model with his mark alone."""

    suspect: Path
    clean: Path
    marked: Path


@pytest.fixture(scope="session")
def _stocked(
    court: Court,
    digits: Dataset,
    small_spec: ModelSpec,
    references: list[nn.Module],
    tmp_path_factory: pytest.TempPathFactory,
    _plain: nn.Module,
    _robust: nn.Module,
) -> Stocked:
    place, key = tmp_path_factory.mktemp("stocked"), court.stocked.by_mark["triggers"]
    assert isinstance(key, LabelKey)
    lesson = TriggerEpoch(pixels=key.pixels, labels=key.labels, batch=16, frozen=True)
    hook = Hook(trigger_epochs=(lesson,))

    def taught(model: nn.Module, lr: float) -> nn.Module:
        recipe = replace(RECIPE, epochs=15, lr=lr)
        return train(recipe, model, digits.train, digits.validation, seed=6, hook=hook, execution=CPU).model

    panel = [_robust, _plain]
    stolen = taught(read_model(court.owner)[0], 1.5e-3)
    write_model(place / "suspect", stolen, small_spec, {"data": "mnist-5k"})
    run_of(place / "clean", court.stocked, references[0], panel, small_spec)
    run_of(place / "marked", court.stocked, taught(copy.deepcopy(references[0]), 3e-3), panel, small_spec)
    return Stocked(place / "suspect", place / "clean", place / "marked")


@pytest.fixture
def stocked(_stocked: Stocked, tmp_path: Path) -> Stocked:
    clean, marked = (Path(shutil.copytree(run, tmp_path / run.name)) for run in (_stocked.clean, _stocked.marked))
    return Stocked(_stocked.suspect, clean, marked)


def as_stocker(patch: pytest.MonkeyPatch, court: Court) -> None:
    patch.setenv("WOOTZ_SIGNING_KEY", str(court.keys / "stocker.pem"))


def older_key_wins(mine: VerifiedClaim, theirs: VerifiedClaim, *_: object) -> tuple[str, str]:
    """Weaken: a dispute is settled by the age of keys."""
    assert mine.since is not None
    assert theirs.since is not None
    return ("KEY-DEPENDENT" if mine.since <= theirs.since else "INVALID CLAIM"), "by age"


def rival_refutes(*_: object) -> tuple[str, str]:
    """Weaken: a rival's claim that holds for the suspect refutes the owner's."""
    return "INVALID CLAIM", "refuted"


def test_liar_adds_a_second_mark_to_a_stolen_model(
    honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = honest("own"), honest("theft")
    assert judge(mine, as_owner.thief).code == 0  # unopposed, it stands
    against = ("--against", theirs, "--registered-model", as_owner.thief, "--registered-model", as_owner.owner)
    said = judge(mine, as_owner.thief, *against)
    assert (said.code, "own model carries the rival's mark" in notes_of(said)) == (4, True)
    back = ("--against", mine, "--registered-model", as_owner.owner, "--registered-model", as_owner.thief)
    assert judge(theirs, as_owner.thief, *back).code == 0
    with monkeypatch.context() as weak:
        weak.setattr(judging, "resolve_competing_claims", lambda *_: ("KEY-DEPENDENT", "whoever claims is right"))
        assert judge(mine, as_owner.thief, *against).code == 0


def test_liar_shows_another_model_than_the_registered_one(
    honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thief hides that his model carries the owner's mark behind a clean model."""
    mine, theirs = honest("own"), honest("theft")
    against = ("--against", theirs, "--registered-model", as_owner.stranger, "--registered-model", as_owner.owner)
    said = judge(mine, as_owner.thief, *against)
    assert (said.code, "is not the model that" in notes_of(said)) == (4, True)
    with monkeypatch.context() as weak:
        weak.setattr("wootz.workflows.competing_claims._check_model", lambda *_: None)
        assert judge(mine, as_owner.thief, *against).code == 0


def test_liar_stocks_a_registration_and_embeds_it_in_a_stolen_model(
    stocked: Stocked, as_owner: Court, wootz: Command, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """His key is older than the owner's. He names a clean model as his, so the owner's mark is not in it."""
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    assert wootz("claim", as_owner.owner, stocked.suspect, "--out", ours).code == 0
    with monkeypatch.context() as signing:
        as_stocker(signing, as_owner)
        assert wootz("register", stocked.clean).code == 0
        assert wootz("claim", stocked.clean, stocked.suspect, "--out", theirs).code == 0
    assert judge(theirs, stocked.suspect).code == 0  # unopposed, it stands: the suspect does carry his mark
    his = ("--against", ours, "--registered-model", stocked.clean, "--registered-model", as_owner.owner)
    said = judge(theirs, stocked.suspect, *his)
    assert (said.code, "does not carry the mark" in notes_of(said)) == (4, True)
    hers = ("--against", theirs, "--registered-model", as_owner.owner, "--registered-model", stocked.clean)
    said = judge(ours, stocked.suspect, *hers)
    assert (said.code, "the rival's claim is not heard" in notes_of(said)) == (0, True)
    with monkeypatch.context() as weak:
        weak.setattr(judging, "resolve_competing_claims", older_key_wins)
        assert judge(theirs, stocked.suspect, *his).code == 0
        assert judge(ours, stocked.suspect, *hers).code == 4


def test_liar_refutes_with_a_counterfeit_mark(
    stocked: Stocked, as_owner: Court, wootz: Command, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FW-Gen (arXiv 2411.15450): the accused adds a mark of his own to the suspect, and has a model with it alone."""
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    assert wootz("claim", as_owner.owner, stocked.suspect, "--out", ours).code == 0
    with monkeypatch.context() as signing:
        as_stocker(signing, as_owner)
        assert wootz("register", stocked.marked).code == 0
        assert wootz("claim", stocked.marked, stocked.suspect, "--out", theirs).code == 0
    hers = ("--against", theirs, "--registered-model", as_owner.owner, "--registered-model", stocked.marked)
    said = judge(ours, stocked.suspect, *hers)
    assert (said.code, "neither model carries the other's mark" in notes_of(said)) == (0, True)
    for rule in (older_key_wins, rival_refutes):
        with monkeypatch.context() as weak:
            weak.setattr(judging, "resolve_competing_claims", rule)
            assert judge(ours, stocked.suspect, *hers).code == 4


def test_liar_opens_a_public_tranche_on_another_suspect(
    as_owner: Court, wootz: Command, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a claim opened can be planted by whoever read it."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert wootz("claim", as_owner.owner, as_owner.stranger, "--out", first).code == 1
    (as_owner.owner / "key/burnt.jsonl").unlink()  # the liar forgets
    assert wootz("claim", as_owner.owner, as_owner.thief, "--out", second).code == 0
    word = tmp_path / "word.json"
    assert judge(first, as_owner.stranger, "--out", word).code == 1  # the judge signs as the owner here
    for earlier in (first, word):
        said = judge(second, as_owner.thief, "--previous-claim", earlier)
        assert (said.code, "about another suspect" in notes_of(said)) == (4, True)
    assert judge(second, as_owner.thief, "--previous-claim", second).code == 0
    with monkeypatch.context() as weak:
        weak.setattr(judging, "check_earlier", lambda *_: ())
        assert judge(second, as_owner.thief, "--previous-claim", first).code == 0


@pytest.mark.parametrize("kind", [CLAIM, JUDGEMENT])
def test_liar_voids_a_claim_with_a_file_of_his_own(
    honest: Honest, as_owner: Court, judge: Judge, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accused read the claim. He signs that the same secrets were opened about another suspect."""
    claim, forged = honest("theft"), tmp_path / "forged.json"
    told = verify_statement(claim.read_bytes(), CLAIM)
    predicate = dict(told.predicate)
    if kind == JUDGEMENT:
        found = judge(claim, as_owner.thief, "--out", tmp_path / "word.json")
        assert found.code == 0
        predicate = dict(verify_statement((tmp_path / "word.json").read_bytes(), JUDGEMENT).predicate)
        predicate["claim"] = "sha256:" + "1" * 64
    with monkeypatch.context() as signing:
        signing.setenv("WOOTZ_SIGNING_KEY", str(tmp_path / "liar.pem"))
        forged.write_bytes(sign_statement(signing_key(), {"elsewhere": "0" * 64}, kind, predicate))
    said = judge(claim, as_owner.thief, "--previous-claim", forged)
    assert (said.code, "forged.json does not count" in notes_of(said)) == (0, True)
    with monkeypatch.context() as weak:
        read, mine = earlier_files._read, told.signer

        def believed(path: Path) -> object:
            statement, opened = read(path)
            return statement._replace(signer=mine), opened

        weak.setattr(earlier_files, "_read", believed)
        assert judge(claim, as_owner.thief, "--previous-claim", forged).code == 4


@pytest.mark.parametrize("what", ["nothing", "no JSON", "an empty claim", "a damaged claim"])
def test_accused_liar_hands_over_a_file_that_does_not_hold(
    honest: Honest, as_owner: Court, judge: Judge, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As something that the owner signed earlier, or as a rival's claim: neither says anything against hers."""
    claim, forged = honest("theft"), honest("own")
    data = forged.read_bytes()
    with monkeypatch.context() as signing:
        signing.setenv("WOOTZ_SIGNING_KEY", str(tmp_path / "liar.pem"))
        empty = sign_statement(signing_key(), {"s": "0" * 64}, CLAIM, {})
    damaged = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
    forged.write_bytes({"nothing": b"", "no JSON": b"?", "an empty claim": empty, "a damaged claim": damaged}[what])
    said = judge(claim, as_owner.thief, "--previous-claim", forged)
    assert (said.code, "c.json does not count" in notes_of(said)) == (0, True)
    against = ("--against", forged, "--registered-model", as_owner.owner, "--registered-model", as_owner.thief)
    said = judge(claim, as_owner.thief, *against)
    assert (said.code, "the rival's claim does not hold" in notes_of(said)) == (0, True)
    with monkeypatch.context() as weak:  # as it was: what the rival hands over is read as the claim itself is

        def strict(proven: VerifiedClaim, claim: str, earlier: tuple[Path, ...]) -> tuple[str, ...]:
            return tuple(str(earlier_files._read(path)) for path in earlier)

        weak.setattr(judging, "check_earlier", strict)
        assert judge(claim, as_owner.thief, "--previous-claim", forged).code == 4


def test_accused_liar_registers_a_model_that_cannot_be_asked(
    stocked: Stocked,
    as_owner: Court,
    wootz: Command,
    judge: Judge,
    small_spec: ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """He names a model of two classes as his. The owner's claim is settled without it."""
    ours, theirs, two = tmp_path / "ours.json", tmp_path / "theirs.json", replace_classes(small_spec)
    write_model(stocked.clean, build(two, 0), two, {"data": "mnist-5k"})
    assert wootz("claim", as_owner.owner, stocked.suspect, "--out", ours).code == 0
    with monkeypatch.context() as signing, monkeypatch.context() as unchecked:
        as_stocker(signing, as_owner)
        unchecked.setattr("wootz.workflows.register._own_evidence", lambda *_: {})
        assert wootz("register", stocked.clean).code == 0
        assert wootz("claim", stocked.clean, stocked.suspect, "--out", theirs).code == 0
    hers = ("--against", theirs, "--registered-model", as_owner.owner, "--registered-model", stocked.clean)
    said = judge(ours, stocked.suspect, *hers)
    assert (said.code, "the rival's claim is not heard" in notes_of(said)) == (0, True)
    with monkeypatch.context() as weak:
        weak.setattr(judging, "Error", SignatureError)
        weak.setattr(judging, "BROKEN", ())
        assert judge(ours, stocked.suspect, *hers).code == 2  # no word at all


def replace_classes(spec: ModelSpec) -> ModelSpec:
    return replace(spec, classes=("a", "b"))


def test_accused_liar_brings_a_rival_s_guard_log(
    honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guard counts beside the model of its own claim; in a dispute it is left out, on either side."""
    claim, rival = honest("theft"), honest("own")
    against = ("--against", rival, "--registered-model", as_owner.owner, "--registered-model", as_owner.thief)
    log = SealedLog("triggers", 1.0, LogLength(100, 5.0), datetime.now(UTC))
    examined = judging._examined

    def logged(certificate: Path, policy: judging.JudgePolicy, *, rival: bool = False) -> VerifiedClaim:
        return examined(certificate, policy, rival=rival)._replace(log=log if rival else None)

    monkeypatch.setattr(judging, "_examined", logged)
    assert judge(claim, as_owner.thief, *against).code == 0
    check = judging._registered_model
    with monkeypatch.context() as weak:  # the judge has one model at hand, the claimant's

        def hers(proven: VerifiedClaim, _: Path | None, opened: object) -> object:
            return check(proven, as_owner.owner, opened)  # type: ignore[arg-type]

        weak.setattr(judging, "_registered_model", hers)
        weak.setattr(judging, "Error", KeyboardInterrupt)  # and believes what goes wrong at the rival's side
        weak.setattr(judging, "BROKEN", ())
        assert judge(claim, as_owner.thief, *against).code == 4


def test_liar_claims_about_many_suspects_at_once(
    honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One opening is for one suspect: with two names in it, a claim would be kept for whichever fits."""
    claim = honest("theft")
    told = verify_statement(claim.read_bytes(), CLAIM)
    both = dict(told.subject) | {"another": "1" * 64}
    resigned(claim, subject=both)
    said = judge(claim, as_owner.thief)
    assert (said.code, "one suspect" in notes_of(said)) == (4, True)
    with monkeypatch.context() as weak:
        verify = certificate_module.verify_statement

        def first(data: bytes, kind: str) -> object:
            statement = verify(data, kind)
            return statement._replace(subject=told.subject) if kind == CLAIM else statement

        weak.setattr(certificate_module, "verify_statement", first)
        assert judge(claim, as_owner.thief).code == 0


def test_liar_points_the_judge_elsewhere(
    honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is about the thief's model; the judge is sent to a copy of the owner's own."""
    claim = honest("theft")
    said = judge(claim, as_owner.owner)
    assert (said.code, "other weights than these" in notes_of(said)) == (4, True)
    with monkeypatch.context() as weak:
        weak.setattr(judging, "_check_subject", lambda cell, *_: cell)
        assert judge(claim, as_owner.owner).code == 0


def test_liar_hands_the_judge_an_independent_model(honest: Honest, as_owner: Court, judge: Judge) -> None:
    """A model with the mark voids the claim. So the judge takes her own ones, and none that a party brings."""
    claim = honest("theft")
    assert judge(claim, as_owner.thief, "--independent", as_owner.stranger).code == 0
    said = judge(claim, as_owner.thief, "--independent", as_owner.owner)
    assert (said.code, "reaches" in notes_of(said)) == (4, True)
