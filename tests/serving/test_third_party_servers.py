"""Our client queries third-party servers, which `make servers` installs in $WOOTZ_SERVERS (default .venvs)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serving.small_service import images
from wootz.models import ModelSpec, build, write_model
from wootz.serving import listen
from wootz.suspects.endpoints import Client, Template, open_endpoint

ROOT = Path(__file__).parent.parent.parent
SERVERS = Path(os.environ.get("WOOTZ_SERVERS", ROOT / ".venvs"))
CLASSES = tuple("abcde")

pytestmark = pytest.mark.slow


@contextmanager
def running_server(name: str, model: Path) -> Iterator[str]:
    """Run a third-party server of `model`; yields its URL once it responds."""
    python = SERVERS / name / "bin/python"
    if not python.exists():
        pytest.skip(f"{python}: does not exist; make servers installs it")
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [python, ROOT / f"scripts/servers/{name}_model.py", model, str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with (model.parent / f"{name}.out").open("w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        while not responds(port):
            assert server.poll() is None, (model.parent / f"{name}.out").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def responds(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stream = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("servers") / "tiny.npz"
    weight = stream.normal(size=(5, 16)).astype(np.float32)
    np.savez(path, weight=weight, bias=np.zeros(5, np.float32), shape=np.array([1, 4, 4]))
    return path


@pytest.fixture(scope="module")
def expected(model: Path) -> torch.Tensor:
    return torch.from_numpy(images(5).reshape(5, 16) @ np.load(model)["weight"].T)


@pytest.mark.parametrize(
    ("name", "path", "cfgs"),
    [
        ("kserve", "/v2/models/tiny", [Client(), Client(binary="never", batch=2), Client(binary="always", batch=5)]),
        ("mlserver", "/v2/models/tiny", [Client(), Client(binary="never", batch=2)]),
        (
            "litserve",
            "/predict",
            [Client(api="template", classes=CLASSES, batch=n, template=Template()) for n in (1, 5)],
        ),
    ],
)
def test_answers_of_third_party_servers(
    name: str, path: str, cfgs: list[Client], model: Path, expected: torch.Tensor
) -> None:
    x = torch.from_numpy(images(5))
    with running_server(name, model) as url:
        for cfg in cfgs:
            answers: list[Any] = []
            for access in ("scores", "label"):
                with open_endpoint(url + path, cfg, access=access, transcript=None) as endpoint:
                    answers.append(endpoint(x))
                    assert endpoint.notes() == ()
                    assert endpoint.queries == 5
            assert torch.allclose(answers[0], expected, atol=1e-5)
            assert answers[1].equal(expected.argmax(1))


def test_a_run_folder_behind_a_third_party_server(tmp_path: Path) -> None:
    spec = ModelSpec(architecture="small-cnn", settings={"width": 4}, shape=(1, 28, 28), classes=CLASSES)
    network = build(spec, 0).eval()
    write_model(tmp_path / "run", network, spec, {"data": "mnist", "eps": 0.25, "kind": "independent", "seed": 0})
    x = torch.rand(3, 1, 28, 28)
    with (
        running_server("kserve", tmp_path / "run") as url,
        open_endpoint(f"{url}/v2/models/run", Client(), access="scores", transcript=None) as endpoint,
    ):
        assert torch.allclose(endpoint(x), network(x).log_softmax(1), atol=1e-4)


def test_binary_requests_are_refused_by_a_json_only_server(model: Path) -> None:
    with running_server("mlserver", model) as url:
        cfg = Client(binary="always")
        with open_endpoint(f"{url}/v2/models/tiny", cfg, access="scores", transcript=None) as endpoint:
            assert endpoint(torch.from_numpy(images(2))).isnan().all()
            assert endpoint.refused == 2
