"""Only plain files without further hard links are opened; each is read once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hostile import refused

from wootz.store import file_digest
from wootz.suspects.files import Limits, open_file


def test_a_symbolic_link(run: Path) -> None:
    (run / "link.safetensors").symlink_to("model.safetensors")
    refused(run / "link.safetensors", "symbolic link")


def test_a_link_inside_a_run_folder(run: Path) -> None:
    (run / "model.safetensors").rename(run / "elsewhere")
    (run / "model.safetensors").symlink_to("/etc/passwd")
    refused(run, "symbolic link")


def test_a_linked_description(run: Path) -> None:
    (run / "model.json").unlink()
    (run / "model.json").symlink_to("/etc/passwd")
    refused(run, "symbolic link")


def test_a_hard_link(run: Path) -> None:
    os.link(run / "model.safetensors", run / "second.safetensors")
    refused(run / "model.safetensors", "2 names")


def test_a_pipe_does_not_hang(run: Path) -> None:
    os.mkfifo(run / "pipe.safetensors")
    refused(run / "pipe.safetensors", "only plain files")


def test_a_pipe_as_description_does_not_hang(run: Path) -> None:
    (run / "model.json").unlink()
    os.mkfifo(run / "model.json")
    refused(run, "only plain files")


def test_a_socket(run: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")  # relative: such names are short
        refused(run / "s", "only plain files")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/stdin"])
def test_a_device(run: Path, device: str) -> None:
    refused(Path(device), "only plain files|symbolic link")


def test_a_folder_that_is_no_run(run: Path) -> None:
    (run / "empty").mkdir()
    refused(run / "empty", "is not a run folder")


def test_a_folder_named_like_a_file(run: Path) -> None:
    (run / "x").mkdir()
    (run / "x/model.safetensors").mkdir()
    refused(run / "x", "only plain files")


def test_a_saved_model_folder(run: Path) -> None:
    (run / "saved_model.pb").write_bytes(b"\x08\x01")
    refused(run, "SavedModel.*can run code")


def test_nothing_there(run: Path) -> None:
    refused(run / "nothing.safetensors", "cannot be read")
    refused(run / "no" / "such", "cannot be read")


def test_a_name_that_no_file_has(run: Path) -> None:
    refused(run / "a\0b", "cannot be read")


def test_a_name_that_can_not_be_printed(run: Path) -> None:
    (run / "a\n\x1b[2Jb").write_bytes(b"")
    assert "a ?[2Jb" in refused(run / "a\n\x1b[2Jb", "is empty")


def test_no_description(run: Path) -> None:
    (run / "model.json").unlink()
    refused(run, "no model.json beside it")
    refused(run / "model.safetensors", "no model.json beside it")


def test_a_file_too_large(run: Path) -> None:
    refused(run, r"has [\d,]+ bytes; 100 are read at most", limits=Limits(file_bytes=100))


def test_a_sparse_file_of_a_terabyte_is_not_read(run: Path) -> None:
    with (run / "huge.safetensors").open("wb") as file:
        file.truncate(1 << 40)
    refused(run / "huge.safetensors", "1,099,511,627,776 bytes")


def test_a_description_too_large(run: Path) -> None:
    with (run / "model.json").open("a") as file:
        file.write(" " * (1 << 20))
    refused(run, "model.json.*read at most")


def test_the_digest_is_of_the_bytes_that_were_read(run: Path) -> None:
    with open_file(run, isolated=False) as opened:
        assert opened.digest == file_digest(run / "model.safetensors")


def test_the_content_decides_not_the_ending(run: Path) -> None:
    for name, ending in (("model.safetensors", "pkl"), ("model.onnx", "safetensors"), ("model.pt", "onnx")):
        renamed = (run / name).rename(run / f"renamed.{ending}")
        with open_file(renamed, isolated=False, allow_torch_zip=True) as opened:
            assert len(opened.spec.classes) == 3
