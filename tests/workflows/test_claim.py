"""A claim: what an honest owner proves with it, and what a judge refuses."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import rfc8785
import torch
from torch import nn

from court import Court
from runs import claim_run, judge_claim
from wootz.errors import ConfigError, KeyFolderError, SignatureError
from wootz.keys import read_keys, sign_statement, signing_key, verify_statement
from wootz.models import ModelSpec, build, write_model
from wootz.records import Result
from wootz.store import read_tensors, write_tensors
from wootz.suspects.files import open_file
from wootz.workflows.certificate import verify_certificate
from wootz.workflows.claim import CLAIM
from wootz.workflows.judge import CompetingClaim, JudgePolicy
from wootz.workflows.owner import Owner
from wootz.workflows.previous_claims import JUDGEMENT
from wootz.workflows.register import register_run
from wootz.workflows.suspects import QueryConfig

OWN = QueryConfig(isolated=False)


@pytest.fixture(autouse=True)
def whole_key(court: Court) -> None:
    """No tranche is burnt before a test begins."""
    for run in (court.owner, court.thief):
        (run / "key/burnt.jsonl").unlink(missing_ok=True)


@pytest.fixture
def claim(as_owner: Court, tmp_path: Path) -> Path:
    """A claim of the owner's against the thief."""
    path = tmp_path / "claim.json"
    assert claim_run(as_owner.owner, as_owner.thief, path, OWN).verdict == "KEY-DEPENDENT"
    return path


def judged(court: Court, certificate: Path, suspect: Path, **more: Any) -> Result:
    out = more.pop("out", None)
    return judge_claim(
        certificate, suspect, JudgePolicy(authorities=court.authority.roots, isolated=False, **more), out=out
    )


def changed(path: Path, change: Any) -> bytes:
    """Return a claim with its predicate changed and signed again by whoever signs now."""
    claim = verify_statement(path.read_bytes(), CLAIM)
    predicate = json.loads(json.dumps(claim.predicate))
    change(predicate)
    return sign_statement(signing_key(), claim.subject, CLAIM, predicate)


