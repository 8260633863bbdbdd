"""Two owners, one suspect: whose model carries the other's mark?

Someone who takes a marked model and adds a mark of his own has a model that carries both; the first owner's carries
one. A rival's evidence says nothing else about a claim: a mark that was added to the suspect later, or counterfeit
evidence of one, does not make the claim's own evidence false. So a claim that holds is refuted only where the model
that its owner registered carries the rival's mark while the rival's registered model does not carry the claimant's.
Times are reported and never decide.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wootz.errors import SignatureError
from wootz.statistics import Outcome
from wootz.workflows.certificate import VerifiedClaim
from wootz.workflows.suspects import identify


def resolve_competing_claims(
    mine: VerifiedClaim,
    theirs: VerifiedClaim,
    models: tuple[Path, Path],
    carries: Callable[[VerifiedClaim, Path], bool],
) -> tuple[Outcome, str]:
    """Return the outcome for `mine`, and why, if both claims hold for the suspect.

    Args:
        mine: the claim that is judged.
        theirs: the rival's.
        models: the models that the two registered, mine first.
        carries: whether a model shows the mark of a claim.

    Raises:
        SignatureError: my model is not the one that was registered, or does not carry its own mark.
    """
    _check_model(mine, models[0], carries)
    try:
        _check_model(theirs, models[1], carries)
    except SignatureError as error:
        return Outcome.KEY_DEPENDENT, f"the rival's claim is not heard: {error}"
    ours_in_theirs, theirs_in_ours = carries(mine, models[1]), carries(theirs, models[0])
    if ours_in_theirs and not theirs_in_ours:
        return Outcome.KEY_DEPENDENT, "the rival's own model carries this mark, and this owner's model not the rival's"
    if theirs_in_ours and not ours_in_theirs:
        return (
            Outcome.INVALID_CLAIM,
            "this owner's own model carries the rival's mark, and the rival's model not this one",
        )
    which = "both models carry both marks" if ours_in_theirs else "neither model carries the other's mark"
    return Outcome.KEY_DEPENDENT, (
        f"the suspect carries both marks, and {which}: the models do not show which owner was first. "
        f"This key and model: {_times(mine)}. The rival's: {_times(theirs)}"
    )


def _check_model(side: VerifiedClaim, model: Path, carries: Callable[[VerifiedClaim, Path], bool]) -> None:
    """Raise SignatureError unless this is the registered model and it carries the mark that it was registered with."""
    if identify(model).digest != side.model:
        raise SignatureError(f"{model}: is not the model that {side.claim.signer[:16]}... registered")
    if not carries(side, model):
        raise SignatureError(f"{model}: does not carry the mark that {side.claim.signer[:16]}... registered it with")


def _times(side: VerifiedClaim) -> str:
    named = {"key": side.since, "model": side.registered}
    return ", ".join(
        f"{name} no later than {when.isoformat(timespec='seconds')}" if when else f"{name} at no trusted time"
        for name, when in named.items()
    )
