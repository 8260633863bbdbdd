"""Bad data and bad run folders, through the command line: one line, exit code 2, little memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from bad_data import BAD_DATA
from commands import assert_usage_error

_MEMORY = 1 << 30


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
