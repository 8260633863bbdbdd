"""Liars who would like a registration to be older than it is, or to have had more tries than one token gives."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authority import Authority, other_nonce
from court import Court
from lies import Judge, Liar, notes_of, resigned, token_of
from wootz.errors import SignatureError
from wootz.keys import read_keys, registration_digest
from wootz.keys import timestamps as stamps
from wootz.keys.registration import key_context
from wootz.keys.timestamps import timestamp_request
from wootz.workflows import certificate as certificate_module

Honest = Callable[[str], Path]


def same_keys(weak: pytest.MonkeyPatch, court: Court) -> None:
    """Weaken: whatever the token, keys are those of the true one, as they were before keys followed tokens."""
    known = stamps.token_digest(read_keys(court.owner).token)
    weak.setattr("wootz.keys.registration.token_digest", lambda _: known)


def unsigned(token: bytes, *_: Any, **__: Any) -> Any:
    """Weaken: a token's time is taken without a look at its signature."""
    return stamps._decoded(token).tst_info.gen_time


def test_liar_takes_the_token_of_another_registration(
    honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = honest("theft")
    token = as_owner.authority.stamp(timestamp_request(b"\7" * 32))
    resigned(claim, first=lambda model: token_of(model, token))
    said = judge(claim, as_owner.thief)
    assert (said.code, "it is about something else" in notes_of(said)) == (4, True)
    with monkeypatch.context() as weak:
        same_keys(weak, as_owner)
        weak.setattr("wootz.keys.registration.check_token", lambda *_, **__: None)
        weak.setattr(certificate_module, "verify_token", unsigned)
        said = judge(claim, as_owner.thief)
        assert (said.code, said.json["bar"]) == (0, 40)


def test_liar_keeps_a_clock_of_his_own(
    liar: Liar, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many tokens as he likes, of any time: a judge looks for the authorities that she trusts."""
    (tmp_path / "clock").mkdir()
    own = Authority(tmp_path / "clock")
    claim = liar.claim(liar.draw(stamp=lambda digest: own.stamp(timestamp_request(digest))), codes=[1])
    said = judge(claim, liar.accused)
    assert (said.code, "does not verify" in notes_of(said)) == (4, True)
    with monkeypatch.context() as weak:
        weak.setattr(certificate_module, "verify_token", unsigned)
        said = judge(claim, liar.accused)
        assert (said.code, said.json["bar"]) == (1, 40)  # accepted, at the bar of those whose tries cost a request


def test_liar_leaves_the_token_out(
    honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, untouched = honest("theft"), honest("own")
    assert judge(untouched, as_owner.thief).code == 0
    resigned(claim, first=lambda model: token_of(model, b""))
    said = judge(claim, as_owner.thief)
    assert (said.code, "is missing" in notes_of(said)) == (4, True)
    context = read_context(as_owner)
    with monkeypatch.context() as weak:
        weak.setattr("wootz.keys.reveal.key_context", lambda *_: context)
        weak.setattr(certificate_module, "_since", lambda *_: (None, ()))
        said = judge(claim, as_owner.thief)
        assert (said.code, said.json["bar"]) == (0, 80)  # believed, and nobody can say since when


def read_context(court: Court) -> bytes:
    owner_keys = read_keys(court.owner)
    return key_context(owner_keys.registration, owner_keys.token)


def test_liar_takes_the_token_anew(
    honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another token over the same registration, from the same authority, draws other keys."""
    claim = honest("theft")

    def again(model: dict[str, Any]) -> None:
        token_of(model, as_owner.authority.stamp(timestamp_request(registration_digest(model["registration"]))))

    resigned(claim, first=again)
    said = judge(claim, as_owner.thief)
    assert said.code == 1
    assert all(float(item["bits"]) < 20 for item in said.json["evidence"])  # type: ignore[attr-defined]
    with monkeypatch.context() as weak:
        same_keys(weak, as_owner)
        assert judge(claim, as_owner.thief).code == 0


@pytest.mark.parametrize("nonce", [12345, None])
def test_liar_asks_for_tokens_with_other_nonces(
    honest: Honest, as_owner: Court, judge: Judge, nonce: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = honest("theft")

    def again(model: dict[str, Any]) -> None:
        token_of(model, as_owner.authority.stamp(other_nonce(registration_digest(model["registration"]), nonce)))

    resigned(claim, first=again)
    said = judge(claim, as_owner.thief)
    assert (said.code, "its nonce is not the registered one" in notes_of(said)) == (4, True)
    with monkeypatch.context() as weak:
        same_keys(weak, as_owner)
        weak.setattr(stamps, "_check_content", lambda *_: None)
        assert judge(claim, as_owner.thief).code == 0


def test_liar_takes_a_token_of_another_policy(liar: Liar, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy is registered; a token that the same authority gave under another one is none."""

    def default(digest: bytes) -> bytes:
        return liar.court.authority.stamp(timestamp_request(digest))

    with pytest.raises(SignatureError, match=r"its policy is not the registered one, 1\.2\.3\.4\.9"):
        liar.draw(stamp=default, policy="1.2.3.4.9")
    check = stamps._check_content
    with monkeypatch.context() as weak:
        weak.setattr(stamps, "_check_content", lambda decoded, digest, _: check(decoded, digest, ""))
        claim = liar.claim(liar.draw(stamp=default, policy="1.2.3.4.9"), codes=[1])
        assert (said := judge(claim, liar.accused)).code == 1, notes_of(said)  # accepted
        assert said.json["bar"] == 40
    said = judge(claim, liar.accused)
    assert (said.code, "its policy is not the registered one" in notes_of(said)) == (4, True)


def test_liar_registers_without_a_token_and_shows_one_or_the_other_way_around(
    liar: Liar, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that were drawn without a token were free; a token that is added afterwards does not lower the bar."""
    owner_keys = liar.draw(stamped=False, options=None)
    claim, accused = liar.claim(owner_keys, codes=[1]), liar.accused
    said = judge(claim, accused)
    assert (said.code, said.json["bar"]) == (1, 80)
    added = liar.court.authority.stamp(timestamp_request(registration_digest(owner_keys.registration)))
    whole = claim.read_bytes()
    resigned(claim, first=lambda model: token_of(model, added))
    said = judge(claim, accused)
    assert (said.code, "that the registration does not name" in notes_of(said)) == (4, True)
    with monkeypatch.context() as weak:  # the key does not follow the token, whose time counts all the same
        weak.setattr("wootz.keys.reveal.key_context", lambda registration, _: key_context(registration))
        weak.setattr(
            certificate_module,
            "_since",
            lambda token, registration, roots: (
                stamps.verify_token(token, registration_digest(registration), roots),
                (),
            ),
        )
        said = judge(claim, accused)
        assert (said.code, said.json["bar"]) == (1, 40)
    claim.write_bytes(whole)

    def renamed(model: dict[str, Any]) -> None:
        model["registration"]["timestamp"] = {"policy": ""}

    resigned(claim, first=renamed)
    assert judge(claim, accused).code == 4


def test_liar_shows_the_model_token_of_another_statement(
    honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of the registered model is that of a token over the whole signed statement."""
    claim = honest("theft")
    token = as_owner.authority.stamp(timestamp_request(b"an older statement"))
    resigned(claim, lambda p: p.update(registered_token=base64.b64encode(token).decode()))
    said = judge(claim, as_owner.thief)
    assert (said.code, "it is about something else" in notes_of(said)) == (4, True)
    with monkeypatch.context() as weak:
        weak.setattr(stamps, "_check_content", lambda *_: None)
        weak.setattr(certificate_module, "verify_token", unsigned)
        said = judge(claim, as_owner.thief)
        assert (said.code, "the registered model is no later than" in notes_of(said)) == (0, True)
