"""Run folders of earlier versions still load; see tests/golden/README.md."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runs import verify_run
from wootz.errors import KeyFolderError
from wootz.workflows.judge import JudgePolicy, judge
from wootz.workflows.owner import Owner
from wootz.workflows.suspects import QueryConfig

GOLDEN = Path(__file__).parent.parent / "golden"
HERE = QueryConfig(isolated=False)


@pytest.mark.parametrize("protocol", ["protocol-4", "protocol-5"])
def test_a_run_loads_and_verifies(protocol: str) -> None:
    run = GOLDEN / protocol / "run"
    assert verify_run(run, run, HERE).verdict == "KEY-DEPENDENT"
    assert verify_run(run, run / "panel/plain", HERE).verdict == "NOT SHOWN"


def test_the_newest_protocol_is_judged() -> None:
    place = GOLDEN / "protocol-5"
    judgement = judge(
        place / "claim.json", place / "run", JudgePolicy(authorities=place / "authorities.pem", isolated=False)
    )
    assert judgement.outcome == "KEY-DEPENDENT"
    assert 100 < judgement.bits < 121


def test_an_older_protocol_is_not_claimed(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "protocol-4/run", tmp_path / "run")
    with pytest.raises(KeyFolderError, match=r"protocol 4.*protect"):
        Owner.load(tmp_path / "run").claim(tmp_path / "run")


def test_a_claim_of_an_older_protocol_is_refused() -> None:
    place = GOLDEN / "protocol-4"
    judgement = judge(place / "claim.json", place / "run", JudgePolicy(isolated=False))
    assert judgement.outcome == "INVALID CLAIM"
    assert "is a 'urn:wootz:claim:1', not a 'urn:wootz:claim:2'" in judgement.notes[0]
