"""`wootz judge`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wootz.cli.options import SUSPECT, Architecture, DataDir, EndpointOptions, Json, TorchZip, progress_bar
from wootz.cli.show import show_cell
from wootz.errors import ConfigError

if TYPE_CHECKING:
    from wootz.workflows.judge import CompetingClaim


EARLIEST = timezone(timedelta(hours=14))
"""Where a day begins first: a time without an offset is read there, so no younger log counts than was meant."""


def command(
    certificate: Annotated[Path, typer.Argument(help="The claim, as `wootz claim` wrote it; its images beside it.")],
    suspect: Annotated[str, typer.Argument(help=SUSPECT)],
    owner: Annotated[
        Path | None, typer.Option("--owner", help="The claimant's public key (PEM), from a source that you trust.")
    ] = None,
    authorities: Annotated[
        Path | None, typer.Option("--authorities", help="Certificates (PEM) of time-stamp authorities you trust.")
    ] = None,
    independent: Annotated[
        list[Path] | None,
        typer.Option("--independent", help="An independent model of yours, trained without this key (repeatable)."),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            "--previous-claim",
            help="A claim or registration signed by the same owner, or a judgement of yours; key parts that it "
            "revealed about another suspect no longer count (repeatable).",
        ),
    ] = None,
    suspect_since: Annotated[
        str | None,
        typer.Option("--suspect-since", help="The suspect did not exist before this (ISO 8601): a guard counts."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="A rival's claim about the same suspect; needs both --registered-model."),
    ] = None,
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--registered-model",
            help="The model that the claimant registered (checks a guard's log); with --against, the rival's second.",
        ),
    ] = None,
    ordinary: Annotated[
        str | None,
        typer.Option("--ordinary", help="Labelled images of yours (data set, .npz, folder) for calibration."),
    ] = None,
    data_dir: DataDir = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where your own signed statement goes (.json).")] = None,
    allow_torch_zip: TorchZip = False,
    architecture: Architecture = "",
    client: EndpointOptions = None,
    as_json: Json = False,
) -> None:
    """Re-derive all that a claim says, ask the suspect anew, and say what holds.

    Exit code 0 KEY-DEPENDENT, 1 NOT SHOWN, 3 INCONCLUSIVE, 4 INVALID CLAIM.
    """
    from wootz.data import load
    from wootz.statistics import EXIT_CODES, Outcome
    from wootz.workflows.judge import JudgePolicy, judge

    policy = JudgePolicy(
        pinned=owner,
        authorities=authorities,
        independents=tuple(independent or ()),
        earlier=tuple(earlier or ()),
        registered=models[0] if models else None,
        rival=_rival(against, models or []),
        suspect_since=_time(suspect_since),
        ordinary=None if ordinary is None else load(ordinary, data_dir),
        torch_zip=allow_torch_zip,
        architecture=architecture,
        client=tuple(client or ()),
    )
    with progress_bar() as progress:
        judgement = judge(certificate, suspect, policy, progress=progress)
        if out is not None:
            judgement.save(out)
    show_cell(judgement.cell, as_json=as_json)
    raise typer.Exit(EXIT_CODES[Outcome(judgement.outcome)])


def _rival(against: Path | None, models: list[Path]) -> CompetingClaim | None:
    from wootz.workflows.judge import CompetingClaim

    if against is None:
        if len(models) > 1:
            raise ConfigError(
                f"--registered-model: {len(models)} given; without --against it is the claimant's registered model"
            )
        return None
    if len(models) != 2:
        raise ConfigError(
            f"--against: needs the two registered models, --registered-model MINE --registered-model THEIRS "
            f"({len(models)} given)"
        )
    return CompetingClaim(against, (models[0], models[1]))


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--suspect-since {text}: must be a time such as 2026-11-25 or 2026-11-25T12:00+01:00"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=EARLIEST)
