"""Signed statements and time tokens: what is accepted is what was signed, to the byte."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authority import Authority, serving
from wootz.errors import KeyFolderError, SignatureError
from wootz.ownership import opened, public_hex, public_pem, read_public, read_roots, signed, signing_key, stamped_at
from wootz.ownership.timestamps import stamp_request
from wootz.stages.stamp import fetch_stamp

KIND = "urn:test:statement:1"
WHAT = {"bits": "41.5", "labels": [3, 1, 4], "marks": {"triggers": {"tranche": 0}}, "stamped": True, "note": "é"}
SUBJECT = {"model": "ab" * 32}


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class TestStatements:
    def test_what_was_signed_is_read(self, key: Ed25519PrivateKey) -> None:
        statement = opened(signed(key, SUBJECT, KIND, WHAT), KIND)
        assert (statement.subject, statement.predicate, statement.signer) == (SUBJECT, WHAT, public_hex(key))

    def test_the_same_statement_is_the_same_bytes(self, key: Ed25519PrivateKey) -> None:
        backwards = dict(reversed(list(WHAT.items())))
        assert signed(key, SUBJECT, KIND, WHAT) == signed(key, SUBJECT, KIND, backwards)

    def test_bytes_of_an_earlier_release_still_verify(self) -> None:
        golden = Path(__file__).parent / "golden" / "statement.dsse.json"
        assert opened(golden.read_bytes(), KIND).predicate == WHAT

    def test_every_flipped_byte_is_refused(self, key: Ed25519PrivateKey) -> None:
        data = signed(key, SUBJECT, KIND, WHAT)
        for place in range(len(data)):
            for change in (1, 0x20, 0x80):
                broken = bytearray(data)
                broken[place] ^= change
                with pytest.raises(SignatureError):
                    opened(bytes(broken), KIND)

    def test_two_hundred_edits_of_meaning_are_refused(self, key: Ed25519PrivateKey) -> None:
        envelope, chance = json.loads(signed(key, SUBJECT, KIND, WHAT)), random.Random(0)
        seen = set()
        while len(seen) < 200:
            payload = json.loads(base64.b64decode(envelope["payload"]))
            edited = json.loads(json.dumps(envelope))
            edit(payload, chance)
            edited["payload"] = base64.b64encode(rfc8785.dumps(payload)).decode()
            data = rfc8785.dumps(edited)
            if edited == envelope or data in seen:
                continue
            seen.add(data)
            with pytest.raises(SignatureError):
                opened(data, KIND)

    def test_another_kind_is_refused(self, key: Ed25519PrivateKey) -> None:
        with pytest.raises(SignatureError, match="not a 'urn:other'"):
            opened(signed(key, SUBJECT, KIND, WHAT), "urn:other")

    def test_another_form_of_the_same_json_is_refused(self, key: Ed25519PrivateKey) -> None:
        plain = json.loads(signed(key, SUBJECT, KIND, WHAT))
        for data in (
            json.dumps(plain, indent=1),
            json.dumps(plain) + "\n",
            "\ufeff" + json.dumps(plain),
            "{}",
            "",
            "[",
        ):
            with pytest.raises(SignatureError):
                opened(data.encode(), KIND)

    def test_a_name_for_another_key_is_not_believed(self, key: Ed25519PrivateKey) -> None:
        plain = json.loads(signed(key, SUBJECT, KIND, WHAT))
        plain["signatures"][0]["keyid"] = public_hex(Ed25519PrivateKey.generate())
        with pytest.raises(SignatureError, match="does not fit"):
            opened(rfc8785.dumps(plain), KIND)

    @pytest.mark.parametrize("count", [0, 2])
    def test_one_signature_and_no_other_number(self, key: Ed25519PrivateKey, count: int) -> None:
        plain = json.loads(signed(key, SUBJECT, KIND, WHAT))
        plain["signatures"] = plain["signatures"] * count
        with pytest.raises(SignatureError):
            opened(rfc8785.dumps(plain), KIND)

    def test_depth_and_size_do_no_harm(self) -> None:
        for data in (b"[" * 200_000, b'{"a":' * 100_000, b" " * (17 << 20)):
            with pytest.raises(SignatureError):
                opened(data, KIND)


class TestSigningKey:
    def test_is_made_once_and_for_its_owner_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "signing.pem"
        first = signing_key(path)
        assert public_hex(signing_key(path)) == public_hex(first)
        assert path.stat().st_mode & 0o777 == 0o600
        (tmp_path / "public.pem").write_bytes(public_pem(first))
        assert read_public(tmp_path / "public.pem") == public_hex(first)

    def test_a_password_locks_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "signing.pem"
        monkeypatch.setenv("WOOTZ_SIGNING_PASSWORD", "wootz")
        first = signing_key(path)
        assert b"ENCRYPTED" in path.read_bytes()
        assert public_hex(signing_key(path)) == public_hex(first)
        for wrong in ("", "other"):
            monkeypatch.setenv("WOOTZ_SIGNING_PASSWORD", wrong)
            with pytest.raises(KeyFolderError, match="WOOTZ_SIGNING_PASSWORD"):
                signing_key(path)

    def test_another_kind_of_key_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "signing.pem"
        made = generate_ec_key(SECP256R1())
        path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with pytest.raises(KeyFolderError, match="not an Ed25519 key"):
            signing_key(path)
        path.write_text("nonsense")
        with pytest.raises(KeyFolderError, match="can not be opened"):
            signing_key(path)
        with pytest.raises(KeyFolderError, match="public key"):
            read_public(path)


class TestTime:
    digest = hashlib.sha256(b"what was registered").digest()

    def test_a_token_over_http_says_when(self, authority: Authority) -> None:
        with serving(authority) as url:
            token = fetch_stamp(url, self.digest)
        when = stamped_at(token, self.digest, read_roots(authority.roots))
        assert abs(when - datetime.now(UTC)) < timedelta(minutes=5)

    def test_another_digest_is_refused(self, authority: Authority) -> None:
        token = authority.stamp(stamp_request(self.digest))
        with pytest.raises(SignatureError, match="does not verify"):
            stamped_at(token, hashlib.sha256(b"something else").digest(), read_roots(authority.roots))

    def test_another_authority_is_not_trusted(self, authority: Authority, tmp_path: Path) -> None:
        token = authority.stamp(stamp_request(self.digest))
        with pytest.raises(SignatureError, match="does not verify"):
            stamped_at(token, self.digest, read_roots(Authority(tmp_path).roots))

    def test_no_flipped_byte_moves_the_time(self, authority: Authority) -> None:
        token, roots = authority.stamp(stamp_request(self.digest)), read_roots(authority.roots)
        when = stamped_at(token, self.digest, roots)
        for place in range(len(token)):
            broken = bytearray(token)
            broken[place] ^= 1
            try:
                assert stamped_at(bytes(broken), self.digest, roots) == when
            except SignatureError:
                continue

    def test_rubbish_is_refused(self, authority: Authority) -> None:
        for token in (b"", b"\x30\x03\x02\x01\x02", bytes(2 << 20)):
            with pytest.raises(SignatureError):
                stamped_at(token, self.digest, read_roots(authority.roots))

    def test_nobody_answers(self) -> None:
        with pytest.raises(SignatureError, match="gave no time token"):
            fetch_stamp("http://127.0.0.1:9/", self.digest)
        with pytest.raises(SignatureError, match="must be an RFC 3161 authority"):
            fetch_stamp("not an address", self.digest)


def edit(value: Any, chance: random.Random) -> None:
    """Change one thing somewhere in a JSON value: a number, a letter, a name, an order, a length."""
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for name in inner if isinstance(inner, dict) else range(len(inner)):
            places.append((inner, name))
            if isinstance(inner[name], dict | list):
                walk(inner[name])

    walk(value)
    inner, name = chance.choice(places)
    old = inner[name]
    choices: list[Any] = [None, 0, "", [], {}, str(old) + "0", not old]
    if isinstance(old, int) and not isinstance(old, bool):
        choices += [old + 1, old - 1, -old, str(old)]
    if isinstance(old, str) and old:
        at = chance.randrange(len(old))
        choices += [old[:at] + chr(ord(old[at]) ^ 1) + old[at + 1 :], old[::-1], old[:-1], old + " "]
    if isinstance(old, list):
        choices += [old[::-1], old[:-1], [*old, 0]]
    if isinstance(old, dict):
        choices += [old | {"extra": 1}, dict(list(old.items())[1:])]
    inner[name] = chance.choice(choices)
