"""Liars who try many keys, change a key without saying so, or use another's."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from authority import with_status
from commands import assert_usage_error
from court import Court
from lies import Command, Judge, Liar, bits_of, notes_of
from wootz.errors import Error
from wootz.keys import LabelKey, public_hex, read_keys, registration_digest, signing_key, write_keys
from wootz.keys.folder import OwnerKeys, derive_owner_keys
from wootz.keys.timestamps import timestamp_request
from wootz.models import ModelSpec
from wootz.statistics import null
from wootz.statistics.queries import query_labels
from wootz.statistics.tails import binomial_tail, bits
from wootz.suspects.files import predictor
from wootz.workflows.certificate import verify_statement
from wootz.workflows.register import FILE, TOKEN

BAR = 7.0
"""What the weakened copies ask for, so that it is reached here and now; the real bars are 40 and 80."""


@pytest.fixture
def drawn(liar: Liar) -> OwnerKeys:
    return liar.draw()


def labels(owner_keys: OwnerKeys) -> Tensor:
    key = owner_keys.by_mark["triggers"]
    assert isinstance(key, LabelKey)
    return key.labels


def luck(owner_keys: OwnerKeys, said: Tensor) -> float:
    """Bits of the test by labels: hits among the answers that are not the base class."""
    key = owner_keys.by_mark["triggers"]
    assert isinstance(key, LabelKey)
    return bits(binomial_tail(int((said == key.labels).sum()), int((said != key.base).sum()), 1 / 9))


def test_liar_grinds_a_million_keys(
    liar: Liar, drawn: OwnerKeys, plain: nn.Module, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token keys are free: a thousand give some 10 bits, a million some 20. So 80 are asked for then."""
    said = query_labels(predictor(plain), liar.fitted[0])
    key = drawn.by_mark["triggers"]
    assert isinstance(key, LabelKey)
    million = bits(float(null.label_null(key, said, 2**20, np.random.default_rng(3)).min()))
    assert 12 < million < 40
    materials, best = liar.materials, None
    for number in range(1500):
        owner_keys = liar.draw(materials, number.to_bytes(32, "big"), stamped=False)
        best = owner_keys if best is None or luck(owner_keys, said) > luck(best, said) else best
        if luck(best, said) >= BAR:
            break
    assert best is not None
    claim = liar.claim(best)
    honest = judge(claim, liar.accused)
    assert (honest.code, honest.json["bar"]) == (1, 80)
    with monkeypatch.context() as weak:
        weak.setattr("wootz.workflows.judge.required_bits", lambda *, timestamped: BAR)
        assert judge(claim, liar.accused).code == 0


