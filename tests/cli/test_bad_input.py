"""Bad data and bad run folders, through the command line: one line, exit code 2, little memory."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bad_data import BAD_DATA
from bad_runs import BAD_RUNS
from commands import assert_usage_error
from wootz.cli.app import main

_MEMORY = 1 << 30
PANEL = ("panel.robust_epochs=1", "panel.plain_epochs=1")


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """Let the process allocate 1 GiB more than it has, so that what is not checked before it is expanded fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.timeout(30)  # a pipe that is opened never ends
@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(wootz, tmp_path: Path, case: str) -> None:
    make, reason = BAD_DATA[case]
    (tmp_path / "in").mkdir()
    said = wootz("protect", "--data", make(tmp_path / "in"), "--marks", "none", "--eps", "0.1", "--out", tmp_path / "r")
    assert_usage_error(said, str(tmp_path / "in") if "must be at least 8" not in reason else "", reason)
    assert not (tmp_path / "r/model.safetensors").exists()


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two epochs by the command line, with its checkpoint."""
    place = tmp_path_factory.mktemp("small")
    settings = ["recipe.epochs=2", "recipe.steps=1", "small_cnn.width=8", "triggers.count=64", *PANEL]
    words = [word for setting in settings for word in ("--set", setting)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WOOTZ_OWNER_KEY", str(place / "owner.key"))
        patch.setattr(
            "sys.argv", ["wootz", "protect", "--data", "mnist-5k", "-n", "9", "--out", str(place / "r"), *words]
        )
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return place / "r"


def contents(run: Path) -> dict[Path, bytes]:
    """Return the bytes of each file of a run folder but its lock, which names who held it last."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(run): path.read_bytes() for path in files}


@pytest.mark.timeout(60)  # a pipe that is opened never ends
@pytest.mark.parametrize(
    ("case", "command"), [(name, command) for name in BAD_RUNS for command in BAD_RUNS[name].commands]
)
def test_bad_runs(
    wootz, monkeypatch: pytest.MonkeyPatch, small_run: Path, tmp_path: Path, case: str, command: str
) -> None:
    bad, run = BAD_RUNS[case], tmp_path / "r"
    monkeypatch.setenv("WOOTZ_OWNER_KEY", str(small_run.with_name("owner.key")))
    shutil.copytree(small_run, run)
    bad.damage(run / bad.file)
    if command == "protect":  # the finished model goes, so that training goes on from the checkpoint
        (run / "model.safetensors").unlink()
    before = contents(run)
    words = {"verify": [run, small_run], "protect": ["--out", run, "--resume", "-n", "9"], "evaluate": [run, "-n", "9"]}
    assert_usage_error(wootz(command, *words.get(command, [run])), str(run), bad.reason)
    assert contents(run) == before
