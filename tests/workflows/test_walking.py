"""Claims about suspects that show labels only: how far to walk was registered before the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from court import Court
from runs import claim_run, judge_claim, verify_run
from wootz.errors import ConfigError
from wootz.keys import read_keys, sign_statement, signing_key, verify_statement
from wootz.records import Result
from wootz.store import canonical
from wootz.workflows.claim import CLAIM
from wootz.workflows.judge import JudgePolicy
from wootz.workflows.reference_models import registered_boundary_search
from wootz.workflows.register import REGISTERED
from wootz.workflows.suspects import QueryConfig

WALKING = QueryConfig(access="label", boundary_queries=20_000, isolated=False)


@pytest.fixture
def claim(as_owner: Court, tmp_path: Path) -> Path:
    """A claim about a copy that shows labels only, found by walks."""
    (as_owner.owner / "key/burnt.jsonl").unlink(missing_ok=True)
    claim_run(as_owner.owner, as_owner.owner, tmp_path / "c.json", WALKING)
    return tmp_path / "c.json"


def judged(court: Court, claim: Path, suspect: Path) -> Result:
    return judge_claim(claim, suspect, JudgePolicy(authorities=court.authority.roots, isolated=False))


def of_runner_up(cell: Result) -> Any:
    (item,) = (item for item in cell.evidence if item.mark == "runner-up")
    return item


def test_a_judge_walks_the_same_ways(claim: Path, as_owner: Court) -> None:
    told = verify_statement(claim.read_bytes(), CLAIM).predicate
    cell = judged(as_owner, claim, as_owner.owner)
    assert cell.verdict == "KEY-DEPENDENT"
    assert (float(told["found"]["bits"]), told["test"]["access"]) == (cell.bits, "walks")
    assert of_runner_up(cell).bits > 20  # a copy; without walks this mark is not read at all
    labels = verify_run(as_owner.owner, as_owner.owner, QueryConfig(access="label", isolated=False))
    assert [item.mark for item in labels.evidence] == ["triggers"]


def test_a_stranger_who_is_walked_is_no_thief(as_owner: Court, tmp_path: Path) -> None:
    (as_owner.owner / "key/burnt.jsonl").unlink(missing_ok=True)
    cell = claim_run(as_owner.owner, as_owner.stranger, tmp_path / "c.json", WALKING)
    assert (cell.verdict, of_runner_up(cell).bits < 20) == ("NOT SHOWN", True)
    assert judged(as_owner, tmp_path / "c.json", as_owner.stranger).verdict == "NOT SHOWN"


def test_as_many_queries_as_were_registered_or_none(as_owner: Court, tmp_path: Path) -> None:
    (as_owner.owner / "key/burnt.jsonl").unlink(missing_ok=True)
    fewer = QueryConfig(access="label", boundary_queries=100, isolated=False)
    with pytest.raises(ConfigError, match="boundary queries: 100; a claim with this key uses the registered 20000"):
        claim_run(as_owner.owner, as_owner.owner, tmp_path / "c.json", fewer)
    assert not (as_owner.owner / "key/burnt.jsonl").exists()  # nothing was opened for it


def test_a_walk_that_was_registered_again_belongs_to_another_key(claim: Path, as_owner: Court) -> None:
    told = verify_statement(claim.read_bytes(), CLAIM)
    first = verify_statement(canonical(told.predicate["registered"]), REGISTERED)
    longer = dict(first.predicate["registration"])
    longer["walk"] = dict(longer["walk"]) | {"eps": "0.4"}
    again = sign_statement(signing_key(), first.subject, REGISTERED, dict(first.predicate) | {"registration": longer})
    changed = dict(told.predicate) | {"registered": json.loads(again)}
    claim.write_bytes(sign_statement(signing_key(), told.subject, CLAIM, changed))
    cell = judged(as_owner, claim, as_owner.owner)
    assert (cell.verdict, "time token does not verify" in cell.notes[0]) == ("INVALID CLAIM", True)
    untimed = judge_claim(claim, as_owner.owner, JudgePolicy(isolated=False))
    assert (untimed.verdict, "something else" in untimed.notes[0]) == ("INVALID CLAIM", True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"eps": "far"}, "could not convert"),
        ({"eps": "nan"}, "eps = nan"),
        ({"steps": 10**9}, "steps = 1000000000"),
        ({"queries": 0}, "queries = 0"),
        ({"stops": []}, "stops = 0"),
        ({"stops": ["1/0"]}, "Fraction"),
        ({"stops": ["7/3"]}, "stops = 2.3"),
        ({"stops": ["1e999999999"]}, "is no part"),
        ({"stops": [0.5]}, "expected string"),
        ({"stops": 5}, "len"),
        ({"norm": "L1"}, "norm = 'L1'"),
        ({"speed": 3}, "speed"),
        ({"steps": None}, "int"),
    ],
)
def test_a_walk_that_nobody_could_walk(as_owner: Court, change: dict[str, Any], reason: str) -> None:
    registration = dict(read_keys(as_owner.owner).registration)
    assert registered_boundary_search(registration).eps == "0.3"
    registration["walk"] = dict(registration["walk"]) | change
    with pytest.raises(ConfigError, match=reason):
        registered_boundary_search(registration)


def test_a_key_from_before_there_were_walks(as_owner: Court) -> None:
    registration = dict(read_keys(as_owner.owner).registration)
    del registration["walk"]
    with pytest.raises(ConfigError, match="registered without walks"):
        registered_boundary_search(registration)
