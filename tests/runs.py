"""The steps of a dispute on run folders, as the command line takes them, with records as results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wootz.records import Result
from wootz.workflows.claim import check_certificate_path, claim_suspect
from wootz.workflows.judge import JudgePolicy, judge
from wootz.workflows.owner import Owner
from wootz.workflows.suspects import QueryConfig, SuspectLike
from wootz.workflows.verify import verify_cell


def verify_run(run: Path, suspect: SuspectLike, query: QueryConfig | None = None, **options: Any) -> Result:
    return verify_cell(Owner.load(run), suspect, query, **options)


def claim_run(run: Path, suspect: SuspectLike, out: Path, query: QueryConfig | None = None) -> Result:
    check_certificate_path(out)
    claim = claim_suspect(Owner.load(run), suspect, query, transcripts=out.parent, force=True)
    claim.save(out)
    return claim.cell


def judge_claim(
    certificate: Path,
    suspect: SuspectLike,
    policy: JudgePolicy | None = None,
    *,
    out: Path | None = None,
    transcripts: Path | None = None,
) -> Result:
    judgement = judge(certificate, suspect, policy, transcripts=transcripts)
    if out is not None:
        judgement.save(out)
    return judgement.cell
