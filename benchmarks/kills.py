"""Stop each long command at every tenth of its time, start it again, and compare with the run that was not stopped.

    python benchmarks/kills.py WORK [--commands protect claim] [--tenths 1 5 9] [--signals SIGINT SIGTERM SIGKILL]

WORK is a folder for the runs, made once, and for `kills.jsonl`: one line per kill. A later call makes only the kills
that are not in the file, and every call prints the table of all of them. SIGINT goes to the whole process group, as
Ctrl-C does, SIGTERM and SIGKILL to the process of the command alone.

A kill is at fault if the command leaves a traceback, more than one line, another exit code than 130 or 143, a
temporary file (after SIGKILL: one that the second call leaves too), or a process; or if the second call, with the
option that the documents name, fails or ends with other files than the run that was not stopped. Files are compared
byte by byte, except for times (`_VOLATILE`), signatures over them, and the count and log of queries: queries whose
answers were lost are asked again, and stay counted. Of `verify` the verdict is compared, and each mark's queries; the
one image that was queried when the signal came may be without an answer.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import httpx

from wootz.__main__ import main
from wootz.data import load
from wootz.store import read_json, sha256, write_bytes

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
_VOLATILE = {
    "seconds",
    "written",
    "time",
    "signatures",
    "started",
    "cpu_seconds",
    "job_seconds",
    "jobs",
    "created",
    "queries",
    "work",
    "computed",
    "models",
}
"""Fields of JSON files that hold times, signatures over times, or counts of what a call did."""
_UNCOMPARED = re.compile(
    r"\.lock|\.build\.lock|report\.html|tmp\.(out|err)|bench\.json|errors/.*|queries\.log|owner\.key|signing\.pem|tmp/.*|ray/.*"
)
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_PATIENCE = 15.0
"""Seconds in which the processes that a command started must have ended after it."""
_PR_SET_CHILD_SUBREAPER = 36

SETTINGS = [
    word
    for setting in (
        "recipe.loss=n-fgsm",
        "recipe.lr=5e-3",
        "recipe.epochs=4",
        "panel.robust_epochs=1",
        "panel.plain_epochs=1",
        "small_cnn.width=16",
        "triggers.count=96",
        "triggers.every=1",
    )
    for word in ("--set", setting)
]
GRID = """
name = "kills"
[axes]
data = ["mnist-5k"]
mark = ["none", "order"]
theft = ["none", "independent", "prune", "8-bit"]
seed = [3]
[settings]
recipe = { steps = 1, epochs = 2, lr = 5e-3 }
panel = { robust_epochs = 1, plain_epochs = 1, width = 4, robust_steps = 1 }
small_cnn = { width = 4, hidden = 16 }
[mark.order]
marks = ["runner-up"]
settings = { runner_up = { features = 8, probes = 300 } }
[theft.8-bit]
attack = "quantize"
settings = { bits = 8 }
[[independent]]
count = 1
loss = "natural"
[measure]
images = 20
evaluations = ["apgd-ce"]
evaluation_images = 10
"""


class Done(NamedTuple):
    """How a call of a command ended."""

    code: int
    out: str
    err: str
    seconds: float
    children: list[str]


class Work:
    """The folder of all runs: the owner's, made once and copied for each call, and a server of its model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.owner = self.folder / "own"
        self.registered = self.folder / "registered/own"
        self.url = ""
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ |= {"WOOTZ_OWNER_KEY": str(self.folder / "owner.key"), "OMP_NUM_THREADS": "1"}
        os.environ["XDG_STATE_HOME"] = str(self.folder / "state")
        (self.folder / "grid.toml").write_text(GRID)
        if not (self.owner / "curve.json").exists():
            longer = [*SETTINGS, "--set", "recipe.epochs=40", "--resume"]
            self._prepare("protect", "--data", "mnist-5k", "-n", 100, "--seed", 1, "--out", self.owner, *longer)
        if not (self.registered / "registration.dsse.json").exists():
            shutil.copytree(self.owner, self.registered, dirs_exist_ok=True)
            self._prepare("register", self.registered)

    def _prepare(self, *words: object) -> None:
        subprocess.run([*_wootz(*words), "--json"], check=True, stdout=subprocess.DEVNULL)

    @contextmanager
    def server(self) -> Iterator[None]:
        """Serve the owner's model meanwhile."""
        with subprocess.Popen(
            _wootz("serve", self.owner, "--port", 0, "--json"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            try:
                SERVERS.add(process.pid)
                assert process.stdout is not None
                self.url = json.loads(process.stdout.readline())["url"]
                yield
            finally:
                process.terminate()
                SERVERS.discard(process.pid)


def _wootz(*words: object) -> list[str]:
    return [sys.executable, "-m", "wootz", *map(str, words)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command that is stopped.

    Attributes:
        words: its words, for calls in a folder of their own.
        again: the words that the documents add when it is started again.
        copies: the run folder that is copied into the folder of the call first: `own`, `registered`, or none.
        partial: files whose presence shows that the second call continues something.
        outcome: what is compared of its output, in place of the output and the files.
        call: how the command is called; by default it is run to its end.
    """

    words: Callable[[Work], list[object]]
    again: tuple[str, ...] = ()
    copies: str = ""
    partial: str = ""
    outcome: Callable[[str], Any] | None = None
    call: Callable[..., Done] | None = None


def run(words: list[object], place: Path, kill: tuple[float, signal.Signals] | None = None) -> Done:
    """Run a command in a folder; after some seconds, send it a signal."""
    with _started(words, place) as process:
        if kill and not process.ends_within(kill[0]):
            process.send(kill[1])
        process.wait()
        return process.done(children=bool(kill))


def serve(words: list[object], place: Path, kill: tuple[float, signal.Signals] | None = None) -> Done:
    """Serve, send some test images once, and stop the service by SIGTERM at the end, or by a signal earlier.

    The output is the answers, one line each, without those of a service that was killed.
    """
    answers = list[str]()
    with _started(words, place) as process:
        timer = threading.Timer(kill[0], process.send, (kill[1],)) if kill else None
        if timer:
            timer.start()
        while not process.out.read_text().endswith("\n") and not process.ends_within(0.05):
            pass
        if text := process.out.read_text():
            with suppress(httpx.TransportError), httpx.Client(timeout=60) as client:
                for request in _requests():
                    answer = client.post(json.loads(text)["url"] + "/infer", json=request)
                    answer.raise_for_status()
                    answers.append(json.dumps(answer.json()["outputs"]))
                    time.sleep(0.01)
                process.send(signal.SIGTERM)
        process.wait()
        if timer:
            timer.cancel()
        return process.done(children=bool(kill))._replace(out="\n".join(answers))


class _Process:
    """A command in a process that was forked from this one, in which the modules are loaded already."""

    def __init__(self, words: list[object], place: Path) -> None:
        (place / "tmp").mkdir(parents=True, exist_ok=True)
        self.out, self.err = place / "tmp.out", place / "tmp.err"
        for path in (self.out, self.err):
            path.write_bytes(b"")
        self._start, self.code = time.monotonic(), -1000
        self.pid = os.fork()
        if self.pid == 0:
            _be_command(words, place, self.out, self.err)

    def ends_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self._ended() and time.monotonic() < until:
            time.sleep(0.005)
        return self.code != -1000

    def _ended(self) -> bool:
        if self.code == -1000:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code, self.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - self._start
        return self.code != -1000

    def wait(self) -> None:
        while not self.ends_within(60):
            pass

    def send(self, number: signal.Signals) -> None:
        """Send a signal: SIGINT to the process group, as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number) if number == signal.SIGINT else os.kill(self.pid, number)

    def done(self, *, children: bool) -> Done:
        out, err = self.out.read_text(), self.err.read_text()
        return Done(self.code, out, err, self.seconds, _children_left() if children else [])


@contextmanager
def _started(words: list[object], place: Path) -> Iterator[_Process]:
    process = _Process(words, place)
    try:
        yield process
    finally:
        if process.code == -1000:
            process.send(signal.SIGKILL)
            process.wait()


def _be_command(words: list[object], place: Path, out: Path, err: Path) -> NoReturn:
    """Run the command line in this process, which is a fork, and end it."""
    os.setsid()
    os.chdir(place)
    os.environ["TMPDIR"], tempfile.tempdir = str(place / "tmp"), None
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    sys.argv = ["wootz", *map(str, words)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code: Any = 1
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _children_left() -> list[str]:
    """Return the commands of orphans, which this process inherits, that do not end in time; end them."""
    until = time.monotonic() + _PATIENCE
    while (orphans := _orphans()) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in orphans:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return list(orphans.values())


def _orphans() -> dict[int, str]:
    """Return the children of this process, by id, that it did not start itself."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in SERVERS:
            continue
        with suppress(OSError, IndexError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if int(parent) == os.getpid():
                if state == "Z":
                    os.waitpid(int(entry.name), os.WNOHANG)
                else:
                    found[int(entry.name)] = command[:200]
    return found


SERVERS: set[int] = set()
"""Processes that this one started and ends itself."""


def _requests() -> list[dict[str, Any]]:
    pixels = load("mnist-5k").test.pixels[:250]
    return [
        {
            "inputs": [
                {"name": "image", "datatype": "UINT8", "shape": [1, *image.shape], "data": image.flatten().tolist()}
            ]
        }
        for image in pixels
    ]


_CUT = ["-n", 50, "--json"]
_ATTACK = ["--out", "s", *_CUT]
_PROTECT = ["--data", "mnist-5k", "--seed", 1, "--out", "r", *SETTINGS, *_CUT]


def _attack(verb: str, attack: str, *settings: str) -> Command:
    words = [word for setting in settings for word in ("--set", setting)]
    return Command(
        words=lambda work: [verb, work.owner, "--attack", attack, *words, *_ATTACK],
        again=("--resume",),
        partial="s/attempt/*",
    )


def _bench(executor: str) -> Command:
    return Command(
        words=lambda work: [
            "bench",
            work.folder / "grid.toml",
            "--out",
            "g",
            "--executor",
            executor,
            "--workers",
            1,
            "--json",
        ],
        again=("--resume",),
        partial="g/models/*",
    )


def _verdict(out: str) -> Any:
    cell = json.loads(out)
    unanswered = sum(item["details"].get("asked", 0) - item["details"].get("answered", 0) for item in cell["evidence"])
    return [cell["verdict"], [(item["mark"], item["queries"]) for item in cell["evidence"]], unanswered <= 1]


COMMANDS = {
    "protect": Command(words=lambda _: ["protect", *_PROTECT], again=("--resume",), partial="r/checkpoint/*"),
    "steal jbda": _attack("steal", "jbda", "seeds=100", "doublings=5", "epochs=3"),
    "steal retrain-soft": _attack("steal", "retrain-soft", "epochs=4", "data=owner"),
    "steal dfme": _attack("steal", "dfme", "queries=20000", "batch_size=32"),
    "remove finetune": _attack("remove", "finetune", "epochs=10"),
    "remove wrk": _attack("remove", "wrk", "epochs=3", "steps=5"),
    "bench": _bench("local"),
    "bench, Ray": _bench("ray"),
    "verify over HTTP": Command(
        words=lambda work: ["verify", "own", work.url, "--all", "--json"],
        copies="own",
        partial="own/transcripts/*",
        outcome=_verdict,
    ),
    "claim": Command(
        words=lambda work: ["claim", "own", work.owner, "--out", "c.json", "--json"],
        copies="registered",
        partial="own/key/burnt.jsonl",
    ),
    "register": Command(words=lambda _: ["register", "own", "--json"], copies="own", partial="own/owner.pub"),
    "serve --guard": Command(
        words=lambda _: ["serve", "own", "--guard", "--port", 0, "--json"],
        copies="own",
        partial="own/guard/*",
        call=serve,
    ),
}


def state(place: Path, done: Done, command: Command) -> dict[str, str]:
    """Return what a call left: the digest of each file and of its output, without times."""
    if command.outcome:
        return {"": json.dumps(command.outcome(done.out)) if done.out else done.err}
    files = {"": sha256(_without_times("out.jsonl", done.out.encode()))}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.is_file() and not _UNCOMPARED.fullmatch(path.name) and not _UNCOMPARED.fullmatch(name):
            files[name] = sha256(_without_times(name, path.read_bytes()))
    return files


def _without_times(name: str, data: bytes) -> bytes:
    if name.endswith(".jsonl"):
        lines = [json.dumps(_timeless(json.loads(line)), sort_keys=True) for line in data.splitlines() if line.strip()]
        return "\n".join(sorted(lines)).encode()
    if name.endswith(".json"):
        return json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
    return data


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        if "payload" in value:  # an envelope of a signed statement
            value = value | {"payload": json.loads(base64.b64decode(value["payload"]))}
        return {name: _timeless(item) for name, item in value.items() if name not in _VOLATILE}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def fresh(work: Work, command: Command, place: Path) -> Path:
    """Return an empty folder for the calls of a command, with a copy of the run that it works on."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if command.copies:
        source = {"own": work.owner, "registered": work.registered}[command.copies]
        shutil.copytree(source, place / "own", ignore=shutil.ignore_patterns("transcripts", "guard"))
    return place


def whole_run(work: Work, name: str) -> tuple[float, dict[str, str]]:
    """Return the seconds and the state of a run that is not stopped; it is made once."""
    command, place = COMMANDS[name], work.folder / "whole" / name
    record = work.folder / "whole" / f"{name}.json"
    if not record.exists():
        done = (command.call or run)(command.words(work), fresh(work, command, place))
        if done.code:
            raise SystemExit(f"{name}: exit code {done.code}: {done.err}")
        write_bytes(record, json.dumps([done.seconds, state(place, done, command)]).encode())
    seconds, found = read_json(record)
    return seconds, found


def kill(work: Work, name: str, tenth: int, number: signal.Signals) -> dict[str, Any]:
    """Stop a command, start it again, and return what was found."""
    command = COMMANDS[name]
    seconds, expected = whole_run(work, name)
    place = fresh(work, command, work.folder / "killed")
    call, words = command.call or run, command.words(work)
    first = call(words, place, (seconds * tenth / 10, number))
    faults = []
    if "Traceback" in first.err:
        faults.append(f"traceback: {first.err[-300:]}")
    served = command.call is serve and bool(first.out)
    wanted = 0 if served and number != signal.SIGKILL else _EXIT_CODES[number]
    finished = first.code == 0 and (not served or number == signal.SIGKILL)
    if not finished and first.code != wanted:
        faults.append(f"exit code {first.code}: {first.err[-300:]}")
    if number != signal.SIGKILL and not finished and wanted and len(first.err.strip().splitlines()) != 1:
        faults.append(f"{len(first.err.strip().splitlines())} lines: {first.err[-500:]}")
    faults += [f"still runs: {child}" for child in first.children]
    temporary = [str(path.relative_to(place)) for path in place.rglob(".*.tmp") if _TEMPORARY.fullmatch(path.name)]
    temporary += [
        str(path.relative_to(place)) for path in (place / "tmp").iterdir() if "torchinductor" not in path.name
    ]
    if number != signal.SIGKILL:
        faults += [f"left {path}" for path in temporary]
    continued = bool(command.partial and any(place.glob(command.partial)))
    line = {"command": name, "tenth": tenth, "signal": number.name, "code": first.code, "finished": finished}
    line |= {"continued": continued, "temporary": len(temporary)}
    if finished:
        found = state(place, first, command)
    else:
        second = call([*words, *command.again], place)
        if second.code or "Traceback" in second.err:
            faults.append(f"started again: exit code {second.code}: {second.err[-500:]}")
        found = state(place, second, command)
        line |= {"again": round(second.seconds, 1)}
    differ = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
    faults += [f"differs: {path or 'output'}" for path in differ]
    return line | {"seconds": round(seconds, 1), "faults": faults}


def table(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Return a line per command and signal."""
    yield "| command | s | signal | kills | finished before | continued | from the beginning | faults |"
    yield "|---|--:|---|--:|--:|--:|--:|--:|"
    for name in COMMANDS:
        for number in SIGNALS:
            those = [line for line in lines if (line["command"], line["signal"]) == (name, number.name)]
            if those:
                counts = Counter(
                    "finished" if line["finished"] else "continued" if line["continued"] else "again" for line in those
                )
                numbers = [len(those), *(counts[key] for key in ("finished", "continued", "again"))]
                faulty = sum(bool(line["faults"]) for line in those)
                cells = [name, those[0]["seconds"], number.name, *numbers, faulty]
                yield f"| {' | '.join(map(str, cells))} |"


def kill_all() -> None:
    parser = argparse.ArgumentParser(description="Stop each long command at every tenth of its time.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--commands", nargs="*", choices=COMMANDS, default=[*COMMANDS])
    parser.add_argument("--tenths", nargs="*", type=int, default=[*range(1, 10)])
    parser.add_argument("--signals", nargs="*", choices=[number.name for number in SIGNALS])
    parser.add_argument("--turn", type=int, help="one signal per tenth, in turns, beginning with this one")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so do children
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    numbers = [signal.Signals[name] for name in options.signals or [number.name for number in SIGNALS]]
    work = Work(options.work)
    _requests()  # loads the data set, which forked processes share
    file = work.folder / "kills.jsonl"
    with work.server():
        for name in options.commands:
            for tenth in options.tenths:
                for number in numbers if options.turn is None else [numbers[(tenth + options.turn) % len(numbers)]]:
                    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
                    key = (name, tenth, number.name)
                    if any((line["command"], line["tenth"], line["signal"]) == key for line in lines):
                        continue
                    line = kill(work, name, tenth, number)
                    print(json.dumps(line), flush=True)
                    with file.open("a") as journal:
                        journal.write(json.dumps(line) + "\n")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    print("\n".join(table(lines)))


if __name__ == "__main__":
    kill_all()
