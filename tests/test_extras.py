from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from wootz import extras
from wootz.errors import ConfigError

ROOT = Path(__file__).parent.parent


def packages(extra: str) -> set[str]:
    """Return the names of the packages that an extra lists, as modules are written."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = (re.split(r"[<>=\\[;]", line)[0].strip() for line in project["optional-dependencies"][extra])
    return {name.replace("-", "_") for name in names} - {"wootz", "uvloop"}


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_an_extra_installs_the_modules_that_are_checked(extra: str) -> None:
    assert set(extras.EXTRAS[extra]) == packages(extra)
    if extra != "timm":  # which brings torchvision, so that development does without
        extras.require(extra)


def test_a_missing_extra_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wootz.extras.find_spec", lambda module: None if module == "onnx" else object())
    with pytest.raises(
        ConfigError, match=r"^onnx: not installed; this needs the extra 'onnx': pip install 'wootz\[onnx\]'$"
    ):
        extras.require("onnx")


def test_the_core_imports_no_extra() -> None:
    """The modules that protect, evaluate, extract, remove, verify, claim and judge need no optional dependency."""
    program = """
import sys
from wootz.extras import EXTRAS
for modules in EXTRAS.values():
    sys.modules.update(dict.fromkeys(modules))  # None: their import fails
import wootz
for name in ("protect", "Owner", "evaluate", "extract", "remove", "judge", "Claim"):
    getattr(wootz, name)
import wootz.cli.app
"""
    subprocess.run([sys.executable, "-c", program], check=True)
