"""The service over HTTP: a third-party client, invalid requests, authentication and concurrent requests."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from serving.small_service import (
    INFER,
    INFO,
    LABEL_ONLY,
    body,
    document,
    expected_scores,
    images,
    query,
    read_metrics,
    scores,
)
from wootz.errors import ConfigError, ModelError, StoreError
from wootz.serving import ServingLimits, app, listen, read_token, running
from wootz.suspects.endpoints import Client, open_endpoint


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(app(scores, INFO, limits=ServingLimits(max_bytes=100_000))) as url:
        yield url


class TestThirdPartyClient:
    @pytest.fixture
    def triton(self, url: str) -> Iterator[InferenceServerClient]:
        client = InferenceServerClient(url.removeprefix("http://"))
        yield client
        client.close()

    def test_health_and_metadata(self, triton: InferenceServerClient) -> None:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("tiny")
        assert triton.is_model_ready("tiny", "1")
        assert not triton.is_model_ready("huge")
        assert not triton.is_model_ready("tiny", "2")
        assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        metadata = triton.get_model_metadata("tiny", "1")
        assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 4, 4]}]
        assert [output["name"] for output in metadata["outputs"]] == ["scores", "label"]
        assert metadata["parameters"] == {
            "classes": list("abcde"),
            "data": "dots",
            "set_aside": "0.25",
            "eps": "0.25",
            "range": [0, 1],
            "access": "scores",
            "scores": "log-probabilities",
        }

    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("version", ["", "1"])
    def test_inference(self, triton: InferenceServerClient, binary: bool, version: str) -> None:
        x = images(3)
        tensor = InferInput("image", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x, binary_data=binary)
        outputs = [InferRequestedOutput(name, binary_data=binary) for name in ("label", "scores")]
        result = triton.infer("tiny", [tensor], model_version=version, outputs=outputs, request_id="r1")
        assert result.get_response()["id"] == "r1"
        assert np.array_equal(result.as_numpy("scores"), expected_scores(x))
        assert np.array_equal(result.as_numpy("label"), expected_scores(x).argmax(1))

    def test_gray_levels(self, triton: InferenceServerClient) -> None:
        levels = np.random.default_rng(1).integers(0, 256, (2, *INFO.shape), np.uint8)
        tensor = InferInput("image", list(levels.shape), "UINT8")
        tensor.set_data_from_numpy(levels)
        result = triton.infer("tiny", [tensor]).as_numpy("scores")
        assert np.array_equal(result, expected_scores(levels.astype(np.float32) / np.float32(255)))

    @pytest.mark.parametrize("binary", ["always", "never"])
    @pytest.mark.parametrize("access", ["scores", "label"])
    def test_our_own_client(self, url: str, binary: Any, access: Any) -> None:
        x, cfg = torch.from_numpy(images(5)), Client(batch=2, binary=binary)
        with open_endpoint(f"{url}/v2/models/tiny", cfg, access=access, transcript=None) as endpoint:
            assert endpoint.info.classes == INFO.classes
            answers = endpoint(x)
        if access == "label":
            assert answers.equal(scores(x).argmax(1))
        else:
            assert torch.allclose(answers, scores(x), atol=1e-5)  # the last bits depend on the batch


class TestInvalidRequests:
    @pytest.mark.parametrize(
        ("request_", "status", "message"),
        [
            ({"path": INFER, "content": b"["}, 400, "the body: must be JSON"),
            ({"path": INFER, "content": b""}, 400, "the body: must be JSON"),
            ({"path": INFER, "json": document(images(1), datatype="BYTES")}, 400, "datatype: must be one of FP32"),
            ({"path": "/v2/models/huge/infer", "json": {}}, 404, "unknown model 'huge'; known: tiny"),
            ({"path": "/v2/models/tiny/versions/2/infer", "json": {}}, 404, "unknown version '2' of tiny; known: 1"),
            ({"path": "/v2/models/huge"}, 404, "unknown model 'huge'"),
            ({"path": "/v2/models/huge/ready"}, 404, "unknown model 'huge'"),
            ({"path": "/v2/models/tiny/versions/2"}, 404, "unknown version '2'"),
            ({"path": "/nowhere"}, 404, "GET /nowhere: Not Found"),
            ({"path": "/v2/"}, 404, "GET /v2/: Not Found"),
            ({"path": INFER}, 405, f"GET {INFER}: Method Not Allowed"),
            ({"path": "/v2", "json": {}}, 405, "POST /v2: Method Not Allowed"),
            ({"path": INFER, "content": b"", "headers": {"Content-Encoding": "gzip"}}, 415, "must be identity"),
            ({"path": INFER, "content": b"x" * 100_001}, 413, "the body: must be at most 100000 bytes"),
            ({"path": INFER, "content": iter([b"x" * 60_000] * 20)}, 413, "the body: must be at most 100000 bytes"),
        ],
    )
    def test_each_gets_one_line(self, url: str, request_: dict[str, Any], status: int, message: str) -> None:
        before = read_metrics(url).get(f"wootz_errors_total {status}", 0)
        response = query(url, **request_)
        assert response.status_code == status
        assert list(response.json()) == ["error"]
        assert message in response.json()["error"]
        assert read_metrics(url)[f"wootz_errors_total {status}"] == before + 1

    def test_a_long_body_is_rejected_before_it_is_read(self, url: str) -> None:
        with socket.create_connection(url.removeprefix("http://").split(":")) as connection:  # type: ignore[arg-type]
            connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {'9' * 18}\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")

    def test_a_body_must_arrive_in_time(self) -> None:
        with running(app(scores, INFO, limits=ServingLimits(read_seconds=0.05))) as url:
            with socket.create_connection(url.removeprefix("http://").split(":")) as connection:  # type: ignore[arg-type]
                connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n12345".encode())
                response = b"".join(iter(lambda: connection.recv(1000), b""))
            assert response.startswith(b"HTTP/1.1 408 ")
            assert b"the body: must arrive within 0.05 s" in response
            assert query(url, INFER, content=body(images(1))).status_code == 200

    def test_the_service_survives_a_model_error(self, caplog: pytest.LogCaptureFixture) -> None:
        def failing(x: Tensor) -> Tensor:
            if (x == 0).all():
                raise RuntimeError("a secret of the model")
            return scores(x)

        with running(app(failing, INFO)) as url:
            response = query(url, INFER, content=body(images(1) * 0))
            assert (response.status_code, "secret" in response.text) == (500, False)
            assert query(url, INFER, content=body(images(1))).status_code == 200
        assert "a secret of the model" in caplog.text


class TestClients:
    def test_only_health_checks_need_no_token(self) -> None:
        with running(app(scores, INFO, token="s3cret")) as url:
            for path in ("/v2", "/v2/models/tiny", "/metrics", "/nowhere", "/v2/health"):
                for header in ("", "s3cret", "Bearer", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "Bearer é"):
                    response = query(url, path, headers={"Authorization": header.encode()})
                    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert query(url, INFER, content=body(images(1))).status_code == 401
            assert query(url, "/v2/health/live").json() == {"live": True}
            assert query(url, "/v2/health/ready").json() == {"ready": True}
            for header in ("Bearer s3cret", "bearer  s3cret"):
                response = query(url, INFER, content=body(images(1)), headers={"Authorization": header})
                assert response.status_code == 200

    def test_the_token_comes_from_a_file_or_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("WOOTZ_TOKEN", raising=False)
        assert read_token(None) == ""
        monkeypatch.setenv("WOOTZ_TOKEN", "from-the-environment")
        assert read_token(None) == "from-the-environment"
        file = tmp_path / "token"
        file.write_text("from-a-file\n")
        assert read_token(file) == "from-a-file"
        for text in ("", " \n", "two words", "schlüssel"):
            file.write_text(text)
            with pytest.raises(ConfigError, match="token: must be one word of printable ASCII"):
                read_token(file)
        with pytest.raises(StoreError, match="cannot be read"):
            read_token(tmp_path / "nothing")

    def test_labels_only(self) -> None:
        with running(app(lambda x: scores(x).argmax(1), LABEL_ONLY)) as url:
            x = images(4)
            (output,) = query(url, INFER, content=body(x)).json()["outputs"]
            assert output == {
                "name": "label",
                "datatype": "INT64",
                "shape": [4],
                "data": expected_scores(x).argmax(1).tolist(),
            }
            metadata = query(url, "/v2/models/tiny").json()
            assert [output["name"] for output in metadata["outputs"]] == ["label"]
            assert metadata["parameters"] == {"classes": list("abcde"), "range": [0, 1], "access": "label"}

    @pytest.mark.parametrize("half", [True, False])
    def test_closed_connections_do_not_affect_other_clients(self, half: bool) -> None:
        request = body(images(1))
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(request)}\r\n\r\n".encode()
        with running(app(scores, INFO)) as url:
            for _ in range(5):
                connection = socket.create_connection(url.removeprefix("http://").split(":"))  # type: ignore[arg-type]
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not closed
                connection.sendall(head + request[: len(request) // 2 if half else None])
                connection.close()
            response = query(url, INFER, content=request)
            assert response.json()["outputs"][1]["data"] == expected_scores(images(1)).argmax(1).tolist()
            while half and read_metrics(url).get("wootz_errors_total 499", 0) < 5:
                pass


class TestConcurrency:
    def test_each_gets_its_own_answer(self, url: str) -> None:
        x = images(64, seed=5)
        before = read_metrics(url)

        def query_row(row: int) -> Any:
            return query(url, INFER, json=document(x[row : row + 2]) | {"id": str(row)}).json()

        with ThreadPoolExecutor(32) as pool:
            responses = list(pool.map(query_row, range(0, 64, 2)))
        for row, response in zip(range(0, 64, 2), responses, strict=True):
            assert response["id"] == str(row)
            answers = np.array(response["outputs"][0]["data"]).reshape(2, 5)
            assert np.allclose(answers, expected_scores(x[row : row + 2]), atol=1e-5)
        after = read_metrics(url)
        increase = {name: after[name] - before.get(name, 0) for name in after}
        assert increase["wootz_requests_total"] == increase["wootz_request_seconds_count"] == 32
        assert increase["wootz_images_total"] == increase["wootz_batch_images_sum"] == 64
        assert 1 <= increase["wootz_batch_images_count"] <= 32

    def test_excess_requests_get_503(self) -> None:
        entered, go = threading.Event(), threading.Event()

        def busy(x: Tensor) -> Tensor:
            if (x != 0.5).any():
                entered.set()
                assert go.wait(60)
            return scores(x)

        with running(app(busy, INFO, limits=ServingLimits(waiting=1))) as url, ThreadPoolExecutor(3) as pool:
            requests = [pool.submit(query, url, INFER, content=body(images(1)))]
            assert entered.wait(60)
            requests += [pool.submit(query, url, INFER, content=body(images(1))) for _ in range(2)]
            rejected = next(as_completed(requests)).result()
            assert (rejected.status_code, rejected.headers["Retry-After"]) == (503, "1")
            assert rejected.json() == {"error": "too many requests are in progress; try again later"}
            go.set()
            assert sorted(request.result().status_code for request in requests) == [200, 200, 503]


class TestStart:
    def test_the_model_must_fit_its_info(self) -> None:
        with pytest.raises(ModelError, match=r"tiny: must answer one image with scores \[1, 5\], not \[1, 4\]"):
            app(lambda x: scores(x)[:, :4], INFO)
        with pytest.raises(ModelError, match=r"not \[1\]"):
            app(lambda x: scores(x).argmax(1), INFO)
        with pytest.raises(ModelError, match=r"not \[1\]"):
            app(lambda x: scores(x).argmax(1), LABEL_ONLY, guard=lambda _, scores: scores)

    def test_unusable_addresses(self) -> None:
        with listen("127.0.0.1", 0) as taken:
            assert taken.proto == socket.IPPROTO_TCP  # or asyncio leaves Nagle's algorithm on
            with pytest.raises(ConfigError, match="cannot listen there"):
                listen("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ConfigError, match="is not an address"):
            listen("no.such.host.invalid", 0)
