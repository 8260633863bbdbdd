"""The command line as a person uses it: every command, every exit code, every mistake in one plain line."""

from __future__ import annotations

import base64
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from commands import FAST, assert_usage_error
from wootz import store

SOFT = ["--set", "epochs=60", "--set", "lr=5e-3", "--set", "data=owner"]


class TestMainJob:
    def test_protect_leaves_a_whole_run_folder(self, shelf: Path) -> None:
        for name in (
            "model.safetensors",
            "model.json",
            "registration.json",
            "config.toml",
            "metrics.jsonl",
            "key/key.json",
        ):
            assert (shelf / "own" / name).is_file(), name
        assert (shelf / "own/key").stat().st_mode & 0o777 == 0o700
        assert not (shelf / "stranger/key").exists()
        record = json.loads((shelf / "own/record.json").read_text())
        assert record["kind"] == "protected"
        assert 0 < record["robust"]["accuracy"] <= record["clean"] <= 1
        assert (record["verdict"], "notes" in record) == ("KEY-DEPENDENT", False)
        assert record["bits"] > record["bar"] == 40

    def test_marks_that_were_not_learned_are_reported(self, wootz, tmp_path: Path) -> None:
        short = ["--set", "recipe.epochs=1", "--set", "panel.robust_epochs=1", "--set", "panel.plain_epochs=1"]
        words = ["--data", "mnist-5k", "--marks", "triggers", "-n", "50", *FAST, *short]
        protected = wootz("protect", "--out", tmp_path / "r", *words, "--json")
        assert (protected.code, protected.json["verdict"]) == (0, "NOT SHOWN")
        assert json.loads((tmp_path / "r/record.json").read_text())["bits"] < 40
        (note,) = protected.json["notes"]  # type: ignore[attr-defined]
        assert "below the 40 that a verdict needs" in note
        assert "--set recipe.epochs=2" in note

    def test_verify_own_model(self, wootz, shelf: Path) -> None:
        said = wootz("verify", shelf / "own", shelf / "own", "--json")
        assert said.code == 0
        cell = said.json
        assert cell["schema"] == 1
        assert cell["verdict"] == "KEY-DEPENDENT"
        assert {item["mark"] for item in cell["evidence"]} == {"triggers", "runner-up"}  # type: ignore[attr-defined]
        assert all(isinstance(item["p"], str) and float(item["p"]) < 1 for item in cell["evidence"])  # type: ignore[attr-defined]

    def test_verify_a_weights_file(self, wootz, shelf: Path, tmp_path: Path) -> None:
        shutil.copy(shelf / "own/model.safetensors", tmp_path / "found.safetensors")
        shutil.copy(shelf / "own/model.json", tmp_path / "found.json")
        assert wootz("verify", shelf / "own", tmp_path / "found.safetensors").code == 0

    def test_a_suspect_that_cannot_be_run_is_inconclusive(
        self, wootz, shelf: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wootz.suspects.files.worker._START", "raise SystemExit(9)")
        said = wootz("verify", shelf / "own", shelf / "own", "--json")
        assert (said.code, said.json["verdict"], said.json["bits"]) == (3, "INCONCLUSIVE", 0.0)
        assert "exit code 9" in said.json["notes"][0]  # type: ignore[index]

    def test_a_stranger_is_not_shown(self, wootz, shelf: Path) -> None:
        said = wootz("verify", shelf / "own", shelf / "stranger", "--json")
        assert (said.code, said.json["verdict"]) == (1, "NOT SHOWN")
        assert said.json["bits"] < 20  # type: ignore[operator]

    @pytest.mark.long
    def test_access_budget_and_bar(self, wootz, shelf: Path) -> None:
        label = wootz("verify", shelf / "own", shelf / "own", "--access", "label", "--json").json
        assert [item["mark"] for item in label["evidence"]] == ["triggers"]  # type: ignore[attr-defined]
        walked = wootz(
            "verify", shelf / "own", shelf / "own", "--access", "label", "--boundary-queries", "400", "--json"
        ).json
        assert [(item["mark"], item["queries"]) for item in walked["evidence"]] == [
            ("triggers", 96 + 14 * 27),
            ("runner-up", 400),
        ]  # type: ignore[attr-defined]
        assert wootz("verify", shelf / "own", shelf / "own", "--boundary-queries", "400").code == 2
        few = wootz("verify", shelf / "own", shelf / "own", "--budget", "50", "--json").json
        assert all(item["queries"] == 50 for item in few["evidence"])  # type: ignore[attr-defined]
        assert wootz("verify", shelf / "own", shelf / "own", "--bits", "100000").code == 1

    @pytest.mark.parametrize(
        ("words", "suspect"),
        [
            (["steal", "copy"], "stolen"),
            pytest.param(["steal", "retrain-soft", *SOFT], "stolen", marks=pytest.mark.slow),
            (["remove", "finetune", "--set", "epochs=1"], "removed"),
            (["remove", "prune", "--set", "sparsity=0.5"], "removed"),
            (["remove", "quantize", "--set", "bits=8"], "removed"),
        ],
    )
    def test_thieves_are_found(self, wootz, shelf: Path, tmp_path: Path, words: list[str], suspect: str) -> None:
        verb, attack, *rest = words
        said = wootz(verb, shelf / "own", "--attack", attack, "--out", tmp_path / "s", "-n", "100", *rest, "--json")
        assert said.code == 0
        assert said.json["kind"] == suspect
        assert said.json["agreement"] > 0.5  # type: ignore[operator]
        found = wootz("verify", shelf / "own", tmp_path / "s", "--bits", "20", "--json")
        assert (found.code, found.json["verdict"]) == (0, "KEY-DEPENDENT")

    def test_an_exported_model_is_known_again(self, wootz, shelf: Path, tmp_path: Path) -> None:
        made = wootz("export", shelf / "own", "--out", tmp_path / "m.onnx", "--json").json
        assert made["file"] == str(tmp_path / "m.onnx")
        assert wootz("verify", shelf / "own", tmp_path / "m.onnx", "--json").json["verdict"] == "KEY-DEPENDENT"

    def test_evaluate(self, wootz, shelf: Path) -> None:
        for attack, name in {"pgd": "pgd-40x2", "autoattack": "autoattack", "pgd-25": "pgd-25", "ibp": "ibp"}.items():
            said = wootz("evaluate", shelf / "stranger", "--attack", attack, "-n", "10", "--eps", "0.6", "--json")
            assert said.json["robust"]["attack"] == name  # type: ignore[index]
            assert said.json["robust"]["n"] == 10  # type: ignore[index]

    def test_register_claim_judge(self, wootz, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WOOTZ_SIGNING_KEY", str(shelf / "signing.pem"))
        own, claim = shelf / "own", tmp_path / "c.json"
        refused = wootz("claim", own, own, "--out", claim)
        assert (refused.code, "wootz register" in refused.err) == (2, True)
        assert len(wootz("register", own, "--json").json["owner"]) == 64  # type: ignore[arg-type]
        weak = wootz("claim", own, shelf / "stranger", "--out", claim)
        assert_usage_error(weak, "needs 80", "no time token", "--yes")
        assert not (own / "key/burnt.jsonl").exists()
        assert wootz("claim", own, own, "--out", claim, "--json").json["verdict"] == "KEY-DEPENDENT"
        word = tmp_path / "word.json"
        judged = wootz("judge", claim, own, "--out", word, "--json")
        assert (judged.code, judged.json["verdict"], judged.json["bar"]) == (0, "KEY-DEPENDENT", 80)
        assert wootz("judge", claim, own, "--owner", own / "owner.pub").code == 0
        assert b"urn:wootz:judgement:2" in base64.b64decode(json.loads(word.read_text())["payload"])
        assert wootz("judge", claim, shelf / "stranger").code == 1
        data = bytearray(claim.read_bytes())
        data[len(data) // 2] ^= 1
        claim.write_bytes(data)
        assert wootz("judge", claim, own).code == 4
        for wrong in (["--against", claim], ["--suspect-since", "yesterday"], ["--owner", tmp_path / "none.pem"]):
            assert wootz("judge", claim, own, *wrong).code == 2

    def test_people_get_words(self, wootz, shelf: Path) -> None:
        said = wootz("verify", shelf / "own", shelf / "own")
        assert "KEY-DEPENDENT" in said.out
        assert "bits (p = " in said.out
        assert said.err == ""

    def test_report_of_a_run(self, wootz, shelf: Path) -> None:
        page = Path(wootz("report", shelf / "own", "--json").json["report"])  # type: ignore[arg-type]
        assert page.read_text("utf-8").lstrip().lower().startswith("<!doctype html>")


class TestMistakes:
    """Each is one line on standard error, exit code 2, nothing on standard output, nothing lost."""

    def test_unknown_attacks(self, wootz, shelf: Path, tmp_path: Path) -> None:
        assert_usage_error(
            wootz("steal", shelf / "own", "--attack", "retrain", "--out", tmp_path / "s"), "retrain-soft"
        )
        assert_usage_error(
            wootz("remove", shelf / "own", "--attack", "prun", "--out", tmp_path / "s"), "did you mean 'prune'"
        )
        assert_usage_error(
            wootz("evaluate", shelf / "own", "--attack", "pdg"), "unknown evaluation 'pdg'", "did you mean 'pgd'"
        )
        said = wootz("remove", shelf / "own", "--attack", "prune", "--out", tmp_path / "s", "--set", "sparsity=2")
        assert_usage_error(said, "sparsity = 2.0", "from 0 to 0.999")

    def test_a_run_without_a_key(self, wootz, shelf: Path) -> None:
        assert_usage_error(wootz("verify", shelf / "stranger", shelf / "own"), "holds no key", "owner's run folder")

    def test_no_such_run(self, wootz, tmp_path: Path) -> None:
        assert_usage_error(wootz("evaluate", tmp_path / "nothing"), "is not a run folder")

    def test_a_model_of_other_classes_or_shape(self, wootz, shelf: Path, tmp_path: Path) -> None:
        x = np.random.default_rng(0).integers(0, 256, (400, 16, 16), dtype=np.uint8)
        np.savez(tmp_path / "own.npz", x_train=x, y_train=np.arange(400) % 4)
        made = wootz(
            "protect",
            "--data",
            tmp_path / "own.npz",
            "--out",
            tmp_path / "r",
            "--marks",
            "none",
            "--set",
            "recipe.epochs=1",
            "--eps",
            "0.1",
        )
        assert made.code == 0
        said = wootz("verify", shelf / "own", tmp_path / "r")
        assert_usage_error(said, "takes images [1, 16, 16] and knows 4 classes", "[1, 28, 28] and 10 classes")

    @pytest.mark.parametrize("name", ["key/key.json", "key/triggers.safetensors", "registration.json"])
    def test_a_key_file_with_a_flipped_byte(self, wootz, shelf: Path, tmp_path: Path, name: str) -> None:
        shutil.copytree(shelf / "own", tmp_path / "r")
        data = bytearray((tmp_path / "r" / name).read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "r" / name).write_bytes(data)
        assert_usage_error(wootz("verify", tmp_path / "r", shelf / "own"), str(tmp_path / "r"))

    def test_a_file_that_could_run_code(self, wootz, shelf: Path, tmp_path: Path) -> None:
        (tmp_path / "model.pt").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
        assert_usage_error(wootz("verify", shelf / "own", tmp_path / "model.pt"), "can run code", "safetensors")

    def test_a_full_disk(self, wootz, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(store.os, "fsync", full)
        said = wootz("remove", shelf / "own", "--attack", "prune", "--out", tmp_path / "s")
        assert_usage_error(said, str(tmp_path / "s"), "No space left on device")
        assert not (tmp_path / "s/model.safetensors").exists()

    def test_nothing_is_written_over(self, wootz, shelf: Path) -> None:
        before = (shelf / "own/model.safetensors").read_bytes()
        said = wootz("protect", "--data", "mnist-5k", "--out", shelf / "own", *FAST)
        assert_usage_error(said, "already holds a model", "--out")
        said = wootz("steal", shelf / "own", "--attack", "retrain-soft", "--out", shelf / "own")
        assert_usage_error(said, "already holds a model")
        assert (shelf / "own/model.safetensors").read_bytes() == before

    def test_a_budget_too_small(self, wootz, shelf: Path, tmp_path: Path) -> None:
        said = wootz("steal", shelf / "own", "--attack", "retrain-hard", "--budget", "10", "--out", tmp_path / "s")
        assert_usage_error(said, "budget = 10 queries: 0 are spent and this attack needs 800 more")

    def test_resume_with_other_settings(self, wootz, shelf: Path) -> None:
        said = wootz("protect", "--data", "mnist-5k", "--out", shelf / "own", *FAST, "--seed", "4", "--resume")
        assert_usage_error(said, "begun with other settings")

    def test_stopped_by_hand(self, wootz, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def stopped(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("wootz.workflows.evaluate.evaluate_run", stopped)
        monkeypatch.setattr("wootz.workflows.verify.verify_cell", stopped)
        monkeypatch.setattr("wootz.workflows.attack.attack_run", stopped)
        for words, option in (
            (["evaluate", shelf / "own"], ""),
            (["verify", shelf / "own", shelf / "own"], ""),
            (["remove", shelf / "own", "--attack", "prune", "--out", shelf / "p"], " with --resume"),
        ):
            said = wootz(*words)
            assert (said.code, said.out) == (130, "")
            assert said.err.strip() == f"wootz: stopped; repeat the command{option} to continue where it can"


@pytest.mark.slow
def test_the_demo_makes_its_cells(wootz, tmp_path: Path) -> None:
    said = wootz("demo", "--out", tmp_path / "demo", "--json", *FAST)
    assert said.code == 0
    cells = said.json["cells"]
    kinds = [cell["kind"] for cell in cells]  # type: ignore[union-attr]
    assert len(kinds) >= 10
    assert all(
        kinds.count(kind) >= least
        for kind, least in (("protected", 1), ("stolen", 3), ("removed", 3), ("independent", 3))
    )
    assert json.loads((tmp_path / "demo/summary.json").read_text())["cells"] == cells
    assert (tmp_path / "demo/report.html").stat().st_size > 10_000
    verdicts = {cell["suspect"]: cell["verdict"] for cell in cells}  # type: ignore[union-attr]
    assert verdicts["protected"] == "KEY-DEPENDENT"
    assert all(cell["bits"] < 20 for cell in cells if cell["kind"] == "independent")  # type: ignore[union-attr]
    again = wootz("demo", "--out", tmp_path / "demo")
    assert again.code == 2
    assert "already holds a demo" in again.err
