"""The two secrets of an owner: made once, whatever happens at the same time, and never lost or shown."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from wootz import store
from wootz.errors import KeyFolderError, StoreError
from wootz.keys import owner_secret, public_hex, signing_key


def signer(path: Path) -> bytes:
    return public_hex(signing_key(path)).encode()


BOTH = pytest.mark.parametrize("use", [owner_secret, signer])
Use = Callable[[Path], bytes]


@BOTH
def test_a_hundred_first_uses_at_once(tmp_path: Path, use: Use) -> None:
    barrier = Barrier(2)

    def first_use(path: Path) -> bytes:
        barrier.wait()
        return use(path)

    with ThreadPoolExecutor(2) as pool:
        for number in range(100):
            path = tmp_path / str(number) / "secret"
            one, other = pool.map(first_use, [path, path])
            assert one == other == use(path)
            assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


@BOTH
def test_the_file_of_another_process_is_never_replaced(
    tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes its secret at the last moment: ours is dropped."""
    theirs, path, link = tmp_path / "theirs", tmp_path / "ours", store.os.link
    expected = use(theirs)

    def late(source: Path, target: Path) -> None:
        link(theirs, target)
        link(source, target)

    monkeypatch.setattr(store.os, "link", late)
    assert use(path) == expected


@BOTH
def test_making_a_secret_is_said_once(tmp_path: Path, use: Use, caplog: pytest.LogCaptureFixture) -> None:
    use(tmp_path / "secret")
    use(tmp_path / "secret")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(tmp_path / "secret") in record.getMessage()


def test_a_person_sees_it_on_standard_error(tmp_path: Path) -> None:
    code = "import sys, pathlib; from wootz.keys.owner import owner_secret; owner_secret(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "k")], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert str(tmp_path / "k") in done.stderr


@BOTH
def test_a_link_to_nowhere_is_refused(tmp_path: Path, use: Use) -> None:
    (tmp_path / "secret").symlink_to(tmp_path / "unmounted" / "secret")
    with pytest.raises(KeyFolderError, match="link to a file that does not exist"):
        use(tmp_path / "secret")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@BOTH
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, use: Use, mode: int) -> None:
    path = tmp_path / "my secret"
    kept = use(path)
    path.chmod(mode)
    with pytest.raises(KeyFolderError) as caught:
        use(path)
    command = str(caught.value).partition("run: ")[2]
    subprocess.run(command, shell=True, check=True)
    assert use(path) == kept


@BOTH
@pytest.mark.parametrize("call", ["open", "fsync", "link"])
def test_a_secret_that_cannot_be_kept_is_not_used(
    tmp_path: Path, use: Use, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store.os, call, fail)
        with pytest.raises(StoreError, match="No space left"):
            use(tmp_path / "secret")
    assert not list(tmp_path.iterdir())
