"""A service in a separate process: started by the command, ended by a signal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch

from serving.small_service import body, expected_scores, images
from wootz.errors import ConfigError, StoreError
from wootz.models import ModelSpec, build, write_model
from wootz.store import tensor_digest
from wootz.suspects.endpoints import Client, open_endpoint
from wootz.workflows.serving import answering, serve_run

COMMAND = "import typer; from wootz.cli.serve import command; typer.run(command)"

SLOW = """
import sys
from pathlib import Path
from serving.small_service import INFO, scores
from wootz.serving import QueryLog, app, listen, serve, url_of

def slow(x):
    if (x != 0.5).any():
        print("received", flush=True)
        sys.stdin.readline()
    return scores(x)

with QueryLog(Path(sys.argv[1])) as log, listen("127.0.0.1", 0) as listening:
    print(url_of(listening), flush=True)
    serve(app(slow, INFO, log=log), listening)
print("ended", flush=True)
"""


def start_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "WOOTZ_TOKEN": "s3cret"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_requests_are_answered_after_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    with start_process(SLOW, tmp_path / "log") as service, ThreadPoolExecutor(1) as pool:
        assert service.stdin is not None
        assert service.stdout is not None
        try:
            url = service.stdout.readline().strip()
            request = {"content": body(images(1)), "timeout": 60, "trust_env": False}
            response = pool.submit(httpx.post, f"{url}/v2/models/tiny/infer", **request)  # type: ignore[arg-type]
            assert service.stdout.readline() == "received\n"
            service.send_signal(number)
            while accepts_connections(url):
                pass
            service.stdin.write("go\n")
            service.stdin.flush()
            assert response.result().json()["outputs"][1]["data"] == expected_scores(images(1)).argmax(1).tolist()
            assert service.stdout.readline() == "ended\n"
            assert service.wait() == 0
        finally:
            service.kill()
        assert service.stderr is not None
        assert service.stderr.read() == ""
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def accepts_connections(url: str) -> bool:
    try:
        socket.create_connection(url.removeprefix("http://").split(":")).close()  # type: ignore[arg-type]
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "two words"
    spec = ModelSpec(architecture="small-cnn", settings={"width": 2, "hidden": 4}, shape=(1, 8, 8), classes=("a", "b"))
    write_model(folder, build(spec, 1), spec, {"data": "dots", "eps": 0.25, "kind": "independent", "seed": 1})
    return folder


@pytest.mark.long
def test_the_command_serves_a_run(run: Path, tmp_path: Path) -> None:
    from wootz.workflows.run import open_run

    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with start_process(COMMAND, run, "--port", 0, "--json", "--log", tmp_path / "log", "--threads", 1) as service:
        assert service.stdout is not None
        try:
            output = json.loads(service.stdout.readline())
            assert output["url"].endswith("/v2/models/two%20words")
            with open_endpoint(output["url"], Client(), access="scores", transcript=None, token="s3cret") as endpoint:
                assert torch.allclose(endpoint(x), answering(open_run(run).model, "cpu")(x), atol=1e-5)
                assert endpoint.info.classes == ("a", "b")
                assert endpoint.info.parameters["eps"] == "0.25"
            service.terminate()
            assert service.wait() == 0
        finally:
            service.kill()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["image"] for line in lines] == [tensor_digest(image) for image in x]


def test_invalid_arguments(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two words: has no guard"):
        serve_run(run, guard=True)
    with pytest.raises(ConfigError, match="access = 'top-3'"):
        serve_run(run, access="top-3")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threads = 0: must be at least 1"):
        serve_run(run, threads=0)
    with pytest.raises(StoreError, match="is not a run folder"):
        serve_run(tmp_path / "nothing")
    with pytest.raises(StoreError, match="cannot be opened"):
        serve_run(run, log=tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot listen there"):
        serve_run(run, port=taken.getsockname()[1])
