"""Endpoints from end to end, over real HTTP: verified, claimed, judged, robbed; and a thief caught by the guard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from torch import nn

from authority import serving
from court import Court
from helpers import CPU
from runs import claim_run, judge_claim, verify_run
from wootz.attacks.extraction import BudgetedOracle, read_queries
from wootz.data import Dataset, load
from wootz.errors import BudgetError, ConfigError, ModelError
from wootz.keys import AnswerKey, read_keys, verify_statement
from wootz.keys.documents import Judgement, read_document
from wootz.models import read_model
from wootz.serving import ModelInfo, app, running
from wootz.store import file_digest
from wootz.suspects.files import predictor
from wootz.types import Predict
from wootz.watermarks import AnswerFilter, CalibrationScores
from wootz.workflows.attack import attack_run
from wootz.workflows.claim import CLAIM
from wootz.workflows.guard_log import LOG, SEALS
from wootz.workflows.judge import JudgePolicy
from wootz.workflows.previous_claims import JUDGEMENT
from wootz.workflows.register import register_run
from wootz.workflows.suspects import QueryConfig

LABEL = QueryConfig(access="label")
FEW = QueryConfig(access="label", budget=100)


@pytest.fixture(autouse=True)
def whole_key(court: Court) -> None:
    (court.owner / "key/burnt.jsonl").unlink(missing_ok=True)
    shutil.rmtree(court.owner / "transcripts", ignore_errors=True)


def facts(digits: Dataset, name: str) -> ModelInfo:
    return ModelInfo(name=name, shape=digits.shape, classes=digits.classes, data="mnist-5k", eps=0.1)


@pytest.fixture
def served(court: Court, digits: Dataset) -> Iterator[str]:
    """Give the address of the owner's model, served by somebody."""
    with running(app(predictor(read_model(court.owner)[0]), facts(digits, "found"))) as url:
        yield f"{url}/v2/models/found"


@contextmanager
def labelling(answer: Predict) -> Iterator[str]:
    """Give the address of a service with an interface of its own: POST /ask {pictures} -> {labels}."""

    async def ask(request: Request) -> JSONResponse:
        pictures = (await request.json())["pictures"]
        return JSONResponse({"labels": answer(torch.tensor(pictures, dtype=torch.float32)).tolist()})

    with running(Starlette(routes=[Route("/ask", ask, methods=["POST"])])) as url:
        yield url


class TestVerify:
    def test_labels_suffice_and_few_of_them(self, as_owner: Court, served: str) -> None:
        cell = verify_run(as_owner.owner, served, LABEL)
        (item,) = cell.evidence
        assert cell.verdict == "KEY-DEPENDENT"
        assert item.queries < 2 * 120  # decoys among them; this small model recalls half of its triggers
        assert item.details["stopped"]
        transcripts = list((as_owner.owner / "transcripts").iterdir())
        assert len(transcripts) == 1
        told = [json.loads(line)["line"] for line in transcripts[0].read_text().splitlines()]
        assert sum(line["kind"] == "ask" for line in told) == item.queries

    @pytest.mark.long
    def test_scores_bring_the_other_mark(self, as_owner: Court, served: str) -> None:
        cell = verify_run(as_owner.owner, served, QueryConfig(early=False, budget=150))
        assert {item.mark: item.queries for item in cell.evidence} == {"triggers": 150, "runner-up": 150}
        assert cell.verdict == "KEY-DEPENDENT"

    def test_a_stranger_s_endpoint(self, as_owner: Court, digits: Dataset) -> None:
        with running(app(predictor(read_model(as_owner.stranger)[0]), facts(digits, "s"))) as url:
            assert verify_run(as_owner.owner, f"{url}/v2/models/s", replace(LABEL, budget=100)).verdict == "NOT SHOWN"

    @pytest.mark.long
    def test_a_service_of_another_form(self, as_owner: Court, digits: Dataset) -> None:
        """Labels alone, behind a template; somebody else's numbers for the classes are found on ordinary images."""
        model, order = predictor(read_model(as_owner.owner)[0]), torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
        query = QueryConfig(
            access="label",
            calibrate=200,
            budget=200,
            client=("api=template", "template.path=/ask", "template.field=pictures", "template.answer=/labels"),
        )
        with labelling(lambda x: order[model(x).argmax(1)]) as url:
            cell = verify_run(as_owner.owner, url, query)
        assert cell.verdict == "KEY-DEPENDENT", cell.notes
        assert "classes renumbered" in " ".join(cell.notes)

    def test_nobody_there(self, as_owner: Court, served: str) -> None:
        with pytest.raises(ModelError, match="no model answers there"):
            verify_run(as_owner.owner, served + "x", LABEL)

    def test_a_rambling_service_is_inconclusive(self, as_owner: Court, digits: Dataset) -> None:
        noise = torch.Generator().manual_seed(0)

        def rambling(x: torch.Tensor) -> torch.Tensor:
            return torch.rand(len(x), 10, generator=noise).log()

        with running(app(rambling, facts(digits, "r"))) as url:
            assert (
                verify_run(as_owner.owner, f"{url}/v2/models/r", replace(LABEL, budget=100)).verdict == "INCONCLUSIVE"
            )


