"""What the command line says where there is no model yet: which it is, what there is, and what is wrong with a call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from commands import assert_usage_error
from wootz import __version__


def test_which_and_what(wootz) -> None:
    assert wootz("--version").out.startswith(f"wootz {__version__}, torch {torch.__version__}, python 3.")
    said = wootz()
    assert (said.code, said.err) == (2, "")
    assert "protect" in said.out


def test_lists(wootz) -> None:
    for verb in ("steal", "remove"):
        rows = json.loads(wootz(verb, "--attack", "list", "--json").out)
        assert all(set(row) == {"name", "source", "access", "cost"} for row in rows)
        assert rows[0]["name"] in wootz(verb, "--attack", "list").out
    rows = json.loads(wootz("data", "list", "--json").out)
    assert [row["name"] for row in rows] == ["mnist-5k", "mnist", "fashion-mnist", "cifar10"]


def test_missing_data(wootz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOTZ_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("wootz.data.builtin.SYSTEM", tmp_path / "system")
    said = wootz("protect", "--data", "mnist", "--out", tmp_path / "r")
    assert_usage_error(said, str(tmp_path / "none/mnist"), str(tmp_path / "cache"), "wootz data fetch mnist")
    assert not (tmp_path / "r").exists()


def test_corrupt_idx(wootz, tmp_path: Path) -> None:
    from wootz.data.sources import SOURCES

    (tmp_path / "mnist").mkdir()
    for file in SOURCES["mnist"].files:
        (tmp_path / "mnist" / file.name).write_bytes(b"\0\0\x08\x01\0\0\0\x09123")
    said = wootz("protect", "--data", "mnist", "--out", tmp_path / "r", "--data-dir", tmp_path)
    assert_usage_error(said, "train-images-idx3-ubyte", "truncated")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--wm-eps", "0.2"], ["wm_eps = 0.2", "smallest valid wm_eps is 0.2706"]),
        (["--eps", "1.5"], ["eps = 1.5", "between 0 and 1"]),
        (["--eps", "0"], ["eps = 0.0", "between 0 and 1"]),
        (["--eps", "small"], ["--eps small", "8/255"]),
        (["--preset", "fsat"], ["unknown preset 'fsat'", "did you mean 'fast'"]),
        (["--marks", "trigers"], ["unknown mark 'trigers'", "did you mean 'triggers'"]),
        (["--model", "small-cn"], ["unknown model 'small-cn'", "did you mean 'small-cnn'"]),
        (["--set", "recipe.epoch=3"], ["recipe.epoch", "did you mean 'epochs'"]),
        (["--set", "set_aside=0"], ["set_aside = 0.0", "must be above 0"]),
        (["--set", "set_aside=2"], ["set_aside = 2.0", "must be from 0 to 1"]),
        (["--set", "recipe.shift=28"], ["shift = 28", "less than the side of the images, which are 28x28"]),
        (["--set", "recipe.loss=trades2", "--marks", "none"], ["unknown loss 'trades2'"]),
    ],
)
def test_settings(wootz, tmp_path: Path, words: list[str], parts: list[str]) -> None:
    said = wootz("protect", "--data", "mnist-5k", "--out", tmp_path / "r", *words)
    assert_usage_error(said, *parts)
    assert not (tmp_path / "r").exists()


def test_missing_arguments(wootz, tmp_path: Path) -> None:
    assert_usage_error(wootz("protect", "--out", tmp_path / "r"), "--data: missing")
    for command, attack in (("steal", "retrain-soft"), ("remove", "prune")):
        needed = (f"{command}: needs a run folder", "--attack NAME", "--attack list", "--out DIR")
        assert_usage_error(wootz(command, "--attack", attack), *needed)
        assert_usage_error(wootz(command, tmp_path / "r1"), *needed)
        assert wootz(command, "--attack", "list").code == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["prtect"], ["'prtect'", "'protect'", "see wootz --help"]),
        (["protect"], ["'--out'", "see wootz protect --help"]),
        (["protect", "--data"], ["'--data'", "argument"]),
        (["protect", "--ot", "r"], ["--ot", "--out"]),
        (["verify", "r", "s", "--budget", "-1"], ["'--budget'"]),
        (["data"], ["Missing command; see wootz data --help"]),
    ],
)
def test_words_that_mean_nothing(wootz, words: list[str], parts: list[str]) -> None:
    assert_usage_error(wootz(*words), *parts)
