"""Test a suspect with the keys of an owner."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast, get_args

from torch import nn

from wootz.errors import ConfigError, InconclusiveError, StoreError
from wootz.keys import AnswerKey, DirectionKey, Key
from wootz.models import depends_on_batch
from wootz.records import EvidenceRecord, Result, decimal_p
from wootz.statistics import Verdict, verify
from wootz.statistics.calibration import detect_input_format, with_input_format
from wootz.statistics.queries import LabelledImages
from wootz.types import THRESHOLD_BITS, Kind, Outcome, Progress
from wootz.workflows.guard_log import with_guard, with_log, without_guard
from wootz.workflows.reference_models import ReferenceModels
from wootz.workflows.run import Timer
from wootz.workflows.suspects import (
    QueryConfig,
    Suspect,
    SuspectLike,
    fitting,
    named_network,
    open_suspect_model,
    suspect_without_answers,
)

if TYPE_CHECKING:
    from wootz.workflows.owner import Owner

_ALONE = 8
"""Number of images that a suspect is asked for together and one by one."""


def verify_suspect(
    owner: Owner,
    suspect: SuspectLike,
    query: QueryConfig | None = None,
    *,
    threshold_bits: float = THRESHOLD_BITS,
    guard_log: Path | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[Verdict, Suspect]:
    """Test a suspect with every key of its alleged owner.

    Args:
        owner: the keys and reference models.
        suspect: what is tested, see `SuspectLike`.
        query: how it is queried.
        threshold_bits: bits of evidence for the outcome KEY-DEPENDENT.
        guard_log: log of the guard, such as an extraction through it leaves; None takes the one in the run folder.
        progress: called with the name of the step and the fraction done.

    Returns:
        The verdict, and the suspect as it was queried. The outcome is INCONCLUSIVE for a suspect that could not be run
        here, with the reason as a note.

    Raises:
        ConfigError: a log, and no guard that wrote it.
        ModelError: the suspect takes images of another shape, or has another number of classes.
    """
    query, keys = query or QueryConfig(), _tested_keys(owner, guard_log)
    progress("querying the suspect", 0.0)
    try:
        with ExitStack() as stack:
            place = owner.folder / "transcripts" if owner.folder else Path(stack.enter_context(TemporaryDirectory()))
            network = named_network(query.architecture, owner.keys.registration, owner.folder)
            opened = stack.enter_context(open_suspect_model(suspect, query, place, network))
            return _tested(owner, keys, opened, query, threshold_bits), opened
    except InconclusiveError as error:
        verdict = Verdict(
            outcome=Outcome.INCONCLUSIVE,
            bits=0.0,
            evidence=(),
            access=query.access,
            bar=threshold_bits,
            notes=(str(error),),
        )
        return verdict, suspect_without_answers(Path(str(suspect)))


def verify_open_suspect(owner: Owner, suspect: Suspect, query: QueryConfig, *, threshold_bits: float) -> Verdict:
    """Do what `verify_suspect` does, on a suspect that is open."""
    return _tested(owner, _tested_keys(owner, None), suspect, query, threshold_bits)


def _tested_keys(owner: Owner, guard_log: Path | None) -> Mapping[str, Key]:
    """Return the keys that can be tested: the guard's with its log, if there is one."""
    keys = owner.keys.by_mark
    if guard_log is not None:
        return _with_named_log(keys, guard_log)
    return with_guard(keys, owner.folder) if owner.folder is not None else without_guard(keys)


def _tested(owner: Owner, keys: Mapping[str, Key], suspect: Suspect, query: QueryConfig, bar: float) -> Verdict:
    registration = owner.keys.registration
    suspect = own_calibration(keys, registration, suspect, query.calibrate)
    verdict = ask_suspect(keys, registration, suspect, owner.reference_models, query, bar=bar)
    left_out = (
        f"{name}: left out, no log of keyed answers is there" for name in owner.keys.by_mark if name not in keys
    )
    return replace(verdict, notes=(*verdict.notes, *left_out))


def verify_own_model(owner: Owner, model: nn.Module | None = None) -> Verdict | None:
    """Test the owner's model with every mark that a model carries; None without one, as with `guard` alone.

    `model` is tested instead where it is given, such as the model before it was marked.
    """
    registration, keys = owner.keys.registration, without_guard(owner.keys.by_mark)
    if not keys:
        return None
    accesses = registration["options"]["accesses"]
    query = QueryConfig(access="weights" if "weights" in accesses else "scores", isolated=False)
    with open_suspect_model(owner.model if model is None else model, query, Path()) as suspect:
        return ask_suspect(keys, registration, suspect, owner.reference_models, query, bar=THRESHOLD_BITS)


def verify_cell(owner: Owner, suspect: SuspectLike, query: QueryConfig | None = None, **options: Any) -> Result:
    """Do what `verify_suspect` does, and return the verdict as a record."""
    timer = Timer()
    verdict, opened = verify_suspect(owner, suspect, query, **options)
    return verdict_cell(verdict, opened, timer.seconds)


def _with_named_log(keys: Mapping[str, Key], log: Path) -> dict[str, Key]:
    if not any(isinstance(key, AnswerKey) for key in keys.values()):
        raise ConfigError(f"{log}: this run has no guard, so this is not the log of one")
    if not log.is_file():
        raise StoreError(f"{log}: no such file; give the log of the guard")
    return with_log(keys, log)


