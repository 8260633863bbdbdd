"""Every byte that a claimant hands over: changed, removed or inserted, in any of the three files of a claim."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import ANY

import pytest
import rfc8785
import torch
from _pytest.monkeypatch import MonkeyPatch
from hypothesis import given, settings
from hypothesis import strategies as st

from authority import serving
from court import Court
from lies import Judge, later, two_likeliest, write_log
from runs import claim_run
from wootz.cli.judge import _time
from wootz.data import Dataset
from wootz.errors import SignatureError
from wootz.keys import AnswerKey, LabelKey, PreferenceKey, read_keys
from wootz.models import read_model
from wootz.store import read_tensors, write_tensors
from wootz.workflows.certificate import VerifiedClaim, verify_certificate
from wootz.workflows.guard_log import LOG, SEALS
from wootz.workflows.register import register_run
from wootz.workflows.suspects import QueryConfig, identify

FILES = ("c.json", "c.safetensors", "c.guard.jsonl")


class RawDataset(NamedTuple):
    """Two claims with a guard's log each, about the thief and about the stranger, and room for changed copies."""

    claim: Path
    other: Path
    room: Path
    roots: Path


@pytest.fixture(scope="session")
def whole(court: Court, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> RawDataset:
    place = tmp_path_factory.mktemp("bytes")
    model, key = read_model(court.owner)[0], read_keys(court.owner).by_mark["guard"]
    assert isinstance(key, AnswerKey)
    with MonkeyPatch.context() as patch:
        patch.setenv("WOOTZ_SIGNING_KEY", str(court.keys / "owner.pem"))
        patch.setenv("WOOTZ_OWNER_KEY", str(place / "secret"))
        (court.owner / "key/burnt.jsonl").unlink(missing_ok=True)
        for count, name, suspect in ((80, "theft", court.thief), (100, "stranger", court.stranger)):
            pixels = digits.train.pixels[:count]
            write_log(court.owner, key, digits.shape, 0.5, pixels, *two_likeliest(model, pixels))
            with serving(court.authority) as url:
                register_run(court.owner, tsa=url)
            claim_run(court.owner, suspect, place / name / "c.json", QueryConfig(isolated=False))
            for file in (LOG, SEALS, Path("key/burnt.jsonl")):
                (court.owner / file).unlink()
    shutil.copytree(place / "theft", place / "room")
    return RawDataset(place / "theft", place / "stranger", place / "room", court.authority.roots)


def examined(folder: Path, roots: Path) -> VerifiedClaim:
    return verify_certificate(
        (folder / "c.json").read_bytes(), folder / "c.safetensors", authorities=roots, suspect_since=_time(later())
    )


def evidence_of(proven: VerifiedClaim) -> dict[str, Any]:
    """Return all that the bits of a claim are made of."""
    tensors = {}
    for name, key in proven.keys.items():
        if isinstance(key, LabelKey | PreferenceKey):
            tensors[name] = [key.pixels, key.labels if isinstance(key, LabelKey) else key.preferred]
        else:
            tensors[name] = [key.direction, key.probes, key.components]  # type: ignore[union-attr]
    facts = (proven.query(), proven.since, proven.registered, proven.log, proven.model, dict(proven.claim.subject))
    return {"tensors": tensors, "facts": facts}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    mine, theirs = one["tensors"], other["tensors"]
    alike = mine.keys() == theirs.keys() and all(
        torch.equal(a, b) for name in mine for a, b in zip(mine[name], theirs[name], strict=True)
    )
    return alike and one["facts"] == other["facts"]


def test_liar_changes_any_byte_of_any_file(whole: RawDataset) -> None:
    honestly = evidence_of(examined(whole.claim, whole.roots))
    assert "guard" in honestly["tensors"]
    refused = []

    @settings(max_examples=400, deadline=None, database=None)
    @given(
        file=st.sampled_from(FILES),
        how=st.sampled_from(("change", "remove", "insert", "cut")),
        where=st.floats(0, 1, exclude_max=True),
        byte=st.integers(1, 255),
    )
    def lie(file: str, how: str, where: float, byte: int) -> None:
        data = (whole.claim / file).read_bytes()
        at = int(where * len(data))
        changed = {
            "change": data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :],
            "remove": data[:at] + data[at + 1 :],
            "insert": data[:at] + bytes([byte]) + data[at:],
            "cut": data[:at],
        }[how]
        (whole.room / file).write_bytes(changed)
        try:
            assert same(evidence_of(examined(whole.room, whole.roots)), honestly)
        except SignatureError:
            refused.append(how)
        finally:
            (whole.room / file).write_bytes(data)

    lie()
    assert set(refused) == {"change", "remove", "insert", "cut"}