class TestHonest:
    def test_a_judge_comes_to_the_same_bits(self, claim: Path, as_owner: Court, tmp_path: Path) -> None:
        cell = judged(as_owner, claim, as_owner.thief, pinned=as_owner.keys / "owner.pub", out=tmp_path / "word.json")
        told = verify_statement(claim.read_bytes(), CLAIM).predicate["found"]
        assert cell.verdict == told["verdict"] == "KEY-DEPENDENT"
        assert float(told["bits"]) == cell.bits
        assert any("registered no later than" in note for note in cell.notes)
        word = verify_statement((tmp_path / "word.json").read_bytes(), JUDGEMENT).predicate
        assert (word["found"]["verdict"], word["found"]["bits"]) == ("KEY-DEPENDENT", told["bits"])

    def test_a_suspect_is_opened_once(self, as_owner: Court, monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[Path] = []

        def counted(path: Path, *arguments: Any, **options: Any) -> Any:
            opened.append(path)
            return open_file(path, *arguments, **options)

        monkeypatch.setattr("wootz.workflows.suspects.open_file", counted)
        assert Owner.load(as_owner.owner).claim(as_owner.thief, query=OWN).verdict.outcome == "KEY-DEPENDENT"
        assert opened == [as_owner.thief]

    def test_numbers_in_a_claim_are_strings_or_whole(self, claim: Path) -> None:
        def floats(value: Any) -> bool:
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            return isinstance(value, float) or any(map(floats, inner))

        assert not floats(verify_statement(claim.read_bytes(), CLAIM).predicate)

    def test_a_claim_opens_one_tranche_and_no_other_secret(self, claim: Path, as_owner: Court) -> None:
        text = base64.b64decode(json.loads(claim.read_bytes())["payload"]).decode()
        openings = read_keys(as_owner.owner).openings["triggers"]
        assert [part.secret.hex() in text for part in openings] == [True, False, False, False]
        assert len(read_tensors(claim.with_suffix(".safetensors"))["triggers/pixels"]) == 80

    def test_without_trusted_time_the_bar_is_eighty(self, claim: Path, as_owner: Court) -> None:
        cell = judge_claim(claim, as_owner.thief, JudgePolicy(isolated=False))
        assert cell.bar == 80
        assert any("time token was not checked" in note for note in cell.notes)

    def test_the_owner_wins_a_dispute_and_the_thief_loses_it(
        self, claim: Path, as_owner: Court, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(as_owner.keys / "thief.pem"))
        theirs = tmp_path / "theirs.json"
        assert claim_run(as_owner.thief, as_owner.thief, theirs, OWN).verdict == "KEY-DEPENDENT"
        assert judged(as_owner, theirs, as_owner.thief).verdict == "KEY-DEPENDENT"  # unopposed, it stands
        models = (as_owner.owner, as_owner.thief)
        first = judged(as_owner, claim, as_owner.thief, rival=CompetingClaim(theirs, models))
        assert first.verdict == "KEY-DEPENDENT"
        assert any("rival's own model carries this mark" in note for note in first.notes)
        second = judged(as_owner, theirs, as_owner.thief, rival=CompetingClaim(claim, models[::-1]))
        assert second.verdict == "INVALID CLAIM"
        assert any("own model carries the rival's mark" in note for note in second.notes)
        swapped = judged(as_owner, claim, as_owner.thief, rival=CompetingClaim(theirs, models[::-1]))
        assert any("is not the model" in note for note in swapped.notes)

    def test_registering_needs_the_key_it_was_protected_with(
        self, as_owner: Court, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(tmp_path / "other.pem"))
        with pytest.raises(KeyFolderError, match="another signing key"):
            register_run(as_owner.owner)
        bare = tmp_path / "bare"
        shutil.copytree(as_owner.owner, bare)
        (bare / "registration.dsse.json").unlink()
        with pytest.raises(KeyFolderError, match=r"wootz register .*bare"):
            claim_run(bare, as_owner.thief, tmp_path / "c.json", OWN)
        with pytest.raises(ConfigError, match=r"must end in \.json"):
            claim_run(as_owner.owner, as_owner.thief, tmp_path / "c", OWN)


class TestRefused:
    @pytest.mark.long
    def test_every_flipped_byte(self, claim: Path) -> None:
        data, material = claim.read_bytes(), claim.with_suffix(".safetensors")
        for place in range(len(data)):
            broken = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            with pytest.raises(SignatureError):
                verify_certificate(broken, material)

    def test_a_flipped_byte_is_an_invalid_claim(self, claim: Path, as_owner: Court) -> None:
        data = claim.read_bytes()
        claim.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
        assert judged(as_owner, claim, as_owner.thief).verdict == "INVALID CLAIM"

    def test_another_signature(self, claim: Path, as_owner: Court, monkeypatch: pytest.MonkeyPatch) -> None:
        pinned = as_owner.keys / "thief.pub"
        assert judged(as_owner, claim, as_owner.thief, pinned=pinned).verdict == "INVALID CLAIM"
        monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(as_owner.keys / "thief.pem"))
        claim.write_bytes(changed(claim, lambda _: None))
        cell = judged(as_owner, claim, as_owner.thief)
        assert (cell.verdict, "registered owner" in cell.notes[0]) == ("INVALID CLAIM", True)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda p: p["opened"]["triggers"].update(secret="00" * 32), "not the one that was committed to"),
            (lambda p: p["opened"]["triggers"].update(salt="00" * 32), "not the one that was committed to"),
            (lambda p: p["opened"]["triggers"].update(tranche=1), "leaves out marks"),
            (lambda p: p["opened"].pop("runner-up"), "leaves out marks"),
            (
                lambda p: p["opened"]["triggers"].update(tranche=True),
                r"opened.triggers.tranche: input should be a valid int",
            ),
            (lambda p: p["test"].update(tries=0), "test.tries"),
            (lambda p: p["test"].update(budget=100), "budget = 100: is not registered"),
            (lambda p: p["test"].update(access="weights"), "access = 'weights': is not registered"),
            (lambda p: p.update(more=1), "more: extra inputs are not permitted"),
            (lambda p: p.update(material="sha256:" + "0" * 64), "not the one that was signed"),
            (lambda p: p["panel"].pop(), "panel is not the one"),
            (lambda p: p["panel"].reverse(), "panel is not the one"),
            (lambda p: p["registered"].update(payload=p["registered"]["payload"][4:]), "signature does not fit"),
            (lambda p: p.pop("opened"), "opened: field required"),
            (lambda p: p.update(opened={}), "opened: dictionary should have at least 1 item"),
        ],
    )
    def test_edits_that_the_owner_signed_himself(self, claim: Path, as_owner: Court, change: Any, reason: str) -> None:
        data = changed(claim, change)
        with pytest.raises(SignatureError, match=reason):
            verify_certificate(data, claim.with_suffix(".safetensors"), authorities=as_owner.authority.roots)

    def test_material_that_was_touched(self, claim: Path, as_owner: Court) -> None:
        path = claim.with_suffix(".safetensors")
        tensors = read_tensors(path)
        for name, change in (("triggers/pixels", 1), ("runner-up/components", 0.5), ("triggers/base", 1)):
            write_tensors(path, tensors | {name: tensors[name] + torch.tensor(change, dtype=tensors[name].dtype)})
            assert judged(as_owner, claim, as_owner.thief).verdict == "INVALID CLAIM"
            resigned = changed(claim, lambda p: p.update(material=_digest(path)))
            with pytest.raises(SignatureError, match=r"not those that were registered|outside 0 to 9"):
                verify_certificate(resigned, path)
        path.unlink()
        assert judged(as_owner, claim, as_owner.thief).verdict == "INVALID CLAIM"

    def test_a_stranger(self, claim: Path, as_owner: Court, tmp_path: Path) -> None:
        cell = claim_run(as_owner.owner, as_owner.stranger, tmp_path / "b.json", OWN)
        assert cell.verdict == "NOT SHOWN"
        assert judged(as_owner, tmp_path / "b.json", as_owner.stranger).verdict == "NOT SHOWN"
        assert judged(as_owner, claim, as_owner.stranger).verdict == "NOT SHOWN"

    def test_other_weights_than_those_that_were_claimed(self, claim: Path, as_owner: Court) -> None:
        cell = judged(as_owner, claim, as_owner.owner)
        assert (cell.verdict, "other weights" in cell.notes[-1]) == ("INVALID CLAIM", True)

    def test_an_independent_model_at_the_bar_voids_the_claim(self, claim: Path, as_owner: Court) -> None:
        fine = judged(as_owner, claim, as_owner.thief, independents=(as_owner.stranger,))
        assert fine.verdict == "KEY-DEPENDENT"
        void = judged(as_owner, claim, as_owner.thief, independents=(as_owner.owner,))
        assert void.verdict == "INVALID CLAIM"

    def test_a_suspect_of_other_images(
        self, claim: Path, as_owner: Court, small_spec: ModelSpec, tmp_path: Path, plain: nn.Module
    ) -> None:
        from dataclasses import replace

        from wootz.errors import ModelError

        spec = replace(small_spec, classes=("a", "b"))
        write_model(tmp_path / "two", build(spec, 0), spec, {})
        with pytest.raises(ModelError, match="knows 2 classes"):
            judged(as_owner, claim, tmp_path / "two")

    def test_an_opened_tranche_is_burnt(self, as_owner: Court, tmp_path: Path, small_spec: ModelSpec) -> None:
        suspects = []
        for number in range(5):
            suspects.append(tmp_path / f"suspect{number}")
            write_model(suspects[-1], build(small_spec, number), small_spec, {})
        for number, suspect in enumerate(suspects[:4]):
            for _ in range(2):  # the same suspect again opens the same tranche
                claim_run(as_owner.owner, suspect, tmp_path / "c.json", OWN)
            told = verify_statement((tmp_path / "c.json").read_bytes(), CLAIM).predicate["opened"]
            assert told["triggers"]["tranche"] == number
            assert ("runner-up" in told) == (number == 0)  # it has one tranche, which the first claim opened
            verify_certificate((tmp_path / "c.json").read_bytes(), tmp_path / "c.safetensors")
        with pytest.raises(ConfigError, match="all 4 tranches of its key were opened"):
            claim_run(as_owner.owner, suspects[4], tmp_path / "c.json", OWN)


def test_the_registration_in_a_claim_is_the_one_that_was_signed(claim: Path, as_owner: Court) -> None:
    told = verify_statement(claim.read_bytes(), CLAIM).predicate
    assert rfc8785.dumps(told["registered"]) == (as_owner.owner / "registration.dsse.json").read_bytes()


def _digest(path: Path) -> str:
    from wootz.store import file_digest

    return file_digest(path)
