"""The walls keep nothing out that an honest reader of a suspect needs: every dtype, network, and operation works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import walled
from hostile import SPEC
from safetensors.torch import save_file
from torch import nn

from wootz.errors import InconclusiveError, ModelError
from wootz.models import MODELS, ModelSpec, build, write_model
from wootz.suspects.files import open_file, predictor, worker
from wootz.suspects.files.limits import ITEM_BYTES
from wootz.suspects.files.torch_zip import DTYPES

SMALL = {
    "small-cnn": {"width": 2, "hidden": 4},
    "cw-cnn": {"width": 2, "hidden": 4},
    "paper-cnn": {"width": 2, "hidden": 4},
    "paper-thief": {"width": 2, "hidden": 4},
    "preact-resnet18": {"width": 2},
    "small-resnet": {"width": 4},
}

THREADS = (1, 4)


def in_dtype(net: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the weights as numbers that every dtype holds, 0 and 1, in this dtype."""
    return {name: (t > 0).float().to(dtype) for name, t in net.state_dict().items()}


def run_walled(folder: Path, *, walls: bool) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-I", walled.__file__, str(folder), str(int(walls)), *map(str, THREADS)],
        capture_output=True,
        check=False,
        env={},
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _alike(one: list[float] | str, other: list[float] | str) -> bool:
    """Return whether both are the same numbers, or the same error of a dtype that an operation does not support."""
    return one == other if isinstance(other, str) else one == pytest.approx(other, rel=1e-2, abs=1e-3)


@pytest.fixture(scope="module")
def suspects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a suspect of every dtype in both formats, and one of every architecture."""
    folder = tmp_path_factory.mktemp("suspects")
    specs = {"": SPEC} | {
        f"{name}.": ModelSpec(architecture=name, settings=settings, shape=(1, 28, 28), classes=("cat", "dog"))
        for name, settings in SMALL.items()
    }
    for prefix, spec in specs.items():
        net = build(spec, 1).eval()
        write_model(folder, net, spec, {})
        about = (folder / "model.json").read_bytes()
        for kind, name in {"F16": "float16"}.items() if prefix else DTYPES.items():
            state = net.half().state_dict() if prefix else in_dtype(net, getattr(torch, name))
            for suffix in (".safetensors", ".pt"):
                path = folder / f"{prefix}{kind}{suffix}"
                path.with_suffix(".json").write_bytes(about)
                if suffix == ".pt":
                    torch.save(state, path)
                elif kind != "C128":
                    save_file(state, path)
    for name in ("model.json", "model.safetensors"):
        (folder / name).unlink()
    return folder


@pytest.mark.long
def test_everything_works_within_the_walls(suspects: Path) -> None:
    inside, outside = (run_walled(suspects, walls=walls) for walls in (True, False))
    assert set(SMALL) == set(MODELS)
    assert set(DTYPES) == set(ITEM_BYTES)
    net = build(SPEC, 1)
    net.load_state_dict(in_dtype(net, torch.float32))
    expected = predictor(net.eval())(torch.linspace(0, 1, 3 * 64).view(3, 1, 8, 8)).flatten().tolist()
    for kind in DTYPES:
        assert outside[f"{kind}.pt 1"] == pytest.approx(expected)
        assert outside.get(f"{kind}.safetensors 1", expected) == pytest.approx(expected)
    assert inside.keys() == outside.keys()
    assert not [name for name, value in inside.items() if not _alike(value, outside[name])]


def test_float16_is_asked_like_float32(run: Path, net: nn.Module, x: torch.Tensor) -> None:
    half = {name: t.half() for name, t in net.state_dict().items()}
    save_file(half, run / "model.safetensors")
    with open_file(run) as opened:
        found = opened.predict(x)
    net.load_state_dict(half)
    assert torch.allclose(found, predictor(net)(x), atol=1e-5)


def test_complex_weights_are_refused_unless_they_are_real(run: Path, net: nn.Module) -> None:
    state = net.state_dict()
    state["0.bias"] = torch.complex(torch.ones(2), torch.ones(2))
    save_file(state, run / "model.safetensors")
    with pytest.raises(ModelError, match="complex numbers"), open_file(run, isolated=False):
        pass


@pytest.mark.parametrize("kind", ["RuntimeError", "OSError", "MemoryError", "KeyError", "NotImplementedError"])
def test_a_failure_of_ours_is_inconclusive(run: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raising = f"""
from wootz.suspects.files import child, loading
def load(*_, **__): raise {kind}("Failed to initialize cpuinfo!")
loading.load = load
child.main()
"""
    root = "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root)\n"
    monkeypatch.setattr(worker, "_START", root + raising)
    with pytest.raises(InconclusiveError), open_file(run):
        pass
