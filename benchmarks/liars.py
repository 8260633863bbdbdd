"""Nine lies about models that never met the key, told with the real commands; prints what the judge answered.

    python benchmarks/liars.py WORK AUTHORITY ROOTS

WORK is a folder for the runs (made once, some minutes), AUTHORITY the address of an RFC 3161 authority and ROOTS its
certificate (PEM). The script runs on the version of wootz that is installed, protocol 4 (commit 83a829c) too, so that a
table can show before and after. Each lie is told by a person who owns the key and controls every file he hands over.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch

import wootz.keys as own
from wootz.data import load
from wootz.keys.answer_log import chain_hash, log_entry, log_header
from wootz.keys.keyed_answers import digest_function, keyed_answer
from wootz.models import read_model, write_model
from wootz.statistics import SuspectAccess
from wootz.statistics.pairwise_preferences import preference_residuals, query_preferences
from wootz.statistics.queries import query_labels, query_log_scores
from wootz.statistics.tails import binomial_tail, bits
from wootz.store import canonical, write_bytes
from wootz.suspects.files import predictor
from wootz.training import Recipe, train
from wootz.watermarks import hook_of
from wootz.workflows.guard_log import LOG
from wootz.workflows.owner import Owner, read_config

sign = getattr(own, "sign_statement", None) or own.signed  # type: ignore[attr-defined]
verify = getattr(own, "verify_statement", None) or own.opened  # type: ignore[attr-defined]
NEW = hasattr(own, "sign_statement")
CLAIM = "urn:wootz:claim:2" if NEW else "urn:wootz:claim:1"
SHORT = ["--data", "mnist-5k", "-n", "100"] + [
    word
    for setting in (
        "recipe.loss=n-fgsm",
        "recipe.epochs=30",
        "recipe.lr=5e-3",
        "panel.robust_epochs=4",
        "panel.plain_epochs=6",
        "small_cnn.width=16",
        "triggers.every=1",
        "triggers.batch=64",
        "triggers.recall=1",
        "triggers.weight=1",
    )
    for word in ("--set", setting)
]
FUTURE = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")


def wootz(*words: object, limit: float = 600) -> tuple[int, dict[str, Any]]:
    """Run a command; return its exit code (124: still running after `limit` seconds) and its JSON or message."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "wootz", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, {"verdict": f"still running after {limit:g} s"}
    lines = done.stdout.strip().splitlines()
    return done.returncode, json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {
        "verdict": done.stderr.strip()
    }


class Work:
    """The runs: an owner, independent models, and the authority."""

    def __init__(self, place: Path, authority: str, roots: Path) -> None:
        self.place, self.authority, self.roots = place, authority, roots
        self.owner = place / "owner"
        self.independents = [place / f"i{number}" for number in range(4)]
        place.mkdir(parents=True, exist_ok=True)
        if not (self.owner / "model.json").exists():
            wootz("protect", *SHORT, "--out", self.owner, "--tsa", authority, "--seed", 1)
        for number, out in enumerate(self.independents):
            if not (out / "model.json").exists():
                loss = ["--set", "recipe.loss=natural"] if number % 2 else []
                wootz("protect", *SHORT, *loss, "--out", out, "--marks", "none", "--seed", 20 + number)
        if not (self.owner / "registration.dsse.json").exists():
            wootz("register", self.owner, "--tsa", authority)

    def fresh(self, name: str) -> Path:
        """Return a copy of the owner's run of which nothing was revealed yet."""
        copy = self.place / "lies" / name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.owner, copy)
        (copy / "key/burnt.jsonl").unlink(missing_ok=True)
        return copy

    def judge(self, claim: Path, suspect: object, *more: object, limit: float = 600) -> tuple[int, dict[str, Any]]:
        """Run `wootz judge`; return its exit code and its JSON."""
        return wootz("judge", claim, suspect, "--authorities", self.roots, *more, "--json", limit=limit)


