"""Liars in files: what is handed over, what lies beside it, and what it says of itself."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import rfc8785
import torch
from securesystemslib.dsse import Envelope
from securesystemslib.signer._signature import Signature
from torch import Tensor

from commands import assert_usage_error
from court import Court, label_material
from lies import Command, Judge, Liar, bits_of, notes_of, resigned
from wootz.cli.crash import CRASHED
from wootz.data import Dataset
from wootz.errors import SignatureError
from wootz.keys import documents as doc
from wootz.keys import public_hex, registration_digest, signing_key, verify_statement
from wootz.keys.prf import stream
from wootz.keys.registration import CommitmentOpening, commit
from wootz.keys.timestamps import timestamp_request
from wootz.models import ModelSpec, build, read_model
from wootz.serving import ModelInfo, app, running
from wootz.store import canonical, read_tensors
from wootz.suspects.files import predictor
from wootz.workflows import certificate as certificate_module
from wootz.workflows.claim import CLAIM
from wootz.workflows.register import REGISTERED

Honest = Callable[[str], Path]
STRANGE: tuple[Any, ...] = (None, True, -1, 0, 1 << 40, "", "1e999", [], {"x": 1})


def facts(digits: Dataset) -> ModelInfo:
    return ModelInfo(name="s", shape=digits.shape, classes=digits.classes, data="mnist-5k", eps=0.1)


def test_liar_plants_a_transcript_beside_his_certificate(
    as_owner: Court, digits: Dataset, wootz: Command, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He answers for the suspect himself; a judge reads no transcript of his, wherever he puts it."""
    (tmp_path / "claim").mkdir()
    claim, mine = tmp_path / "claim/c.json", tmp_path / "judge"
    stranger, owner = (predictor(read_model(place)[0]) for place in (as_owner.stranger, as_owner.owner))
    answers = {"now": owner}
    with running(app(lambda x: answers["now"](x), facts(digits))) as url:
        where = f"{url}/v2/models/s"
        assert wootz("claim", "--yes", as_owner.owner, where, "--out", claim).code == 0
        (planted,) = claim.parent.glob("transcript-*.jsonl")  # the marked model's answers, under the stranger's address
        answers["now"] = stranger
        name = "-".join(planted.name.split("-")[:3]) + ".jsonl"
        shutil.copy(planted, claim.parent / name)
        shutil.copytree(claim.parent, mine)
        monkeypatch.setattr("wootz.workflows.judge.private_folder", lambda _: tmp_path / "fresh")
        with monkeypatch.context() as hers:
            hers.setenv("WOOTZ_OWNER_KEY", str(tmp_path / "judge.key"))
            assert judge(claim, where).code == 1
            hers.setattr("wootz.workflows.judge.private_folder", lambda _: mine)
            assert_usage_error(judge(claim, where), "was not written with this owner's secret")
        with monkeypatch.context() as weak:  # a judge who continues his transcript as if it were hers
            weak.setattr("wootz.workflows.judge.private_folder", lambda _: claim.parent)
            assert judge(claim, where).code == 0


