"""The service over real HTTP: a foreign client, mistakes, strangers, and many at once."""

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

from serving.small_service import FACTS, INFER, LABEL_ONLY, body, counted, document, images, right, scores, told
from wootz.errors import ConfigError, ModelError, StoreError
from wootz.serving import Limits, app, listen, read_token, running
from wootz.suspects.endpoints import Client, open_endpoint


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(app(scores, FACTS, limits=Limits(max_bytes=100_000))) as url:
        yield url


class TestForeignClient:
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
        about = triton.get_model_metadata("tiny", "1")
        assert about["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 4, 4]}]
        assert [output["name"] for output in about["outputs"]] == ["scores", "label"]
        assert about["parameters"] == {
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
    def test_questions(self, triton: InferenceServerClient, binary: bool, version: str) -> None:
        x = images(3)
        slot = InferInput("image", list(x.shape), "FP32")
        slot.set_data_from_numpy(x, binary_data=binary)
        wanted = [InferRequestedOutput(name, binary_data=binary) for name in ("label", "scores")]
        result = triton.infer("tiny", [slot], model_version=version, outputs=wanted, request_id="r1")
        assert result.get_response()["id"] == "r1"
        assert np.array_equal(result.as_numpy("scores"), right(x))
        assert np.array_equal(result.as_numpy("label"), right(x).argmax(1))

    def test_gray_levels(self, triton: InferenceServerClient) -> None:
        levels = np.random.default_rng(1).integers(0, 256, (2, *FACTS.shape), np.uint8)
        slot = InferInput("image", list(levels.shape), "UINT8")
        slot.set_data_from_numpy(levels)
        answer = triton.infer("tiny", [slot]).as_numpy("scores")
        assert np.array_equal(answer, right(levels.astype(np.float32) / np.float32(255)))

    @pytest.mark.parametrize("binary", ["always", "never"])
    @pytest.mark.parametrize("access", ["scores", "label"])
    def test_our_own_client(self, url: str, binary: Any, access: Any) -> None:
        x, cfg = torch.from_numpy(images(5)), Client(batch=2, binary=binary)
        with open_endpoint(f"{url}/v2/models/tiny", cfg, access=access, transcript=None) as endpoint:
            assert endpoint.info.classes == FACTS.classes
            answers = endpoint(x)
        if access == "label":
            assert answers.equal(scores(x).argmax(1))
        else:
            assert torch.allclose(answers, scores(x), atol=1e-5)  # the last bits depend on the batch


class TestMistakes:
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
    def test_each_is_told_in_one_line(self, url: str, request_: dict[str, Any], status: int, message: str) -> None:
        before = counted(url).get(f"wootz_errors_total {status}", 0)
        answer = told(url, **request_)
        assert answer.status_code == status
        assert list(answer.json()) == ["error"]
        assert message in answer.json()["error"]
        assert counted(url)[f"wootz_errors_total {status}"] == before + 1

    def test_a_long_body_is_refused_before_it_comes(self, url: str) -> None:
        with socket.create_connection(url.removeprefix("http://").split(":")) as line:  # type: ignore[arg-type]
            line.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {'9' * 18}\r\n\r\n".encode())
            assert line.recv(1000).startswith(b"HTTP/1.1 413 ")

    def test_a_body_that_does_not_come_is_not_waited_for(self) -> None:
        with running(app(scores, FACTS, limits=Limits(read_seconds=0.05))) as url:
            with socket.create_connection(url.removeprefix("http://").split(":")) as line:  # type: ignore[arg-type]
                line.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n12345".encode())
                answer = b"".join(iter(lambda: line.recv(1000), b""))
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"the body: must arrive within 0.05 s" in answer
            assert told(url, INFER, content=body(images(1))).status_code == 200

    def test_a_model_that_fails_is_no_end(self, caplog: pytest.LogCaptureFixture) -> None:
        def moody(x: Tensor) -> Tensor:
            if (x == 0).all():
                raise RuntimeError("a secret of the model")
            return scores(x)

        with running(app(moody, FACTS)) as url:
            answer = told(url, INFER, content=body(images(1) * 0))
            assert (answer.status_code, "secret" in answer.text) == (500, False)
            assert told(url, INFER, content=body(images(1))).status_code == 200
        assert "a secret of the model" in caplog.text


class TestStrangers:
    def test_nothing_but_health_is_open_without_the_token(self) -> None:
        with running(app(scores, FACTS, token="s3cret")) as url:
            for path in ("/v2", "/v2/models/tiny", "/metrics", "/nowhere", "/v2/health"):
                for shown in ("", "s3cret", "Bearer", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "Bearer é"):
                    answer = told(url, path, headers={"Authorization": shown.encode()})
                    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert told(url, INFER, content=body(images(1))).status_code == 401
            assert told(url, "/v2/health/live").json() == {"live": True}
            assert told(url, "/v2/health/ready").json() == {"ready": True}
            for shown in ("Bearer s3cret", "bearer  s3cret"):
                answer = told(url, INFER, content=body(images(1)), headers={"Authorization": shown})
                assert answer.status_code == 200

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

    def test_labels_alone(self) -> None:
        with running(app(lambda x: scores(x).argmax(1), LABEL_ONLY)) as url:
            x = images(4)
            (output,) = told(url, INFER, content=body(x)).json()["outputs"]
            assert output == {"name": "label", "datatype": "INT64", "shape": [4], "data": right(x).argmax(1).tolist()}
            about = told(url, "/v2/models/tiny").json()
            assert [slot["name"] for slot in about["outputs"]] == ["label"]
            assert about["parameters"] == {"classes": list("abcde"), "range": [0, 1], "access": "label"}

    @pytest.mark.parametrize("half", [True, False])
    def test_a_killed_client_hurts_nobody(self, half: bool) -> None:
        request = body(images(1))
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(request)}\r\n\r\n".encode()
        with running(app(scores, FACTS)) as url:
            for _ in range(5):
                line = socket.create_connection(url.removeprefix("http://").split(":"))  # type: ignore[arg-type]
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not closed
                line.sendall(head + request[: len(request) // 2 if half else None])
                line.close()
            answer = told(url, INFER, content=request)
            assert answer.json()["outputs"][1]["data"] == right(images(1)).argmax(1).tolist()
            while half and counted(url).get("wootz_errors_total 499", 0) < 5:
                pass


class TestManyAtOnce:
    def test_each_gets_its_own_answer(self, url: str) -> None:
        x = images(64, seed=5)
        before = counted(url)

        def ask(row: int) -> Any:
            return told(url, INFER, json=document(x[row : row + 2]) | {"id": str(row)}).json()

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, range(0, 64, 2)))
        for row, answer in zip(range(0, 64, 2), answers, strict=True):
            assert answer["id"] == str(row)
            shown = np.array(answer["outputs"][0]["data"]).reshape(2, 5)
            assert np.allclose(shown, right(x[row : row + 2]), atol=1e-5)
        after = counted(url)
        grown = {name: after[name] - before.get(name, 0) for name in after}
        assert grown["wootz_requests_total"] == grown["wootz_request_seconds_count"] == 32
        assert grown["wootz_images_total"] == grown["wootz_batch_images_sum"] == 64
        assert 1 <= grown["wootz_batch_images_count"] <= 32

    def test_too_many_are_sent_away(self) -> None:
        entered, go = threading.Event(), threading.Event()

        def busy(x: Tensor) -> Tensor:
            if (x != 0.5).any():
                entered.set()
                assert go.wait(60)
            return scores(x)

        with running(app(busy, FACTS, limits=Limits(waiting=1))) as url, ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(told, url, INFER, content=body(images(1)))]
            assert entered.wait(60)
            asked += [pool.submit(told, url, INFER, content=body(images(1))) for _ in range(2)]
            refused = next(as_completed(asked)).result()
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert refused.json() == {"error": "too many images wait already; come back later"}
            go.set()
            assert sorted(answer.result().status_code for answer in asked) == [200, 200, 503]


class TestStart:
    def test_a_model_must_answer_as_the_facts_say(self) -> None:
        with pytest.raises(ModelError, match=r"tiny: must answer one image with scores \[1, 5\], not \[1, 4\]"):
            app(lambda x: scores(x)[:, :4], FACTS)
        with pytest.raises(ModelError, match=r"not \[1\]"):
            app(lambda x: scores(x).argmax(1), FACTS)
        with pytest.raises(ModelError, match=r"not \[1\]"):
            app(lambda x: scores(x).argmax(1), LABEL_ONLY, guard=lambda _, shown: shown)

    def test_an_address_that_can_not_be_used(self) -> None:
        with listen("127.0.0.1", 0) as taken:
            assert taken.proto == socket.IPPROTO_TCP  # or asyncio leaves Nagle's algorithm on
            with pytest.raises(ConfigError, match="can not be listened at"):
                listen("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ConfigError, match="is no address"):
            listen("no.such.host.invalid", 0)