def one_token_many_keys(work: Work) -> str:
    """Vary the status text of the token, which nothing signs, until the labels suit an independent model."""
    run, suspect = work.fresh("token"), work.independents[0]
    owner_keys = own.read_keys(run)
    material = owner_keys.materials["triggers"]
    said = query_labels(predictor(read_model(suspect)[0]), material.tensors["pixels"])[
        : len(material.tensors["base"]) // 4
    ]
    secrets = [part.secret for part in owner_keys.openings["triggers"]]
    context = own.key_context if NEW else own.fixed_before  # type: ignore[attr-defined]
    best, distinct, chosen = -1, set(), owner_keys.token
    for number in range(20_000):
        token = with_status(owner_keys.token, f"granted {number}".encode())
        after = context(owner_keys.registration, token)
        distinct.add(after)
        labels = own.derive_key("triggers", material, 10, secrets, after).labels[: len(said)]  # type: ignore[union-attr]
        if (hits := int((labels == said).sum())) > best:
            best, chosen = hits, token
    write_bytes(run / "registration.tsr", chosen)
    (run / "registration.dsse.json").unlink()
    code, _ = wootz("register", run)
    if code:
        return f"20,000 variants give {len(distinct)} key(s); `register` with a varied token: exit {code}"
    wootz("claim", run, suspect, "--out", run / "c.json", "--access", "label", "--json")
    code, cell = work.judge(run / "c.json", suspect)
    found = {item["mark"]: item["bits"] for item in cell.get("evidence", [])}
    return (
        f"20,000 variants give {len(distinct):,} key(s); judge: exit {code}, triggers {found.get('triggers', 0)} bits"
    )


def chosen_guard_log(work: Work) -> str:
    """Log only images whose coin agrees with what two independent models answer; accuse two others.

    The images are blends of two training images about which the registered model is unsure. What counts in the test is
    what the registered panel does not explain, so that is what they are chosen by.
    """
    run = work.fresh("guard")
    owner_keys, model, data = own.read_keys(run), predictor(read_model(run)[0]), load("mnist-5k")
    key, stream = owner_keys.by_mark["guard"], torch.Generator().manual_seed(0)
    one, other = (torch.randint(len(data.train), (20_000,), generator=stream) for _ in range(2))
    shares = torch.rand(len(one), 1, 1, 1, generator=stream) * 0.4 + 0.3
    images = data.train.images()
    pixels = (255 * (shares * images[one] + (1 - shares) * images[other])).round().to(torch.uint8)
    top = query_log_scores(model, pixels).topk(2, dim=1)
    probes = query_log_scores(model, data.probes.pixels).topk(2, dim=1).values
    gap = float((probes[:, 0] - probes[:, 1]).quantile(0.15))
    rows = (top.values[:, 0] - top.values[:, 1] <= gap).nonzero().flatten()
    pixels, first, second = pixels[rows], top.indices[rows, 0], top.indices[rows, 1]
    candidates = own.PreferenceKey(
        mark="guard", num_classes=10, pixels=pixels, first=first, second=second, preferred=first < 0
    )
    helpers = [
        query_preferences(candidates, predictor(read_model(path)[0]), SuspectAccess()).preferences
        for path in work.independents[:2]
    ]
    difference = preference_residuals(
        candidates, torch.stack(helpers).mean(0), Owner.load(run).reference_models.answers
    )
    rows = difference.abs().argsort(descending=True)
    lines, known = [log_header(key, data.shape, gap)], set()
    for row, digest in zip(rows.tolist(), digest_function(key, data.shape)(pixels[rows]), strict=True):
        answer = keyed_answer(key, digest, int(first[row]), int(second[row]))  # type: ignore[arg-type]
        if digest not in known and (answer == int(second[row])) == bool(difference[row] > 0) and len(lines) <= 400:
            lines.append(log_entry(pixels[row], digest, int(first[row]), int(second[row]), answer))
            known.add(digest)
    head, text = "", b""
    for line in lines:
        head = chain_hash(head, line)
        text += canonical(line | {"chain": head}) + b"\n"
    write_bytes(run / LOG, text)
    wootz("register", run, "--tsa", work.authority)
    words = []
    for suspect in work.independents[2:]:
        (run / "key/burnt.jsonl").unlink(missing_ok=True)
        wootz("claim", run, suspect, "--out", run / "c.json", "--json")
        more = ["--suspect-since", FUTURE]
        more += ["--registered-model", run, "--independent", work.independents[5 - int(suspect.name[1])]] if NEW else []
        code, cell = work.judge(run / "c.json", suspect, *more)
        found = {item["mark"]: item["bits"] for item in cell.get("evidence", [])}
        why = [note for note in cell.get("notes", []) if "the guard does not count" in note]
        words.append(f"exit {code}, guard {found.get('guard', 'not counted')} bits {' '.join(why)}".strip())
    return f"{len(lines) - 1} lines; " + "; ".join(words)