def test_a_claim_about_an_endpoint(as_owner: Court, served: str, tmp_path: Path) -> None:
    claim, trusting = tmp_path / "c.json", JudgePolicy(authorities=as_owner.authority.roots, isolated=False)
    assert claim_run(as_owner.owner, served, claim).verdict == "KEY-DEPENDENT"
    assert list(verify_statement(claim.read_bytes(), CLAIM).subject) == [served]
    cell = judge_claim(claim, served, trusting, out=tmp_path / "word.json", transcripts=tmp_path / "judge")
    assert cell.verdict == "KEY-DEPENDENT"
    transcripts = [list(place.glob("transcript-*.jsonl")) for place in (tmp_path, tmp_path / "judge")]
    assert [len(files) for files in transcripts] == [1, 1]  # the owner's, and the judge's, who asked anew
    word = read_document(Judgement, verify_statement((tmp_path / "word.json").read_bytes(), JUDGEMENT).predicate)
    assert word.transcripts == [file_digest(transcripts[1][0])]
    other = judge_claim(claim, as_owner.owner, trusting)
    assert other.verdict == "INVALID CLAIM"  # the claim is about the endpoint


class TestTheft:
    def test_a_thief_asks_over_http(self, as_owner: Court, served: str, tmp_path: Path, digits: Dataset) -> None:
        settings = ("epochs=2", "images=300")
        cell = attack_run("steal", served, "retrain-hard", tmp_path / "s", settings=settings, count=20, execution=CPU)
        assert (cell.queries, cell.access, cell.data, cell.agreement) == (300, "label", "mnist-5k", None)
        assert len((tmp_path / "s/transcript.jsonl").read_text().splitlines()) == 1 + 2 * 2  # two requests
        here = attack_run(
            "steal", as_owner.owner, "retrain-hard", tmp_path / "h", settings=settings, count=20, execution=CPU
        )
        labels = [read_queries(place / "queries.log")["label"].tolist() for place in (tmp_path / "s", tmp_path / "h")]
        assert labels[0] == labels[1]
        assert here.agreement is not None

    def test_he_has_no_image_that_the_owner_trained_on(self, as_owner: Court, tmp_path: Path, digits: Dataset) -> None:
        theirs, model = load("mnist-5k", set_aside=0.25), predictor(read_model(as_owner.owner)[0])
        told = replace(facts(digits, "m"), set_aside=0.25)
        with running(app(model, told)) as url:
            cell = attack_run(
                "steal",
                f"{url}/v2/models/m",
                "retrain-hard",
                tmp_path / "s",
                settings=("epochs=1",),
                count=20,
                execution=CPU,
            )
        assert cell.queries == len(theirs.thief) < len(digits.thief)
        BudgetedOracle(model, access="scores", num_classes=10, log=tmp_path / "his.log").query(theirs.thief.images())
        asked, his = (
            set(read_queries(log)["image"].tolist()) for log in (tmp_path / "s/queries.log", tmp_path / "his.log")
        )
        assert asked == his

    @pytest.mark.parametrize("told", [{"set_aside": 7.0}, {"set_aside": float("nan"), "eps": -1.0}])
    def test_a_number_that_can_not_be_counts_as_none(
        self, as_owner: Court, tmp_path: Path, digits: Dataset, told: dict[str, float]
    ) -> None:
        with running(app(predictor(read_model(as_owner.owner)[0]), replace(facts(digits, "m"), **told))) as url:
            cell = attack_run(
                "steal",
                f"{url}/v2/models/m",
                "retrain-hard",
                tmp_path / "s",
                settings=("epochs=1", "images=50"),
                count=20,
                execution=CPU,
            )
        assert cell.robust is not None
        assert cell.robust.eps == (0.25 if "eps" in told else 0.1)
        assert read_model(tmp_path / "s")[2]["set_aside"] == 1

    def test_what_was_not_answered_is_told(self, digits: Dataset, court: Court, tmp_path: Path) -> None:
        model = predictor(read_model(court.owner)[0])
        asked = 0

        def moody(x: torch.Tensor) -> torch.Tensor:
            nonlocal asked
            asked += 1
            if asked == 3:  # the first question is the server's own
                raise ConfigError("not in the mood")
            return model(x)

        with running(app(moody, facts(digits, "m"))) as url:
            cell = attack_run(
                "steal",
                f"{url}/v2/models/m",
                "retrain-hard",
                tmp_path / "s",
                count=20,
                execution=CPU,
                settings=("epochs=1", "images=300"),
            )
        assert cell.queries == 300
        assert asked >= 4

    def test_what_is_refused(self, served: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="an endpoint gives answers only"):
            attack_run("remove", served, "prune", tmp_path / "a")
        with pytest.raises(BudgetError):
            attack_run("steal", served, "retrain-hard", tmp_path / "b", budget=3)
        with pytest.raises(ModelError, match="no model answers there"):
            attack_run("steal", served + "x", "retrain-hard", tmp_path / "c")


