"""Re-check a claim without trusting who wrote it: derive everything again, ask the suspect anew, sign what was seen."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs
import torch

from wootz import __version__
from wootz.data import Dataset
from wootz.endpoints import Identity
from wootz.errors import ConfigError, Error, SignatureError, StoreError
from wootz.ownership import (
    DirectionKey,
    HalfKey,
    Key,
    LabelKey,
    OrderKey,
    WeightKey,
    sign_statement,
    signing_key,
)
from wootz.records import Cell, to_json
from wootz.stages.claim import plain_strings
from wootz.stages.dispute import settle
from wootz.stages.earlier import JUDGEMENT, check_earlier, commitments
from wootz.stages.examine import Proven, examine
from wootz.stages.guard_log import rule_on_log
from wootz.stages.panel import Panel
from wootz.stages.run import Clock
from wootz.stages.suspects import Asking, Suspect, Where, identify, is_endpoint, opened_suspect
from wootz.stages.verify import ask_suspect, calibrated_suspect, verdict_cell
from wootz.store import file_digest, read_bytes, sha256, write_bytes
from wootz.types import Access, Predict, Tell
from wootz.verify import Verdict, bar_of, null, remembered
from wootz.verify.answers import labels_of
from wootz.verify.early import Decoys
from wootz.verify.evidence import bits_read, right_answers
from wootz.verify.leaning import leaning
from wootz.verify.orders import leanings, unforeseen
from wootz.verify.reach import Reach
from wootz.verify.verdict import CHANCE
from wootz.verify.wrong_classes import opinions, unforeseen_opinions

RANDOM_KEYS = 1000
BROKEN = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
"""What a rival's malformed files may raise."""
MOST_VALUES = 3_000_000_000
"""Random values that the check with random keys draws; of very many classes it takes fewer keys."""
ORDINARY = 500
"""Images that a judge calibrates a suspect on."""


