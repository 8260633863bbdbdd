"""Signed files from before: what they revealed is public, and what they registered cannot be registered again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wootz.errors import SignatureError
from wootz.keys import CommitmentOpening, Statement, commit, public_hex, signing_key, verify_statement
from wootz.keys import documents as doc
from wootz.keys.documents import read_document
from wootz.store import read_bytes
from wootz.workflows.certificate import VerifiedClaim
from wootz.workflows.claim import CLAIM
from wootz.workflows.register import REGISTERED

JUDGEMENT = "urn:wootz:judgement:2"


def commitments(proven: VerifiedClaim) -> dict[str, str]:
    """Return which commitments a claim opened, by mark."""
    marks = proven.registration["marks"]
    return {name: marks[name]["tranches"][entry.tranche]["commitment"] for name, entry in proven.content.opened.items()}


def check_earlier(proven: VerifiedClaim, claim: str, earlier: Sequence[Path]) -> tuple[str, ...]:
    """Check signed files from before: claims and registrations of this owner, and the judge's own judgements.

    Files that somebody else signed say nothing: anybody can copy what a claim opened. Nor do damaged ones:
    an accused would hand one over.

    Args:
        proven: the claim, examined.
        claim: the digest of its certificate; the judge's own words about this very claim say nothing against it.
        earlier: the files.

    Returns:
        Remarks on files that do not count.

    Raises:
        SignatureError: the same secret was opened about another suspect, or another model was registered with the same
            key.
    """
    mine, remarks = set(commitments(proven).values()), []
    for path in earlier:
        try:
            statement, opened = _read(path)
        except SignatureError as error:
            remarks.append(f"{path.name} does not count: {error}")
            continue
        allowed = public_hex(signing_key()) if statement.predicate_type == JUDGEMENT else proven.claim.signer
        if statement.signer != allowed:
            who = "yourself" if statement.predicate_type == JUDGEMENT else "this owner"
            remarks.append(f"{path.name} does not count: it is not signed by {who}")
        elif statement.predicate_type == REGISTERED:
            same = statement.predicate["registration"] == proven.registration
            if same and set(statement.subject.values()) != {proven.model}:
                raise SignatureError(f"{path.name} registers another model with the same key")
        elif statement.predicate_type == JUDGEMENT and statement.predicate["claim"] == claim:
            continue
        elif mine & opened and set(statement.subject.values()) != set(proven.claim.subject.values()):
            raise SignatureError(f"{path.name} opened the same secret about another suspect: it is public since")
    return tuple(remarks)


def _read(path: Path) -> tuple[Statement, set[str]]:
    """Read a statement of any of the kinds that count, and the commitments that it opened."""
    data = read_bytes(path)
    for kind in (CLAIM, JUDGEMENT, REGISTERED):
        try:
            statement = verify_statement(data, kind)
        except SignatureError:
            continue
        if kind == CLAIM:
            content = read_document(doc.Claim, statement.predicate)
            opening = content.opened.values()
            return statement, {
                commit(CommitmentOpening(bytes.fromhex(e.secret), bytes.fromhex(e.salt))) for e in opening
            }
        if kind == JUDGEMENT:
            return statement, set(read_document(doc.Judgement, statement.predicate).opened.values())
        read_document(doc.RegisteredModel, statement.predicate)
        return statement, set()
    raise SignatureError("it is neither a claim, a judgement nor a registration that verifies")
