"""Two owners, one suspect: whose mark was there first?

Who takes a marked model and adds a mark of his own has a model that carries both; the first owner's carries one.
Where that does not decide, the earlier trusted time does (trust in order, not in words).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wootz.errors import SignatureError
from wootz.stages.examine import Proven
from wootz.stages.suspects import identify
from wootz.verify.verdict import Word


def settle(
    mine: Proven, theirs: Proven, models: tuple[Path, Path], carries: Callable[[Proven, Path], bool]
) -> tuple[Word, str]:
    """Return the word for `mine`, and why, where both claims hold for the suspect.

    Args:
        mine: the claim that is judged.
        theirs: the rival's.
        models: the models that the two registered, mine first.
        carries: whether a model shows the mark of a claim.

    Raises:
        SignatureError: a model is not the one that was registered.
    """
    for side, model in zip((mine, theirs), models, strict=True):
        if identify(model).digest != side.model:
            raise SignatureError(f"{model}: is not the model that {side.claim.signer[:16]}... registered")
    ours_in_theirs, theirs_in_ours = carries(mine, models[1]), carries(theirs, models[0])
    if ours_in_theirs and not theirs_in_ours:
        return "KEY-DEPENDENT", "the rival's own model carries this mark, and this owner's model not the rival's"
    if theirs_in_ours and not ours_in_theirs:
        return "INVALID CLAIM", "this owner's own model carries the rival's mark, and the rival's model not this one"
    told = "both models carry both marks" if ours_in_theirs else "neither model carries the other's mark"
    if mine.since is None or theirs.since is None or mine.since == theirs.since:
        return "INCONCLUSIVE", f"{told}, and no two trusted times say which was first"
    if mine.since < theirs.since:
        return "KEY-DEPENDENT", f"{told}; this one was registered first"
    return "INVALID CLAIM", f"{told}; the rival's was registered first"