def planted_transcript(work: Work) -> str:
    """Put a transcript of the marked model's answers beside a claim about an endpoint that serves another model."""
    run, claim = work.fresh("transcript"), work.place / "lies/planted/c.json"
    shutil.rmtree(claim.parent, ignore_errors=True)
    claim.parent.mkdir(parents=True)
    where = f"http://127.0.0.1:8955/v2/models/{run.name}"
    with serving(run, 8955):
        wootz("claim", run, where, "--out", claim, "--access", "label", "--json")
    (planted,) = claim.parent.glob("transcript-*.jsonl")
    shutil.copy(planted, claim.parent / ("-".join(planted.name.split("-")[:3]) + ".jsonl"))
    other = work.place / "lies" / "served" / run.name
    shutil.rmtree(other.parent, ignore_errors=True)
    shutil.copytree(work.independents[0], other)
    with serving(other, 8955):
        code, cell = work.judge(claim, where)
    return f"exit {code}, {cell.get('bits', 0)} bits, {cell['verdict']}"


def budget_after_the_answers(work: Work) -> str:
    """Ask everything, then claim with the budget that suits best."""
    run, suspect = work.fresh("budget"), work.independents[1]
    key = own.read_keys(run).by_mark["triggers"]
    said = query_labels(predictor(read_model(suspect)[0]), key.pixels[:128])  # type: ignore[union-attr]
    hits = (said == key.labels[:128]).cumsum(0).tolist()  # type: ignore[union-attr]
    trials = (said != key.base[:128]).cumsum(0).tolist()  # type: ignore[union-attr]
    tails = [binomial_tail(h, m, 1 / 9) for h, m in zip(hits, trials, strict=True)]
    best = tails.index(min(tails)) + 1
    code, cell = wootz("claim", run, suspect, "--out", run / "c.json", "--access", "label", "--budget", best, "--json")
    found = {item["mark"]: item["bits"] for item in cell.get("evidence", [])}
    return (
        f"triggers {bits(tails[-1]):.1f} bits by all 128, {bits(min(tails)):.1f} by the best budget; "
        f"`claim --budget {best}`: exit {code}, {found.get('triggers', cell['verdict'])}"
    )


def stocked_registration(work: Work) -> str:
    """Register a key early, embed it in a stolen model later, and name a clean model as the registered one."""
    early = work.place / "early"
    os.environ["WOOTZ_SIGNING_KEY"] = str(work.place / "thief.pem")
    if not (early / "model.json").exists():
        wootz("protect", *SHORT, "--out", early, "--tsa", work.authority, "--seed", 7, "--marks", "triggers,runner-up")
    if not (early / "registration.dsse.json").exists():
        wootz("register", early, "--tsa", work.authority)
    os.environ["WOOTZ_SIGNING_KEY"] = str(work.place / "victim.pem")
    victim = work.place / "victim"
    if not (victim / "model.json").exists():
        wootz("protect", *SHORT, "--out", victim, "--tsa", work.authority, "--seed", 8, "--marks", "triggers,runner-up")
        wootz("register", victim, "--tsa", work.authority)
    stolen = work.place / "stolen"
    if not (stolen / "model.json").exists():
        cfg, data = read_config(early), load("mnist-5k")
        heavy = replace(cfg.triggers, every=1, batch=128, recall=1.0, weight=1.0)
        settings = {"triggers": heavy, "runner-up": cfg.runner_up}
        model, spec, about = read_model(victim)
        hook = hook_of(settings, own.read_keys(early).by_mark, data, seed=1)
        recipe = Recipe(loss="natural", epochs=15, lr=1e-3)
        write_model(stolen, train(recipe, model, data.train, data.validation, seed=1, hook=hook).model, spec, about)
    for run, name in ((early, "theirs.json"), (victim, "mine.json")):
        os.environ["WOOTZ_SIGNING_KEY"] = str(work.place / ("thief.pem" if run is early else "victim.pem"))
        (run / "key/burnt.jsonl").unlink(missing_ok=True)
        wootz("claim", run, stolen, "--out", work.place / name, "--json")
    alone = work.judge(work.place / "mine.json", stolen)
    code, cell = work.judge(
        work.place / "mine.json",
        stolen,
        "--against",
        work.place / "theirs.json",
        "--registered-model",
        victim,
        "--registered-model",
        early,
    )
    return (
        f"the victim's claim alone: exit {alone[0]} ({alone[1].get('bits')} bits); "
        f"against the thief's: exit {code}, {cell['verdict']}"
    )


