"""Re-check a claim without trusting who wrote it: derive everything again, ask the suspect anew, sign what was seen."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from wootz import __version__
from wootz.data import Dataset
from wootz.errors import ConfigError, Error, InconclusiveError, SignatureError
from wootz.keys import (
    DirectionKey,
    HalfKey,
    Key,
    LabelKey,
    PreferenceKey,
    WeightKey,
    sign_statement,
    signing_key,
)
from wootz.models import ModelSpec
from wootz.records import EvidenceRecord, Result, to_json
from wootz.statistics import Outcome, Verdict, cache_batches, null, required_bits
from wootz.statistics.direction_estimate import estimate_direction
from wootz.statistics.exact_tests import correct_answers, read_bits
from wootz.statistics.pairwise_preferences import preference_residuals, query_preferences
from wootz.statistics.queries import LabelledImages, SuspectAccess, query_labels
from wootz.statistics.verdict import CHANCE
from wootz.statistics.wrong_class_ranks import query_wrong_classes, wrong_class_residuals
from wootz.store import file_digest, read_bytes, sha256, write_bytes
from wootz.suspects.endpoints import Identity
from wootz.types import Access, Predict, Progress
from wootz.workflows.certificate import VerifiedClaim, verify_certificate
from wootz.workflows.claim import plain_strings
from wootz.workflows.competing_claims import resolve_competing_claims
from wootz.workflows.guard_ruling import rule_on_log
from wootz.workflows.previous_claims import JUDGEMENT, check_earlier, commitments
from wootz.workflows.reference_models import ReferenceModels
from wootz.workflows.run import Timer, user_folder
from wootz.workflows.suspects import (
    QueryConfig,
    Suspect,
    SuspectLike,
    identify,
    is_endpoint,
    named_network,
    open_suspect_model,
)
from wootz.workflows.verify import ask_suspect, calibrated_suspect, verdict_cell

RANDOM_KEYS = 1000
BROKEN = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
"""What a rival's malformed files may raise."""
MOST_VALUES = 3_000_000_000
"""Random values that the check with random keys draws; of very many classes it takes fewer keys."""
ORDINARY = 500
"""Images that a judge calibrates a suspect on."""