class TestGuard:
    """The guard in a service, a thief who learns hard labels until he knows them, and what a judge makes of it."""

    @pytest.fixture
    def robbed(
        self, as_owner: Court, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[Court, Path]:
        model, spec, _ = read_model(as_owner.owner)
        key = read_keys(as_owner.owner).by_mark["guard"]
        assert isinstance(key, AnswerKey)
        answer = predictor(model)
        ordinary = CalibrationScores(answer(digits.validation.images()), digits.validation.labels)
        (as_owner.owner / LOG).unlink(missing_ok=True)
        with (
            AnswerFilter(key, as_owner.owner / LOG, shape=spec.shape, calibration=ordinary) as guarded,
            running(app(answer, facts(digits, "own"), guard=guarded)) as url,
        ):
            attack_run(
                "steal",
                f"{url}/v2/models/own",
                "retrain-hard",
                tmp_path / "thief",
                count=20,
                execution=CPU,
                settings=("epochs=30", "lr=5e-3", "data=owner", "images=2000"),
            )
            assert guarded.count > 20
        return as_owner, tmp_path / "thief"

    def test_a_hard_label_thief_is_told_by_the_guard(
        self, robbed: tuple[Court, Path], tmp_path: Path, plain: nn.Module
    ) -> None:
        court, thief = robbed
        own = replace(LABEL, isolated=False)
        cell = verify_run(court.owner, thief, own)
        bits = {item.mark: item.bits for item in cell.evidence}
        assert cell.verdict == "KEY-DEPENDENT"
        assert bits["guard"] > 40 > bits["triggers"]
        stranger = verify_run(court.owner, court.stranger, own)
        assert stranger.verdict == "NOT SHOWN"
        self.claimed(court, thief, tmp_path, own)

    def claimed(self, court: Court, thief: Path, tmp_path: Path, own: QueryConfig) -> None:
        """A judge counts a log that was sealed before the suspect was made, and no other."""
        with serving(court.authority) as url:
            register_run(court.owner, tsa=url)
        try:
            claim = tmp_path / "g.json"
            claim_run(court.owner, thief, claim, own)
            now = datetime.now(UTC)
            whole = JudgePolicy(
                authorities=court.authority.roots,
                suspect_since=now + timedelta(hours=1),
                isolated=False,
                independents=(court.stranger,),
                registered=court.owner,
            )
            cell = judge_claim(claim, thief, whole)
            assert cell.verdict == "KEY-DEPENDENT", cell.notes
            assert any("1/2" in note for note in cell.notes)  # what one independent model proves
            for policy, why in (
                (replace(whole, suspect_since=now - timedelta(hours=1)), "was first sealed at"),
                (replace(whole, suspect_since=None), "nobody says since when"),
                (replace(whole, registered=None), "without the registered model"),
                (replace(whole, independents=()), "needs an independent model"),
            ):
                cell = judge_claim(claim, thief, policy)
                assert cell.verdict == "NOT SHOWN", cell.notes
                assert any(why in note for note in cell.notes)
            other = judge_claim(claim, thief, replace(whole, registered=court.stranger))
            assert (other.verdict, "is not the model" in other.notes[0]) == ("INVALID CLAIM", True)
            log = tmp_path / "g.guard.jsonl"
            log.write_bytes(log.read_bytes().replace(b'"base":1', b'"base":2', 1))
            assert judge_claim(claim, thief, whole).verdict == "INVALID CLAIM"
        finally:
            (court.owner / LOG).unlink()
            (court.owner / SEALS).unlink()


def test_accused_liar_changes_what_his_endpoint_says_of_itself(
    as_owner: Court, digits: Dataset, tmp_path: Path
) -> None:
    """The claim is about the address; another description of the same address is no way out."""
    claim, trusting = tmp_path / "c.json", JudgePolicy(authorities=as_owner.authority.roots, isolated=False)
    answer, first = predictor(read_model(as_owner.owner)[0]), facts(digits, "s")
    with running(app(answer, first)) as url:
        where = f"{url}/v2/models/s"
        port = int(url.rsplit(":", 1)[1])
        assert claim_run(as_owner.owner, where, claim).verdict == "KEY-DEPENDENT"
    with running(app(answer, replace(first, eps=0.2)), port=port) as url:
        cell = judge_claim(claim, f"{url}/v2/models/s", trusting, transcripts=tmp_path / "judge")
    assert cell.verdict == "KEY-DEPENDENT", cell.notes