def ask_suspect(
    keys: Mapping[str, Key],
    registration: Mapping[str, Any],
    suspect: Suspect,
    panel: ReferenceModels,
    query: QueryConfig,
    *,
    bar: float,
    discounts: Mapping[str, float] | None = None,
) -> Verdict:
    """Check that an open suspect takes what was registered, and test it.

    Args:
        keys: by mark.
        registration: what they were drawn after.
        suspect: see `calibrated_suspect` for one that wants other images or numbers its classes differently.
        panel: independent models.
        query: how it is asked.
        bar: bits that a verdict needs.
        discounts: by mark, bits that come off its evidence.

    Raises:
        ModelError: the suspect takes other images, or knows other classes.
    """
    suspect = fitting(registration, suspect)
    verdict = verify(
        keys,
        suspect.predict,
        panel=panel.answers,
        access=query.access,
        bar=bar,
        tries=query.num_tests,
        budget=query.queries(remote=suspect.remote),
        sequential=suspect.remote if query.early is None else query.early,
        weights=suspect.weights,
        boundary_search=panel.boundary_search_for(query.boundary_queries),
        discounts=discounts,
    )
    return replace(verdict, notes=(*verdict.notes, *_batch_notes(keys, suspect), *suspect.notes()))


def _batch_notes(keys: Mapping[str, Key], suspect: Suspect) -> tuple[str, ...]:
    """Return a note on a suspect with weights whose answers depend on the batch, asked for some images of a key."""
    images = [key.probes if isinstance(key, DirectionKey) else getattr(key, "pixels", None) for key in keys.values()]
    some = next((pixels for pixels in images if pixels is not None), None)
    if some is None or suspect.remote or not suspect.identity.digest:
        return ()
    dependent = depends_on_batch(suspect.predict, some[:_ALONE].float().div_(255))
    return ("the suspect answers images together otherwise than one by one (batch-dependent)",) if dependent else ()


def calibrated_suspect(registration: Mapping[str, Any], suspect: Suspect, ordinary: LabelledImages) -> Suspect:
    """Return a suspect as it wants to be asked, found on ordinary images, with a note that says how.

    A claimant who chooses these images and labels chooses a class map with them, so a judge takes her own.

    Args:
        registration: what the key was drawn after.
        suspect: the suspect as it is.
        ordinary: images uint8 [n, C, H, W] and their classes in the registered order.
    """
    channels, height, width = registration["shape"]
    shape, classes = suspect.shape or (channels, height, width), len(registration["classes"])
    known = None if suspect.num_classes is None else min(suspect.num_classes, classes)
    input_format = detect_input_format(
        suspect.predict, ordinary.pixels, ordinary.labels, shape=shape, num_classes=classes
    )
    notes = (input_format.describe(),)
    return replace(
        suspect,
        predict=with_input_format(suspect.predict, input_format),
        shape=(channels, height, width),
        num_classes=known,
        notes=lambda: (*notes, *suspect.notes()),
        accuracy=input_format.accuracy,
    )


def _own_ordinary(keys: Mapping[str, Key], count: int) -> LabelledImages:
    """Return the first probes of a key: the owner's own images for calibration."""
    key = next((key for key in keys.values() if isinstance(key, DirectionKey)), None)
    if key is None:
        raise ConfigError("--calibrate: needs the ordinary images that come with the mark 'runner-up'")
    return LabelledImages(key.probes[:count], key.probe_labels[:count])


def own_calibration(keys: Mapping[str, Key], registration: Mapping[str, Any], suspect: Suspect, count: int) -> Suspect:
    """Return the suspect calibrated on `count` of the key's own probes; as it is where `count` is 0."""
    return calibrated_suspect(registration, suspect, _own_ordinary(keys, count)) if count else suspect


def verdict_cell(verdict: Verdict, suspect: Suspect, seconds: float) -> Result:
    """Return a verdict as a cell, with what the suspect says of itself."""
    about, kind = suspect.about, suspect.about.get("kind")
    theft = about.get("theft")
    return Result(
        data=str(about.get("data", "unknown")),
        suspect=suspect.identity.name,
        kind=cast("Kind", kind) if kind in get_args(Kind) else "unknown",
        theft=None if theft is None else str(theft),
        seconds=seconds,
        seed=int(about.get("seed", 0)),
        notes=verdict.notes,
        **verdict_fields(verdict),
    )


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """Return the fields of a `Result` that a verdict fills, but for its notes."""
    return {
        "access": verdict.access,
        "evidence": records(verdict),
        "bits": round(verdict.bits, 2),
        "bar": verdict.bar,
        "verdict": verdict.outcome.value,
    }


def records(verdict: Verdict) -> tuple[EvidenceRecord, ...]:
    """Return a verdict's evidence as records."""
    return tuple(
        EvidenceRecord(
            mark=item.mark,
            p=decimal_p(item.log_p),
            bits=round(item.bits, 2),
            queries=item.queries,
            statistic=round(item.statistic, 6),
            details=item.details,
            null=item.null,
            measure=item.measure,
        )
        for item in verdict.evidence
    )