class CompetingClaim(NamedTuple):
    """Another owner's claim about the same suspect, and the two models that were registered, mine first."""

    certificate: Path
    models: tuple[Path, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePolicy:
    """What a judge brings to a claim.

    Attributes:
        pinned: the claimant's public key (PEM), from a source that she trusts; None says whose key it is only.
        authorities: certificates (PEM) of the time-stamp authorities that she trusts.
        independents: models of hers that were trained without the key; one that reaches the bar voids the claim, and
            a guard counts only beside them.
        registered: the model that the claimant registered; a guard's log is checked with it.
        rival: another owner's claim about the same suspect, to be settled against this one.
        earlier: claims and registrations that the same owner signed, and judgements that she signed herself. What
            they opened about another suspect proves nothing any more.
        suspect_since: before this time the suspect did not exist; a guard's log that was sealed earlier counts.
        ordinary: a data set of hers with the registered classes. The suspect is calibrated on its test images; on the
            claimant's it is not, since he could choose a class map with them.
        isolated: read the suspect's file in a process of its own.
        torch_zip: also read zip files of `torch.save`.
        architecture: the network of the suspect, see `QueryConfig`; its code is run.
        client: settings of the client that asks an endpoint; the claimant's own are not taken, since he could choose
            them on the triggers.
    """

    pinned: Path | None = None
    authorities: Path | None = None
    independents: tuple[Path, ...] = ()
    registered: Path | None = None
    rival: CompetingClaim | None = None
    earlier: tuple[Path, ...] = ()
    suspect_since: datetime | None = None
    ordinary: Dataset | None = None
    isolated: bool = True
    torch_zip: bool = False
    architecture: str = ""
    client: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge found.

    Attributes:
        cell: the suspect, evidence and outcome as a record.
        statement: the judge's own signed statement, a DSSE envelope.
    """

    cell: Result = field(repr=False)
    statement: bytes = field(repr=False)

    @property
    def outcome(self) -> str:
        """KEY-DEPENDENT, NOT SHOWN, INCONCLUSIVE or INVALID CLAIM."""
        return str(self.cell.verdict)

    @property
    def bits(self) -> float:
        """Evidence of all marks together; 0 where the claim is invalid before any query."""
        return self.cell.bits or 0.0

    @property
    def evidence(self) -> tuple[EvidenceRecord, ...]:
        """Evidence of each mark."""
        return self.cell.evidence

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for a reader."""
        return self.cell.notes

    def save(self, path: str | Path) -> None:
        """Write the signed statement."""
        write_bytes(Path(path), self.statement)


def judge(
    certificate: str | Path,
    suspect: SuspectLike,
    policy: JudgePolicy | None = None,
    *,
    transcripts: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Judgement:
    """Re-derive all that a certificate claims, query the suspect again, and sign the judge's own statement.

    A claim whose bytes, signatures, commitments or order do not hold is INVALID CLAIM, a value and no error. A suspect
    or an independent model that cannot be run here is INCONCLUSIVE.

    Args:
        certificate: as `Claim.save` wrote it, with its material beside it.
        suspect: what to query, see `SuspectLike`; the claim is upheld only if it is about this suspect.
        policy: what the judge trusts and holds.
        transcripts: a folder of the judge's own for transcripts of endpoints; None takes one in her state folder.
            Beside the certificate only the files that it signs are read.
        progress: called with the name of the step and the fraction done.

    Raises:
        StoreError: there is no such certificate or suspect.
        ConfigError: a function, which has no identity.
    """
    if not isinstance(suspect, str | Path | nn.Module):
        raise ConfigError("judge: a function has no identity; give a module, a path or a URL")
    certificate = Path(certificate)
    timer, data, policy = Timer(), read_bytes(certificate), policy or JudgePolicy()
    identity = None if is_endpoint(suspect) else identify(Path(suspect) if isinstance(suspect, str) else suspect)
    place, seed = transcripts or private_folder(data), secrets.token_bytes(32)
    proven: VerifiedClaim | None = None
    try:
        proven = _examined(certificate, policy)
        remarks = check_earlier(proven, sha256(data), policy.earlier)
        progress("querying the suspect", 0.0)
        verdict, opened = retest(proven, suspect, policy, place, seed)
        identity = opened.identity
        cell = verdict_cell(verdict, opened, timer.seconds)
        cell = _check_subject(replace(cell, notes=(*cell.notes, *proven.notes, *remarks)), proven, identity)
        if policy.rival is not None and cell.verdict == Outcome.KEY_DEPENDENT:
            cell = _resolve_competing(cell, proven, policy.rival, suspect, policy, place)
    except (SignatureError, InconclusiveError) as error:
        inconclusive = isinstance(error, InconclusiveError)
        cell = Result(
            data="unknown",
            suspect=identity.name if identity else str(suspect),
            kind="unknown",
            verdict=str(Outcome.INCONCLUSIVE if inconclusive else Outcome.INVALID_CLAIM),
            notes=(str(error) if inconclusive else f"{certificate.name}: {error}",),
        )
    statement = _statement(cell, data, proven, identity, seed, place)
    return Judgement(cell=replace(cell, seconds=timer.seconds), statement=statement)


def private_folder(claim: bytes) -> Path:
    """Return the judge's own folder for a claim, mode 0700, made at the first call."""
    return user_folder("judge", sha256(claim).removeprefix("sha256:"))


def retest(
    proven: VerifiedClaim, where: SuspectLike, policy: JudgePolicy, place: Path, seed: bytes
) -> tuple[Verdict, Suspect]:
    """Ask a suspect, and the judge's own independent models, about an opened claim; then a thousand random keys.

    The random keys are drawn from the judge's own `seed`, which nobody can foresee.
    """
    bar = required_bits(timestamped=proven.since is not None)
    query = replace(proven.query(), isolated=policy.isolated, torch_zip=policy.torch_zip, client=policy.client)
    with ExitStack() as stack:

        def opened(suspect: SuspectLike, query: QueryConfig, network: ModelSpec | None = None) -> Suspect:
            found = stack.enter_context(open_suspect_model(suspect, query, place, network))
            return replace(found, predict=cache_batches(found.predict))

        seen: Access = "weights" if query.access == "weights" else "scores"
        network = named_network(policy.architecture, proven.registration)
        suspect, scores = opened(where, query, network), replace(query, access=seen, boundary_queries=0)
        independents = [opened(path, scores) for path in policy.independents]
        registered = _registered_model(proven, policy.registered, partial(opened, query=scores))
        ruling = rule_on_log(
            proven.keys,
            proven.log,
            proven.registration,
            registered,
            proven.panel.answers,
            [other.predict for other in independents],
            _suspect_access(proven.panel, query, suspect),
        )
        if policy.ordinary is not None:
            ordinary = ordinary_images(policy.ordinary, proven.registration)
            suspect = calibrated_suspect(proven.registration, suspect, ordinary)

        def tested(suspect: Suspect) -> Verdict:
            return ask_suspect(
                ruling.keys, proven.registration, suspect, proven.panel, query, bar=bar, discounts=ruling.discounts
            )

        verdict = tested(suspect)
        notes = [] if suspect.remote else _lucky_random_keys(ruling.keys, proven, suspect, query, seed)
        for other in independents:
            if (theirs := tested(other)).bits >= bar:
                notes.append(f"the independent model {other.identity.name} reaches {theirs.bits:.1f} bits itself")
    outcome = Outcome.INVALID_CLAIM if notes and verdict.outcome == Outcome.KEY_DEPENDENT else verdict.outcome
    if outcome == Outcome.KEY_DEPENDENT and (why := _uncalibrated(proven, suspect, policy)):
        outcome, notes = Outcome.INCONCLUSIVE, [why]
    return replace(verdict, outcome=outcome, notes=(*verdict.notes, *notes, *ruling.notes)), suspect


def ordinary_images(data: Dataset, registration: Mapping[str, Any]) -> LabelledImages:
    """Return test images of a data set with their classes in the registered order.

    Raises:
        ConfigError: its images or the names of its classes are not the registered ones.
    """
    names, shape = list(registration["classes"]), tuple(registration["shape"])
    if sorted(data.classes) != sorted(names) or data.shape != shape:
        raise ConfigError(
            f"{data.name}: has images {list(data.shape)} of {len(data.classes)} classes; calibration needs images "
            f"{list(shape)} of the {len(names)} registered classes, by the same names"
        )
    few = data.test.subset(slice(ORDINARY))
    return LabelledImages(few.pixels, torch.tensor([names.index(name) for name in data.classes])[few.labels])


def _uncalibrated(proven: VerifiedClaim, suspect: Suspect, policy: JudgePolicy) -> str:
    """Say why a verdict through a class map would be a false word; empty where there is no reason."""
    if proven.content.test.calibrate and policy.ordinary is None:
        return "the claimant calibrated the suspect; bring labelled images of your own (--ordinary)"
    classes = len(proven.registration["classes"])
    if suspect.accuracy is not None and suspect.accuracy < CHANCE / classes:
        return f"the suspect knows {suspect.accuracy:.1%} of ordinary images through the class map found on them"
    return ""


def _registered_model(
    proven: VerifiedClaim, path: Path | None, opened: Callable[[SuspectLike], Suspect]
) -> Predict | None:
    """Open the model that the claimant registered, where the judge has it and a guard's log is to be checked."""
    if path is None or proven.log is None:
        return None
    if identify(path).digest != proven.model:
        raise SignatureError(f"{path}: is not the model that was registered with this key")
    return opened(path).predict


def _examined(certificate: Path, policy: JudgePolicy, *, rival: bool = False) -> VerifiedClaim:
    return verify_certificate(
        read_bytes(certificate),
        certificate.with_suffix(".safetensors"),
        pinned=None if rival else policy.pinned,
        authorities=policy.authorities,
        suspect_since=policy.suspect_since,
    )


def _lucky_random_keys(
    keys: Mapping[str, Key], proven: VerifiedClaim, suspect: Suspect, query: QueryConfig, seed: bytes
) -> list[str]:
    """Say of which mark random keys do too well on this suspect: its test would not be what it says."""
    stream = np.random.default_rng(list(seed))
    return [
        f"{name}: too many of {RANDOM_KEYS:,} random keys look as if the suspect had met them"
        for name, key in keys.items()
        if (found := _random_keys(key, proven.panel, suspect, query, stream)) is not None and null.too_many(found)
    ]


def _random_keys(
    key: Key, panel: ReferenceModels, suspect: Suspect, query: QueryConfig, stream: np.random.Generator
) -> null.Logs | None:
    predict, answers, draws = suspect.predict, panel.answers, RANDOM_KEYS
    access = _suspect_access(panel, query, suspect)
    if isinstance(key, LabelKey):
        labels, scores, _ = query_wrong_classes(key, predict, access)
        if scores is None:
            return null.label_null(key, labels, draws, stream)
        return null.rank_null(key, wrong_class_residuals(key, scores, answers), draws, stream)
    if isinstance(key, PreferenceKey):
        return null.preference_null(
            preference_residuals(key, query_preferences(key, predict, access).preferences, answers), draws, stream
        )
    if isinstance(key, HalfKey):
        return null.half_null(
            key, correct_answers(key, query_labels(predict, key.pixels[: access.budget])), draws, stream
        )
    if isinstance(key, WeightKey):
        tensor = suspect.weights(key.weight, key.shape) if suspect.weights else None
        return None if tensor is None else null.weight_null(key, read_bits(key, tensor), draws, stream)
    if isinstance(key, DirectionKey):
        estimate = estimate_direction(key, predict, answers, access)
        draws = max(100, min(RANDOM_KEYS, MOST_VALUES // key.direction.numel()))
        return estimate and null.direction_null(key, estimate.v, draws, stream)
    return None


def _suspect_access(panel: ReferenceModels, query: QueryConfig, suspect: Suspect) -> SuspectAccess:
    return SuspectAccess(
        query.access,
        query.queries(remote=suspect.remote),
        suspect.weights,
        panel.boundary_search_for(query.boundary_queries),
    )


def _check_subject(cell: Result, proven: VerifiedClaim, identity: Identity) -> Result:
    """A claim is upheld for its own subject only: these weights, or this address."""
    if identity.digest in proven.claim.subject.values():
        return cell
    note = f"the claim is about {', '.join(proven.claim.subject)}, other weights than these"
    upheld = cell.verdict == Outcome.KEY_DEPENDENT
    return replace(cell, verdict=Outcome.INVALID_CLAIM.value if upheld else cell.verdict, notes=(*cell.notes, note))


def _resolve_competing(
    cell: Result, proven: VerifiedClaim, rival: CompetingClaim, where: SuspectLike, policy: JudgePolicy, place: Path
) -> Result:
    """Hear the rival, and say which of two marks was there first.

    A rival's files that do not hold, or a model of his that cannot be asked, say nothing against the claim.
    """
    alone = replace(policy, independents=(), registered=None)

    def carries(side: VerifiedClaim, model: SuspectLike) -> bool:
        try:
            return retest(side, model, alone, place, secrets.token_bytes(32))[0].outcome == Outcome.KEY_DEPENDENT
        except (Error, *BROKEN):
            return False

    try:
        theirs = _examined(rival.certificate, policy, rival=True)
    except (Error, *BROKEN) as error:
        return replace(cell, notes=(*cell.notes, f"the rival's claim does not hold: {' '.join(str(error).split())}"))
    if not carries(theirs, where):
        return replace(cell, notes=(*cell.notes, "the rival's claim about this suspect does not hold"))
    outcome, note = resolve_competing_claims(proven, theirs, rival.models, carries)
    return replace(cell, verdict=str(outcome), notes=(*cell.notes, note))


def _statement(
    cell: Result, claim: bytes, proven: VerifiedClaim | None, asked: Identity | None, seed: bytes, place: Path
) -> bytes:
    """Return the judge's signed statement; its subject is the claim's, not the suspect that was asked."""
    found = plain_strings({name: value for name, value in to_json(cell).items() if name not in ("seconds", "seed")})
    predicate = {
        "wootz": __version__,
        "claim": sha256(claim),
        "opened": commitments(proven) if proven else {},
        "asked": {asked.name: asked.digest} if asked else {},
        "seed": seed.hex(),
        "transcripts": [file_digest(path) for path in sorted(place.glob("transcript-*.jsonl"))],
        "found": found,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    subject = dict(proven.claim.subject) if proven else {}
    return sign_statement(signing_key(), subject, JUDGEMENT, predicate)