class Rival(NamedTuple):
    """Another owner's claim about the same suspect, and the two models that were registered, mine first."""

    certificate: Path
    models: tuple[Path, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
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
        client: settings of the client that asks an endpoint; the claimant's own are not taken, since he could choose
            them on the triggers.
    """

    pinned: Path | None = None
    authorities: Path | None = None
    independents: tuple[Path, ...] = ()
    registered: Path | None = None
    rival: Rival | None = None
    earlier: tuple[Path, ...] = ()
    suspect_since: datetime | None = None
    ordinary: Dataset | None = None
    isolated: bool = True
    torch_zip: bool = False
    client: tuple[str, ...] = ()


def judge_claim(
    certificate: Path,
    where: Where,
    bench: Bench | None = None,
    *,
    out: Path | None = None,
    place: Path | None = None,
    tell: Tell = lambda *_: None,
) -> Cell:
    """Re-derive all that a certificate claims, ask the suspect anew, and sign the judge's own statement.

    A claim whose bytes, signatures, commitments or order do not hold is INVALID CLAIM, a value and no error.

    Args:
        certificate: as `claim_suspect` wrote it, its material beside it.
        where: whom to ask, a path or a URL; the claim must be about it to be upheld.
        bench: what the judge trusts and holds.
        out: where her signed statement goes; None writes none.
        place: a folder of her own for transcripts of endpoints; by default one in her state folder. Nothing beside the
            certificate is read but the files that it signs.
        tell: told what is going on.

    Raises:
        StoreError: there is no such certificate or suspect.
    """
    time, data, bench = Clock(), read_bytes(certificate), bench or Bench()
    identity = None if is_endpoint(where) else identify(Path(where))
    place, seed = place or private_folder(data), secrets.token_bytes(32)
    proven: Proven | None = None
    try:
        proven = _examined(certificate, bench)
        remarks = check_earlier(proven, sha256(data), bench.earlier)
        tell("asking the suspect", 0.0)
        verdict, suspect = hear(proven, where, bench, place, seed)
        identity = suspect.identity
        cell = verdict_cell(verdict, suspect, time.seconds)
        cell = _about_whom(replace(cell, notes=(*cell.notes, *proven.notes, *remarks)), proven, identity)
        if bench.rival is not None and cell.verdict == "KEY-DEPENDENT":
            cell = _settled(cell, proven, bench.rival, where, bench, place)
    except SignatureError as error:
        name = identity.name if identity else str(where)
        cell = Cell(
            data="unknown",
            suspect=name,
            kind="unknown",
            verdict="INVALID CLAIM",
            notes=(f"{certificate.name}: {error}",),
        )
    if out is not None:
        _sign(out, cell, data, proven, identity, seed, place)
    return replace(cell, seconds=time.seconds)


def private_folder(claim: bytes) -> Path:
    """Return the judge's own folder for a claim, mode 0700, made at the first call."""
    place = Path(platformdirs.user_state_dir("wootz")) / "judge" / sha256(claim).removeprefix("sha256:")
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.chmod(0o700)
    except OSError as error:
        raise StoreError(
            f"{place}: cannot be made ({error.strerror}); set $XDG_STATE_HOME to a folder of yours"
        ) from error
    return place


def hear(proven: Proven, where: Where, bench: Bench, place: Path, seed: bytes) -> tuple[Verdict, Suspect]:
    """Ask a suspect, and the judge's own independent models, about an opened claim; then a thousand random keys.

    The random keys are drawn from the judge's own `seed`, which nobody can foresee.
    """
    bar = bar_of(stamped=proven.since is not None)
    asking = replace(proven.asking(), isolated=bench.isolated, torch_zip=bench.torch_zip, client=bench.client)
    with ExitStack() as stack:

        def opened(suspect: Where, asking: Asking) -> Suspect:
            found = stack.enter_context(opened_suspect(suspect, asking, place))
            return replace(found, predict=remembered(found.predict))

        seen: Access = "weights" if asking.access == "weights" else "scores"
        suspect, scores = opened(where, asking), replace(asking, access=seen, walks=0)
        independents = [opened(path, scores) for path in bench.independents]
        registered = _registered_model(proven, bench.registered, partial(opened, asking=scores))
        ruling = rule_on_log(
            proven.keys, proven.log, proven.registration, registered, proven.panel.answers,
            [other.predict for other in independents], _reach(proven.panel, asking, suspect),
        )  # fmt: skip
        if bench.ordinary is not None:
            ordinary = ordinary_images(bench.ordinary, proven.registration)
            suspect = calibrated_suspect(proven.registration, suspect, ordinary)

        def tested(suspect: Suspect) -> Verdict:
            return ask_suspect(
                ruling.keys, proven.registration, suspect, proven.panel, asking, bar=bar, discounts=ruling.discounts
            )

        verdict = tested(suspect)
        notes = [] if suspect.remote else _lucky_strangers(ruling.keys, proven, suspect, asking, seed)
        for other in independents:
            if (theirs := tested(other)).bits >= bar:
                notes.append(f"the independent model {other.identity.name} reaches {theirs.bits:.1f} bits itself")
    word = "INVALID CLAIM" if notes and verdict.word == "KEY-DEPENDENT" else verdict.word
    if word == "KEY-DEPENDENT" and (why := _uncalibrated(proven, suspect, bench)):
        word, notes = "INCONCLUSIVE", [why]
    return replace(verdict, word=word, notes=(*verdict.notes, *notes, *ruling.notes)), suspect


def ordinary_images(data: Dataset, registration: Mapping[str, Any]) -> Decoys:
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
    few = data.test.take(slice(ORDINARY))
    return Decoys(few.pixels, torch.tensor([names.index(name) for name in data.classes])[few.labels])


def _uncalibrated(proven: Proven, suspect: Suspect, bench: Bench) -> str:
    """Say why a verdict through a class map would be a false word; empty where there is no reason."""
    if proven.content.test.calibrate and bench.ordinary is None:
        return "the claimant calibrated the suspect; bring labelled images of your own (--ordinary)"
    classes = len(proven.registration["classes"])
    if suspect.accuracy is not None and suspect.accuracy < CHANCE / classes:
        return f"the suspect knows {suspect.accuracy:.1%} of ordinary images through the class map found on them"
    return ""


def _registered_model(proven: Proven, path: Path | None, opened: Callable[[Where], Suspect]) -> Predict | None:
    """Open the model that the claimant registered, where the judge has it and a guard's log is to be checked."""
    if path is None or proven.log is None:
        return None
    if identify(path).digest != proven.model:
        raise SignatureError(f"{path}: is not the model that was registered with this key")
    return opened(path).predict


def _examined(certificate: Path, bench: Bench, *, rival: bool = False) -> Proven:
    return examine(
        read_bytes(certificate), certificate.with_suffix(".safetensors"), pinned=None if rival else bench.pinned,
        authorities=bench.authorities, suspect_since=bench.suspect_since,
    )  # fmt: skip


def _lucky_strangers(
    keys: Mapping[str, Key], proven: Proven, suspect: Suspect, asking: Asking, seed: bytes
) -> list[str]:
    """Say of which mark random keys do too well on this suspect: its test would not be what it says."""
    stream = np.random.default_rng(list(seed))
    return [
        f"{name}: too many of {RANDOM_KEYS:,} random keys look as if the suspect had met them"
        for name, key in keys.items()
        if (found := _random_keys(key, proven.panel, suspect, asking, stream)) is not None and null.too_many(found)
    ]


def _random_keys(
    key: Key, panel: Panel, suspect: Suspect, asking: Asking, stream: np.random.Generator
) -> null.Logs | None:
    predict, answers, draws = suspect.predict, panel.answers, RANDOM_KEYS
    reach = _reach(panel, asking, suspect)
    if isinstance(key, LabelKey):
        said, wrong, _ = opinions(key, predict, reach)
        if wrong is None:
            return null.label_null(key, said, draws, stream)
        return null.places_null(key, unforeseen_opinions(key, wrong, answers), draws, stream)
    if isinstance(key, OrderKey):
        return null.order_null(unforeseen(key, leanings(key, predict, reach).far, answers), draws, stream)
    if isinstance(key, HalfKey):
        return null.half_null(key, right_answers(key, labels_of(predict, key.pixels[: reach.budget])), draws, stream)
    if isinstance(key, WeightKey):
        tensor = suspect.weights(key.weight, key.shape) if suspect.weights else None
        return None if tensor is None else null.weight_null(key, bits_read(key, tensor), draws, stream)
    if isinstance(key, DirectionKey):
        found = leaning(key, predict, answers, reach)
        draws = max(100, min(RANDOM_KEYS, MOST_VALUES // key.direction.numel()))
        return found and null.direction_null(key, found.v, draws, stream)
    return None


def _reach(panel: Panel, asking: Asking, suspect: Suspect) -> Reach:
    return Reach(
        asking.access, asking.queries(remote=suspect.remote), suspect.weights, panel.ways_for(asking.walks)
    )  # fmt: skip


def _about_whom(cell: Cell, proven: Proven, identity: Identity) -> Cell:
    """A claim is upheld for its own subject only: these weights, or this address."""
    if identity.digest in proven.claim.subject.values():
        return cell
    note = f"the claim is about {', '.join(proven.claim.subject)}, other weights than these"
    upheld = cell.verdict == "KEY-DEPENDENT"
    return replace(cell, verdict="INVALID CLAIM" if upheld else cell.verdict, notes=(*cell.notes, note))


def _settled(cell: Cell, proven: Proven, rival: Rival, where: Where, bench: Bench, place: Path) -> Cell:
    """Hear the rival, and say which of two marks was there first.

    A rival's files that do not hold, or a model of his that cannot be asked, say nothing against the claim.
    """
    alone = replace(bench, independents=(), registered=None)

    def carries(side: Proven, model: Where) -> bool:
        try:
            return hear(side, model, alone, place, secrets.token_bytes(32))[0].word == "KEY-DEPENDENT"
        except (Error, *BROKEN):
            return False

    try:
        theirs = _examined(rival.certificate, bench, rival=True)
    except (Error, *BROKEN) as error:
        return replace(cell, notes=(*cell.notes, f"the rival's claim does not hold: {' '.join(str(error).split())}"))
    if not carries(theirs, where):
        return replace(cell, notes=(*cell.notes, "the rival's claim about this suspect does not hold"))
    word, note = settle(proven, theirs, rival.models, carries)
    return replace(cell, verdict=word, notes=(*cell.notes, note))


def _sign(
    out: Path, cell: Cell, claim: bytes, proven: Proven | None, asked: Identity | None, seed: bytes, place: Path
) -> None:
    """Write the judge's statement; its subject is the claim's, not the suspect that was asked."""
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
    write_bytes(out, sign_statement(signing_key(), subject, JUDGEMENT, predicate))