def voided_by_anybody(work: Work) -> str:
    """Copy the revealed secrets of a claim into a forged file about another model; show it as `--previous-claim`."""
    run = work.fresh("voided")
    wootz("claim", run, run, "--out", run / "c.json", "--json")
    honest = verify((run / "c.json").read_bytes(), CLAIM)
    liar = own.signing_key(work.place / "anybody.pem")
    write_bytes(run / "forged.json", sign(liar, {"other": "0" * 64}, CLAIM, dict(honest.predicate)))
    code, cell = work.judge(run / "c.json", run, "--previous-claim", run / "forged.json")
    return f"exit {code}, {cell['verdict']}"


def three_hundred_classes(work: Work) -> str:
    """Draw a label among 299: bytes cannot."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))"
    program = "from wootz.keys.prf import integers; print(len(integers(bytes(32), b'x', 10, 299)))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"{limit}; {program}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "still running after 60 s"
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def true_is_one(work: Work) -> str:
    """Reveal tranche `true` instead of 1, whose labels follow from another name."""
    run, suspect = work.fresh("true"), work.independents[0]
    wootz("claim", run, work.independents[1], "--out", run / "other.json", "--json")
    wootz("claim", run, suspect, "--out", run / "c.json", "--json")
    told = verify((run / "c.json").read_bytes(), CLAIM)
    predicate = json.loads(json.dumps(told.predicate))
    for entry in predicate["opened"].values():
        entry["tranche"] = True
    write_bytes(run / "c.json", sign(own.signing_key(), told.subject, CLAIM, predicate))
    code, cell = work.judge(run / "c.json", suspect)
    return f"exit {code}, {cell['verdict']}: {(cell.get('notes') or ['accepted'])[0]}"


def silent_suspect(work: Work) -> str:
    """Answer the same to everything: nothing to test must be p = 1."""
    run = work.fresh("silent")
    model, spec, about = read_model(work.independents[0])
    for tensor in model.state_dict().values():
        tensor.zero_()
    constant = work.place / "lies" / "constant"
    shutil.rmtree(constant, ignore_errors=True)
    write_model(constant, model, spec, about)
    code, cell = wootz("verify", run, constant, "--json")
    return f"exit {code}, " + ", ".join(f"{item['mark']} p = {item['p']}" for item in cell.get("evidence", []))


def with_status(response: bytes, text: bytes) -> bytes:
    """Return a time-stamp response with another PKIStatusInfo.statusString, which no signature covers."""

    def framed(tag: int, content: bytes) -> bytes:
        size = len(content)
        return bytes([tag]) + (bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 255])) + content

    start = 4 if response[1] == 0x82 else 2
    end = start + 2 + response[start + 1]
    return framed(0x30, framed(0x30, b"\x02\x01\x00" + framed(0x30, framed(0x0C, text))) + response[end:])


@contextmanager
def serving(run: Path, port: int) -> Any:
    """Serve a run while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wootz", "serve", str(run), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(15)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


LIES: tuple[Callable[[Work], str], ...] = (
    one_token_many_keys,
    chosen_guard_log,
    planted_transcript,
    budget_after_the_answers,
    stocked_registration,
    voided_by_anybody,
    three_hundred_classes,
    true_is_one,
    silent_suspect,
)


def main() -> None:
    work = Work(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    signing = os.environ.get("WOOTZ_SIGNING_KEY")
    for lie in LIES:
        if len(sys.argv) > 4 and lie.__name__ not in sys.argv[4:]:
            continue
        print(f"{lie.__name__}: {lie(work)}", flush=True)
        os.environ.pop("WOOTZ_SIGNING_KEY", None)
        os.environ |= {"WOOTZ_SIGNING_KEY": signing} if signing else {}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