class TestMaterial:
    def test_liar_adds_swaps_or_changes_tensors(
        self, honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claim = honest("theft")
        whole, signed = claim.with_suffix(".safetensors").read_bytes(), claim.read_bytes()
        before = bits_of(judge(claim, as_owner.thief))

        def swapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            one, other = tensors["triggers/pixels"], tensors["triggers/base_pixels"]
            return tensors | {"triggers/pixels": other, "triggers/base_pixels": one}

        edits: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
            "another tensor of a mark": lambda t: t | {"triggers/labels": t["triggers/base"].clone()},
            "swapped": swapped,
            "components": lambda t: t | {"runner-up/components": t["runner-up/components"] * 1.5},
            "probe labels": lambda t: t | {"runner-up/probe_labels": (t["runner-up/probe_labels"] + 1) % 10},
            "without": lambda t: {name: tensor for name, tensor in t.items() if name != "triggers/base"},
            "no marks": lambda t: {name: tensor for name, tensor in t.items() if name.startswith("panel/")},
            "scalar": lambda t: t | {"triggers/base": torch.tensor(3)},
            "half precision": lambda t: t | {"triggers/base": t["triggers/base"].bfloat16()},
            "another tensor of a panel": lambda t: t | {"panel/robust/9.weight": torch.zeros(3)},
        }
        for name, edit in edits.items():
            resigned(claim, tensors=edit)
            assert judge(claim, as_owner.thief).code == 4, name
            claim.with_suffix(".safetensors").write_bytes(whole)
            assert judge(claim, as_owner.thief).code == 4, name  # not the material that was signed
            claim.write_bytes(signed)
        resigned(claim, tensors=lambda t: t | {"nobody/asked": torch.zeros(3)})
        assert bits_of(judge(claim, as_owner.thief)) == before  # of no mark: nothing reads it
        claim.write_bytes(signed)
        with monkeypatch.context() as weak:
            resigned(claim, tensors=edits["components"])
            weak.setattr("wootz.keys.reveal.tensor_digest", lambda _: ANY)
            assert judge(claim, as_owner.thief).code == 0  # other evidence than the registered one, taken
            assert bits_of(judge(claim, as_owner.thief)) != before

    @pytest.mark.parametrize("how", ["marked", "untrained", "members swapped", "a filter around it"])
    def test_liar_replaces_the_panel(
        self,
        honest: Honest,
        as_owner: Court,
        judge: Judge,
        how: str,
        small_spec: ModelSpec,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The panel vetoes, and what it foresees is taken away; so it is registered before the key."""
        claim = honest("theft")
        before = bits_of(judge(claim, as_owner.thief))
        model = read_model(as_owner.owner)[0] if how == "marked" else build(small_spec, 5)
        weights = {f"panel/plain/{name}": tensor for name, tensor in model.state_dict().items()}

        def tensors(held: dict[str, Tensor]) -> dict[str, Tensor]:
            if how == "members swapped":

                def name(key: str) -> str:
                    other = {"panel/robust": "panel/plain", "panel/plain": "panel/robust"}
                    return next((key.replace(a, b) for a, b in other.items() if key.startswith(a)), key)

                return {name(key): tensor for key, tensor in held.items()}
            if how == "a filter around it":  # it has no weights of its own, so the digest of the weights stays
                return {key.replace("panel/plain/", "panel/plain/inner."): tensor for key, tensor in held.items()}
            return held | weights

        def change(predicate: dict[str, Any]) -> None:
            if how == "a filter around it":
                plain = json.loads(predicate["panel"][1]["model"])
                plain["filters"] = [{"name": "output-noise", "sigma": 50.0}]
                predicate["panel"][1]["model"] = json.dumps(plain)

        resigned(claim, change, tensors=tensors)
        said = judge(claim, as_owner.thief)
        assert (said.code, "its panel" in notes_of(said)) == (4, True), notes_of(said)
        with monkeypatch.context() as weak:
            weak.setattr(certificate_module, "weights_digest", lambda _: ANY)
            weak.setattr(certificate_module, "NETWORK_FIELDS", ANY)
            said = judge(claim, as_owner.thief)
            if how == "marked":  # what he took for the suspect's own opinion is foreseen now
                assert said.code in (1, 4)
            else:
                assert said.code == 0
                assert (bits_of(said) == before) == (how == "members swapped")  # which of them guides walks, it changes


class TestStrict:
    """Files that could be read in two ways, or make their reader work without end."""

    @pytest.mark.parametrize(
        ("change", "first", "field"),
        [
            (lambda p: p["opened"]["triggers"].update(tranche=True), None, "opened.triggers.tranche"),
            (lambda p: p["opened"]["triggers"].update(tranche="0"), None, "opened.triggers.tranche"),
            (lambda p: p["opened"]["triggers"].update(more=1), None, "opened.triggers.more"),
            (lambda p: p["test"].update(bar=1), None, "test.bar"),
            (lambda p: p["test"].update(calibrate=-1), None, "test.calibrate"),
            (lambda p: p["test"].update(access="logits"), None, "test.access"),
            (lambda p: p.update(panel=[]), None, "panel"),
            (lambda p: p.update(written=None), None, "written"),
            (lambda p: p.pop("material"), None, "material"),
            (None, lambda m: m["registration"].update(more=1), "more"),
            (None, lambda m: m["registration"].update(protocol="wootz-registration/4"), "another protocol"),
            (None, lambda m: m["registration"]["options"].update(budgets=[]), "options.budgets"),
            (None, lambda m: m["registration"]["options"].update(budgets=[True]), "options.budgets.0"),
            (None, lambda m: m["registration"]["marks"]["triggers"].update(kind="label"), "marks.triggers.kind"),
            (None, lambda m: m["registration"]["marks"]["triggers"]["tranches"].clear(), "marks.triggers.tranches"),
            (None, lambda m: m["registration"]["marks"].clear(), "marks"),
            (None, lambda m: m["registration"].update(shape=[1, 28]), "shape"),
            (None, lambda m: m["registration"].update(shape=[1, 28, 1 << 20]), "shape.2"),
            (None, lambda m: m["registration"]["walk"].update(queries=10**9), "walk.queries"),
            (None, lambda m: m.update(evidence={"triggers": 9000}), "evidence.triggers"),
        ],
    )
    def test_liar_writes_fields_that_no_schema_has(
        self,
        honest: Honest,
        as_owner: Court,
        judge: Judge,
        change: Any,
        first: Any,
        field: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        claim = honest("theft")
        resigned(claim, change or (lambda _: None), first=first)
        said = judge(claim, as_owner.thief)
        assert (said.code, field in notes_of(said)) == (4, True), notes_of(said)
        with monkeypatch.context() as weak:  # a reader who takes what fits and leaves the rest
            if field in ("opened.triggers.tranche", "opened.triggers.more", "test.bar", "written"):
                _lenient(weak)
                assert judge(claim, as_owner.thief).code == 0

    def test_liar_changes_any_value_and_signs_again(self, honest: Honest, as_owner: Court) -> None:
        """Every value of a claim and of the registration in it, replaced by strange ones: refused, or nothing gained.

        A reader that stops with another error than its own would leave the judge without a word.
        """
        claim = honest("theft")
        data, material, roots = claim.read_bytes(), claim.with_suffix(".safetensors"), as_owner.authority.roots
        told = verify_statement(data, CLAIM).predicate
        honestly = certificate_module.verify_certificate(data, material, authorities=roots)
        refusals = 0
        for path in _paths(told, skip=("registered", "found", "environment", "model")):
            for value in STRANGE:
                resigned(claim, lambda p, path=path, value=value: _set(p, path, value))  # type: ignore[misc]
                refusals += self.refuses(claim, honestly, roots)
                claim.write_bytes(data)
        inner = verify_statement(canonical(told["registered"]), REGISTERED).predicate
        for path in _paths(inner, skip=("token",)):
            for value in STRANGE:
                resigned(claim, first=lambda m, path=path, value=value: _set(m, path, value))  # type: ignore[misc]
                refusals += self.refuses(claim, honestly, roots)
                claim.write_bytes(data)
        assert refusals > 300

    @staticmethod
    def refuses(claim: Path, honestly: certificate_module.VerifiedClaim, roots: Path) -> bool:
        try:
            found = certificate_module.verify_certificate(
                claim.read_bytes(), claim.with_suffix(".safetensors"), authorities=roots
            )
        except SignatureError:
            return True
        assert found.keys.keys() == honestly.keys.keys()
        assert found.since == honestly.since
        assert found.query().num_tests >= honestly.query().num_tests
        return False

    @pytest.mark.parametrize("count", [0, 1, 65_537, 100_000])
    def test_liar_registers_one_class_or_a_hundred_thousand(
        self,
        honest: Honest,
        as_owner: Court,
        liar: Liar,
        judge: Judge,
        count: int,
        digits: Dataset,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        names = tuple(map(str, range(count)))
        with pytest.raises(ValueError, match="a registration holds 2 to 65,536"):
            replace(liar, digits=replace(digits, classes=names)).draw()
        monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(as_owner.keys / "owner.pem"))
        claim = honest("theft")

        def change(model: dict[str, Any]) -> None:
            model["registration"]["classes"] = list(names)
            _stamped_anew(model, as_owner)

        resigned(claim, first=change)
        said = judge(claim, as_owner.thief)
        assert (said.code, "classes" in notes_of(said)) == (4, True)
        asked: list[int] = []

        def draw(secret: bytes, purpose: bytes, size: int, high: int) -> Tensor:
            asked.append(high)
            return torch.zeros(size, dtype=torch.long)

        with monkeypatch.context() as weak:
            weak.setattr("wootz.keys.reveal.read_registration", lambda _: None)
            weak.setattr(certificate_module, "read_registration", lambda _: None)
            weak.setattr("wootz.keys.keys.integers", draw)
            said = judge(claim, as_owner.thief)
            assert (said.code, asked) == (4, []) or count > 2  # fewer than three classes leave no label to draw
            if count > 2:
                weak.setattr("wootz.keys.reveal.check_material", lambda *_, **__: None)
                judge(claim, as_owner.thief)
                assert asked[:1] == [count - 1]  # labels from this many classes

    def test_liar_asks_for_endless_random_numbers(
        self, honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A registered message of a billion bits: its directions would be drawn before anybody looked at a suspect."""
        claim, sealed = honest("theft"), CommitmentOpening(b"\1" * 32, b"\2" * 32)
        facts = {"weight": "0.weight", "shape": [1, 1, 1, 1], "bits": 10**9, "tranches": 1}

        def change(model: dict[str, Any]) -> None:
            entry = {"kind": "weights", "facts": facts, "tranches": [{"commitment": commit(sealed)}], "tensors": {}}
            model["registration"]["marks"]["uchida"] = entry
            _stamped_anew(model, as_owner)

        opening = {"tranche": 0, "secret": sealed.secret.hex(), "salt": sealed.salt.hex()}
        resigned(claim, lambda p: p["opened"].update(uchida=opening), first=change)
        said = judge(claim, as_owner.thief)
        assert (said.code, "a message of 1000000000 bits" in notes_of(said)) == (4, True), notes_of(said)

        def hungry(secret: bytes, purpose: bytes, length: int) -> bytes:
            if length > 1 << 30:
                raise MemoryError
            return stream(secret, purpose, length)

        with monkeypatch.context() as weak:
            weak.setattr("wootz.keys.reveal.check_material", lambda *_, **__: None)
            weak.setattr("wootz.keys.prf.stream", hungry)
            said = judge(claim, as_owner.thief)
            assert (said.code, "MemoryError" in said.err) == (CRASHED, True)

    def test_liar_hides_a_line_in_a_name(self, honest: Honest, as_owner: Court, wootz: Command) -> None:
        """Names that a terminal would show as a verdict, and markup that would stop the one who prints it."""
        for name in ("x\nverdict KEY-DEPENDENT", "[/bold]", "a/b", "", "\x1b[2J", "x" * 65):
            claim = honest("theft")

            def change(model: dict[str, Any], name: str = name) -> None:
                marks = model["registration"]["marks"]
                marks[name] = marks.pop("triggers")

            resigned(claim, lambda p, name=name: p["opened"].update({name: p["opened"].pop("triggers")}), first=change)  # type: ignore[misc]
            said = wootz("judge", claim, as_owner.thief, "--authorities", as_owner.authority.roots)
            assert said.code == 4
            shutil.rmtree(claim.parent)

    def test_liar_signs_a_statement_that_can_be_read_twice(
        self, honest: Honest, as_owner: Court, judge: Judge, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same name twice, in JSON or among subjects, and fields beside those of a statement."""
        claim = honest("theft")
        data = claim.read_bytes()
        plain = json.loads(data)
        payload = json.loads(base64.b64decode(plain["payload"]))
        twice = data.replace(b'{"payload":', b'{"payload":"e30=","payload":', 1)
        assert json.loads(twice) == plain
        claim.write_bytes(twice)
        assert judge(claim, as_owner.thief).code == 4

        def signed(statement: Mapping[str, Any]) -> bytes:
            envelope, key = Envelope(rfc8785.dumps(statement), plain["payloadType"], {}), signing_key()
            envelope.signatures[public_hex(key)] = Signature(public_hex(key), key.sign(envelope.pae()).hex())
            return rfc8785.dumps(envelope.to_dict())

        claim.write_bytes(signed(payload))
        assert judge(claim, as_owner.thief).code == 0
        (subject,) = payload["subject"]
        for edit in (
            {"subject": [subject | {"digest": {"sha256": "0" * 64}}, subject]},
            {"more": 1},
            {"subject": []},
        ):
            claim.write_bytes(signed(payload | edit))
            assert judge(claim, as_owner.thief).code == 4, edit


def _lenient(weak: pytest.MonkeyPatch) -> None:
    """Weaken: types are converted, and unknown fields are left aside."""

    def clean(document: Any, value: Any) -> Any:
        value = json.loads(json.dumps(value))
        if document is doc.Claim:
            for entry in value["opened"].values():
                entry.pop("more", None)
                entry["tranche"] = 0
            value["test"].pop("bar", None)
            value["written"] = str(value["written"])
        return read(document, value)

    read = certificate_module.read_document
    weak.setattr(certificate_module, "read_document", clean)


def _stamped_anew(model: dict[str, Any], court: Court) -> None:
    digest = registration_digest(model["registration"])
    model["token"] = base64.b64encode(court.authority.stamp(timestamp_request(digest))).decode()


def _paths(value: Any, *, skip: tuple[str, ...], before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the way to every value in a document; of long lists, to the first two members."""
    members = value.items() if isinstance(value, Mapping) else enumerate(value[:2]) if isinstance(value, list) else ()
    for name, inner in members:
        if name not in skip:
            yield (*before, name)
            yield from _paths(inner, skip=skip, before=(*before, name))


def _set(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for name in path[:-1]:
        value = value[name]
    value[path[-1]] = new


class TestSuspects:
    """What a suspect says of itself, or does not say."""

    @pytest.mark.parametrize("how", ["constant", "silent"])
    def test_liar_accuses_a_suspect_that_says_nothing(
        self,
        how: str,
        liar: Liar,
        digits: Dataset,
        judge: Judge,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The same answer to everything, or none."""

        def answer(x: Tensor) -> Tensor:
            if how == "constant":
                return 10 * torch.eye(10)[3].expand(len(x), 10)
            return torch.full((len(x), 10), torch.nan)

        few = label_material(*(part[:40] for part in liar.fitted[:3]))
        owner_keys = liar.draw({"triggers": few}, options=None)
        with running(app(answer if how == "constant" else _moody(answer), facts(digits))) as url:
            where = f"{url}/v2/models/s"
            claim = liar.claim(owner_keys, suspect=where, codes=(1, 3))
            assert judge(claim, where).code in (1, 3)
            if how == "constant":
                with monkeypatch.context() as weak:  # the owner chooses the labels
                    weak.setattr("wootz.keys.keys._draw_labels", lambda _, base, *rest: torch.full_like(base, 3))
                    assert judge(claim, where).code == 0

    def test_accused_liar_writes_markup_into_his_description(
        self, honest: Honest, as_owner: Court, wootz: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a suspect's `model.json` says is printed as it stands: it stops nobody and adds no line."""
        claim, suspect = honest("theft"), tmp_path / "suspect"
        shutil.copytree(as_owner.thief, suspect)
        told = json.loads((suspect / "model.json").read_text())
        for data in ("[/bold]", "x\nverdict  NOT SHOWN", "\x1b[2J"):
            (suspect / "model.json").write_text(json.dumps(told | {"data": data, "theft": data}))
            said = wootz("judge", claim, suspect, "--authorities", as_owner.authority.roots)
            assert said.code == 0, said.out + said.err
            assert "\x1b[2J" not in said.out
            assert not any(line.startswith("verdict  NOT SHOWN") for line in said.out.splitlines())
        (suspect / "model.json").write_text(json.dumps(told | {"data": "[/bold]"}))
        with monkeypatch.context() as weak:
            weak.setattr("wootz.cli.show.escape", str)
            said = wootz("judge", claim, suspect, "--authorities", as_owner.authority.roots)
            assert (said.code, "MarkupError" in said.err) == (CRASHED, True)


def _moody(answer: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Answer the server's own first question, and nothing afterwards."""
    asked: list[int] = []

    def predict(x: Tensor) -> Tensor:
        asked.append(len(x))
        return torch.zeros(len(x), 10) if len(asked) == 1 else answer(x)

    return predict


def test_every_material_of_a_claim_is_read(honest: Honest) -> None:
    """What the tests above change is all that there is."""
    names = {name.split("/")[0] for name in read_tensors(honest("theft").with_suffix(".safetensors"))}
    assert names == {"triggers", "runner-up", "panel"}