@pytest.mark.parametrize("file", FILES)
def test_liar_swaps_or_leaves_out_a_file(whole: RawDataset, file: str, as_owner: Court, judge: Judge) -> None:
    claim = whole.room / "c.json"
    words = (
        as_owner.thief,
        "--suspect-since",
        later(),
        "--independent",
        as_owner.stranger,
        "--registered-model",
        as_owner.owner,
    )
    assert judge(claim, *words).code == 0
    (whole.room / file).unlink()
    assert judge(claim, *words).code == (2 if file == "c.json" else 4)
    shutil.copy(whole.other / file, whole.room / file)
    same_bytes = (whole.other / file).read_bytes() == (whole.claim / file).read_bytes()
    assert same_bytes == (file == "c.safetensors")  # the same tranche, opened against either
    assert judge(claim, *words).code == (0 if same_bytes else 4)
    for name in FILES:
        shutil.copy(whole.claim / name, whole.room / name)


def test_liar_changes_what_was_signed(
    whole: RawDataset, as_owner: Court, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a look at signatures any word of a claim can be changed: here, whom it is about."""
    shutil.copytree(whole.claim, tmp_path / "c")
    claim = tmp_path / "c/c.json"
    envelope = json.loads(claim.read_bytes())
    payload = json.loads(base64.b64decode(envelope["payload"]))
    payload["subject"][0]["digest"]["sha256"] = identify(as_owner.owner).digest
    envelope["payload"] = base64.b64encode(rfc8785.dumps(payload)).decode()
    claim.write_bytes(rfc8785.dumps(envelope))
    assert judge(claim, as_owner.owner).code == 4
    with monkeypatch.context() as weak:

        class Anyone:
            @staticmethod
            def from_public_bytes(_: bytes) -> Anyone:
                return Anyone()

            def verify(self, *_: bytes) -> None:
                return

        weak.setattr("wootz.keys.signing.Ed25519PublicKey", Anyone)
        assert judge(claim, as_owner.owner).code == 0


def test_liar_changes_material_that_no_digest_holds(
    whole: RawDataset, as_owner: Court, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The material's digest is signed, and its tensors are registered: either of the two checks is enough."""
    shutil.copytree(whole.claim, tmp_path / "c")
    material = tmp_path / "c/c.safetensors"
    tensors = read_tensors(material)
    write_tensors(material, tensors | {"triggers/base": (tensors["triggers/base"] + 1) % 10})
    signed = json.loads(base64.b64decode(json.loads((tmp_path / "c/c.json").read_bytes())["payload"]))
    assert judge(tmp_path / "c/c.json", as_owner.thief).code == 4
    with monkeypatch.context() as weak:
        weak.setattr("wootz.workflows.certificate.file_digest", lambda path: signed["predicate"]["material"])
        weak.setattr(
            "wootz.workflows.certificate._guard",
            lambda keys, *_: ({n: k for n, k in keys.items() if n != "guard"}, None, ()),
        )
        assert judge(tmp_path / "c/c.json", as_owner.thief).code == 4
        weak.setattr("wootz.keys.reveal.tranche_root", lambda *_: ANY)
        assert judge(tmp_path / "c/c.json", as_owner.thief).code == 0  # other labels, and nobody noticed
