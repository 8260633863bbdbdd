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

from authority import Authority, other_nonce, serving, with_status
from wootz.errors import KeyFolderError, SignatureError
from wootz.keys import (
    public_hex,
    public_pem,
    read_public,
    read_roots,
    sign_statement,
    signing_key,
    verify_statement,
    verify_token,
)
from wootz.keys.timestamps import timestamp_request, token_digest
from wootz.workflows.timestamp import fetch_token

KIND = "urn:test:statement:1"
WHAT = {"bits": "41.5", "labels": [3, 1, 4], "marks": {"triggers": {"tranche": 0}}, "stamped": True, "note": "é"}
SUBJECT = {"model": "ab" * 32}


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


class TestStatements:
    def test_what_was_signed_is_read(self, key: Ed25519PrivateKey) -> None:
        statement = verify_statement(sign_statement(key, SUBJECT, KIND, WHAT), KIND)
        assert (statement.subject, statement.predicate, statement.signer) == (SUBJECT, WHAT, public_hex(key))

    def test_the_same_statement_is_the_same_bytes(self, key: Ed25519PrivateKey) -> None:
        backwards = dict(reversed(list(WHAT.items())))
        assert sign_statement(key, SUBJECT, KIND, WHAT) == sign_statement(key, SUBJECT, KIND, backwards)

    def test_bytes_of_an_earlier_release_still_verify(self) -> None:
        golden = Path(__file__).parent / "golden" / "statement.dsse.json"
        assert verify_statement(golden.read_bytes(), KIND).predicate == WHAT

    def test_every_flipped_byte_is_refused(self, key: Ed25519PrivateKey) -> None:
        data = sign_statement(key, SUBJECT, KIND, WHAT)
        for place in range(len(data)):
            for change in (1, 0x20, 0x80):
                broken = bytearray(data)
                broken[place] ^= change
                with pytest.raises(SignatureError):
                    verify_statement(bytes(broken), KIND)

    def test_two_hundred_edits_of_meaning_are_refused(self, key: Ed25519PrivateKey) -> None:
        envelope, chance = json.loads(sign_statement(key, SUBJECT, KIND, WHAT)), random.Random(0)
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
                verify_statement(data, KIND)

    def test_another_kind_is_refused(self, key: Ed25519PrivateKey) -> None:
        with pytest.raises(SignatureError, match="not a 'urn:other'"):
            verify_statement(sign_statement(key, SUBJECT, KIND, WHAT), "urn:other")

    def test_another_form_of_the_same_json_is_refused(self, key: Ed25519PrivateKey) -> None:
        plain = json.loads(sign_statement(key, SUBJECT, KIND, WHAT))
        for data in (
            json.dumps(plain, indent=1),
            json.dumps(plain) + "\n",
            "\ufeff" + json.dumps(plain),
            "{}",
            "",
            "[",
        ):
            with pytest.raises(SignatureError):
                verify_statement(data.encode(), KIND)

    def test_a_name_for_another_key_is_not_believed(self, key: Ed25519PrivateKey) -> None:
        plain = json.loads(sign_statement(key, SUBJECT, KIND, WHAT))
        plain["signatures"][0]["keyid"] = public_hex(Ed25519PrivateKey.generate())
        with pytest.raises(SignatureError, match="does not fit"):
            verify_statement(rfc8785.dumps(plain), KIND)

    @pytest.mark.parametrize("count", [0, 2])
    def test_one_signature_and_no_other_number(self, key: Ed25519PrivateKey, count: int) -> None:
        plain = json.loads(sign_statement(key, SUBJECT, KIND, WHAT))
        plain["signatures"] = plain["signatures"] * count
        with pytest.raises(SignatureError):
            verify_statement(rfc8785.dumps(plain), KIND)

    def test_depth_and_size_do_no_harm(self) -> None:
        for data in (b"[" * 200_000, b'{"a":' * 100_000, b" " * (17 << 20)):
            with pytest.raises(SignatureError):
                verify_statement(data, KIND)


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
        path.touch(mode=0o600)
        path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with pytest.raises(KeyFolderError, match="not an Ed25519 key"):
            signing_key(path)
        path.write_text("nonsense")
        with pytest.raises(KeyFolderError, match="cannot be opened"):
            signing_key(path)
        with pytest.raises(KeyFolderError, match="public key"):
            read_public(path)


class TestTime:
    digest = hashlib.sha256(b"what was registered").digest()

    def test_a_token_over_http_says_when(self, authority: Authority) -> None:
        with serving(authority) as url:
            token = fetch_token(url, self.digest)
        when = verify_token(token, self.digest, read_roots(authority.roots))
        assert abs(when - datetime.now(UTC)) < timedelta(minutes=5)

    def test_another_digest_is_refused(self, authority: Authority) -> None:
        token = authority.stamp(timestamp_request(self.digest))
        with pytest.raises(SignatureError, match="does not verify"):
            verify_token(token, hashlib.sha256(b"something else").digest(), read_roots(authority.roots))

    def test_another_authority_is_not_trusted(self, authority: Authority, tmp_path: Path) -> None:
        token = authority.stamp(timestamp_request(self.digest))
        with pytest.raises(SignatureError, match="does not verify"):
            verify_token(token, self.digest, read_roots(Authority(tmp_path).roots))

    def test_liar_gets_no_second_key_from_one_token(self, authority: Authority) -> None:
        """Bytes outside the signed content can change and still verify; neither time nor keys follow them."""
        token, roots = authority.stamp(timestamp_request(self.digest)), read_roots(authority.roots)
        when, content, accepted = verify_token(token, self.digest, roots), token_digest(token), 0
        for place in range(len(token)):
            broken = bytearray(token)
            broken[place] ^= 1
            try:
                assert verify_token(bytes(broken), self.digest, roots) == when
            except SignatureError:
                continue
            accepted += 1
            assert token_digest(bytes(broken)) == content
        varied = {with_status(token, f"granted {number}".encode()) for number in range(20)}
        assert len(varied) == 20
        for other in varied:  # each is another file that verifies, so hashing the whole response would give 20 keys
            assert verify_token(other, self.digest, roots) == when
            assert token_digest(other) == content

    def test_tokens_that_were_not_registered(self, authority: Authority) -> None:
        roots = read_roots(authority.roots)
        for request in (other_nonce(self.digest), other_nonce(self.digest, nonce=None)):
            with pytest.raises(SignatureError, match="nonce"):
                verify_token(authority.stamp(request), self.digest, roots)
        token = authority.stamp(timestamp_request(self.digest, policy="1.2.3.4.1"))
        assert verify_token(token, self.digest, roots, policy="1.2.3.4.1")
        with pytest.raises(SignatureError, match=r"policy is not the registered one, 1\.2\.3\.4\.5"):
            verify_token(token, self.digest, roots, policy="1.2.3.4.5")

    def test_rubbish_is_refused(self, authority: Authority) -> None:
        for token in (b"", b"\x30\x03\x02\x01\x02", bytes(2 << 20)):
            with pytest.raises(SignatureError):
                verify_token(token, self.digest, read_roots(authority.roots))

    def test_nobody_answers(self) -> None:
        with pytest.raises(SignatureError, match="gave no time token"):
            fetch_token("http://127.0.0.1:9/", self.digest)
        with pytest.raises(SignatureError, match="must be an RFC 3161 authority"):
            fetch_token("not an address", self.digest)


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