def test_liar_draws_many_keys_from_one_token(
    liar: Liar, drawn: OwnerKeys, plain: nn.Module, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing signs PKIStatusInfo.statusString. A key that followed the whole response would be ground for free."""
    said = query_labels(predictor(plain), liar.fitted[0])

    def variant(number: int) -> OwnerKeys:
        token = with_status(drawn.token, b"%d" % number)
        return derive_owner_keys(drawn.registration, token, drawn.materials, drawn.openings)

    assert all(torch.equal(labels(variant(number)), labels(drawn)) for number in range(20))
    assert variant(1).token != drawn.token
    honest = judge(liar.claim(variant(1), name="one"), liar.accused)
    assert (honest.code, honest.json["bar"]) == (1, 40)
    with monkeypatch.context() as weak:
        for place in ("registration", "folder"):  # protocol 4
            weak.setattr(f"wootz.keys.{place}.token_digest", lambda token: hashlib.sha256(token).digest())
        best = max(map(variant, range(1200)), key=lambda owner_keys: luck(owner_keys, said))
        assert luck(best, said) > max(BAR, bits_of(honest))
        weak.setattr("wootz.workflows.judge.required_bits", lambda *, timestamped: BAR)
        assert judge(liar.claim(best, name="many"), liar.accused).code == 0


class TestFolder:
    """A key that silently became another one: its owner looks again until one fits."""

    @pytest.fixture
    def run(self, as_owner: Court, tmp_path: Path) -> Path:
        return Path(shutil.copytree(as_owner.owner, tmp_path / "run"))

    @pytest.mark.parametrize("how", ["taken anew", "damaged", "removed", "another run's", "stray"])
    def test_liar_swaps_the_time_token_of_a_key(
        self, run: Path, as_owner: Court, how: str, wootz: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token, suspect = run / "registration.tsr", as_owner.thief
        data = token.read_bytes()
        owner_keys = read_keys(run)
        if how == "taken anew":
            request = timestamp_request(registration_digest(owner_keys.registration))
            token.write_bytes(as_owner.authority.stamp(request))
        elif how == "damaged":
            token.write_bytes(data[:-200] + bytes([data[-200] ^ 1]) + data[-199:-50])
        elif how == "removed":
            token.unlink()
        elif how == "another run's":
            shutil.copy(as_owner.thief / "registration.tsr", token)
        else:
            self.unstamped(run, owner_keys)
            token.write_bytes(data)
        for words in (("verify", run, suspect), ("claim", run, suspect, "--out", tmp_path / "c.json")):
            assert_usage_error(wootz(*words), "damaged" if how == "damaged" else "time token")
        assert not (run / "key/burnt.jsonl").exists()
        if how == "taken anew":
            with monkeypatch.context() as weak:
                weak.setattr("wootz.keys.folder._read_token", lambda path, _: path.read_bytes())
                said = wootz("verify", run, suspect, "--json")
                assert said.code in (0, 1)  # taken: other labels, and nobody is told
                assert not torch.equal(labels(read_keys(run)), labels(owner_keys))

    @staticmethod
    def unstamped(run: Path, owner_keys: OwnerKeys) -> None:
        """Write the same materials as a key that was drawn without a token."""
        bare = {name: value for name, value in owner_keys.registration.items() if name != "timestamp"}
        write_keys(run, replace(owner_keys, registration=bare, token=b""))

    def test_liar_changes_any_file_of_a_key(self, run: Path, as_owner: Court) -> None:
        """A changed, shortened or emptied file is refused or changes nothing of any key."""
        owner_keys, stream = read_keys(run), np.random.default_rng(0)
        files = [run / "registration.json", run / "registration.tsr", *sorted((run / "key").iterdir())]
        assert len(files) == 5
        for file in files:
            data = file.read_bytes()
            # A byte between the signed content and the end of a token is in no key.
            for at in stream.integers(0, len(data), 12).tolist():
                for changed in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at], b""):
                    file.write_bytes(changed)
                    try:
                        again = read_keys(run)
                    except Error:
                        continue
                    assert torch.equal(labels(again), labels(owner_keys))
                    assert again.openings == owner_keys.openings
            file.write_bytes(data)


def test_liar_registers_another_model_under_the_same_key(
    as_owner: Court,
    small_spec: ModelSpec,
    wootz: Command,
    judge: Judge,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`register` refuses; with the files deleted it does not, and the first statement shows it to a judge."""
    run = Path(shutil.copytree(as_owner.owner, tmp_path / "run"))
    shutil.copy(as_owner.stranger / "model.safetensors", run)
    assert_usage_error(wootz("register", run), "not the model that was registered")
    shutil.copy(run / FILE, tmp_path / "first.dsse.json")
    (run / FILE).unlink()
    assert_usage_error(wootz("claim", run, as_owner.thief, "--out", tmp_path / "c.json"), "not registered yet")
    (run / TOKEN).unlink()
    assert wootz("register", run).code == 0
    assert wootz("claim", run, as_owner.thief, "--out", tmp_path / "c.json").code == 0
    earlier = ("--previous-claim", tmp_path / "first.dsse.json")
    said = judge(tmp_path / "c.json", as_owner.thief, *earlier)
    assert (said.code, "another model with the same key" in notes_of(said)) == (4, True)
    with monkeypatch.context() as weak:
        weak.setattr("wootz.workflows.judge.check_earlier", lambda *_: ())
        assert judge(tmp_path / "c.json", as_owner.thief, *earlier).code == 0


def test_liar_signs_a_claim_with_the_registration_of_another(
    as_owner: Court, wootz: Command, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run folder, found or stolen, is of use to the holder of the registered signing key alone."""
    monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(tmp_path / "liar.pem"))
    owner = public_hex(signing_key())
    assert_usage_error(wootz("register", as_owner.owner), "another signing key")
    assert wootz("claim", as_owner.owner, as_owner.thief, "--out", tmp_path / "c.json").code == 0
    said = judge(tmp_path / "c.json", as_owner.thief)
    assert (said.code, "not signed by the registered owner" in notes_of(said)) == (4, True)
    registered = read_keys(as_owner.owner).registration["owner"]
    assert owner != registered
    with monkeypatch.context() as weak:
        weak.setattr(
            "wootz.workflows.certificate.verify_statement",
            lambda *words: verify_statement(*words)._replace(signer=registered),
        )
        assert judge(tmp_path / "c.json", as_owner.thief).code == 0


def test_random_keys_do_too_well_on_no_honest_suspect() -> None:
    """The judge's check of her own test: it holds, and it can fail."""
    stream = np.random.default_rng(0)
    assert not null.too_many(np.log(stream.uniform(size=1000)))
    assert null.too_many(np.log(stream.uniform(size=1000) ** 3))
