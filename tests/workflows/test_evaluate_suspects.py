"""Robustness of what is not a module: ONNX files, services and functions, attacked by counted queries alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import nn

import wootz
from commands import assert_usage_error, run_command
from wootz.attacks.evasion import BLACK_BOX
from wootz.data import Dataset
from wootz.errors import ConfigError, InconclusiveError, ModelError
from wootz.models import ModelSpec
from wootz.models.saved import to_onnx
from wootz.serving import ModelInfo, app, running
from wootz.suspects.files import predictor
from wootz.types import Predict
from wootz.workflows.run import user_folder
from wootz.workflows.suspects import QueryConfig

HERE = QueryConfig(isolated=False)
LABELS = replace(HERE, access="label")


@pytest.fixture
def onnx(plain: nn.Module, small_spec: ModelSpec, tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(to_onnx(plain, small_spec))
    return path


@pytest.fixture
def few(digits: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    part = digits.test.subset(slice(12))
    return part.images(), part.labels


@contextmanager
def tf_serving(answer: Predict, status: Callable[[int], int] = lambda _: 200) -> Iterator[tuple[str, list[int]]]:
    """Serve answers as TensorFlow Serving does; yield the URL and the sizes of the requests so far."""
    sizes: list[int] = []

    async def predict(request: Request) -> Response:
        x = torch.tensor((await request.json())["instances"], dtype=torch.float32)
        sizes.append(len(x))
        code = status(len(sizes))
        return JSONResponse({"predictions": answer(x).tolist()}, code) if code == 200 else Response("", code)

    async def metadata(_: Request) -> JSONResponse:
        return JSONResponse({"model_version_status": []})

    routes = [Route("/v1/models/m:predict", predict, methods=["POST"]), Route("/v1/models/m", metadata)]
    with running(Starlette(routes=routes)) as url:
        yield f"{url}/v1/models/m", sizes


class TestFiles:
    def test_square_finds_on_a_file_what_it_finds_on_the_module(
        self, onnx: Path, plain: nn.Module, digits: Dataset
    ) -> None:
        settings = {"eps": 0.1, "attack": "square", "n": 40, "max_queries": 60}
        module = wootz.evaluate(plain, digits, **settings)
        file = wootz.evaluate(str(onnx), digits, query=HERE, **settings)
        assert 0 < file.robust_accuracy < file.clean_accuracy
        assert torch.equal(file.robust, module.robust)
        assert file.queries is not None
        assert module.queries is not None
        assert (file.queries.mean, file.queries.median) == (module.queries.mean, module.queries.median)

    @pytest.mark.parametrize("attack", BLACK_BOX)
    @pytest.mark.parametrize("query", [HERE, LABELS])
    def test_the_undefended_falls_to_every_attack(
        self, attack: str, query: QueryConfig, onnx: Path, digits: Dataset
    ) -> None:
        settings = {"eps": 0.4, "attack": attack, "n": 15, "max_queries": 800, "query": query}
        if query is LABELS and attack in ("square", "nes"):
            with pytest.raises(ConfigError, match=f"{attack}: needs scores.*choose hop-skip-jump or black-box"):
                wootz.evaluate(onnx, digits, **settings)
            return
        found = wootz.evaluate(onnx, digits, **settings)
        assert found.clean_accuracy > 0.8
        assert found.robust_accuracy <= 0.2
        assert ("labels-only" in found.flags) == (query is LABELS)
        assert found.queries is not None
        assert 0 < found.queries.median <= 800

    def test_an_interrupted_evaluation_goes_on(
        self, onnx: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wootz.attacks.evasion.evaluation._BLACK_BOX_BATCH", 10)
        settings = {"eps": 0.1, "attack": "square", "n": 40, "max_queries": 20, "query": HERE}

        def stop(what: str, done: float) -> None:
            if done >= 0.5:
                raise KeyboardInterrupt

        whole = wootz.evaluate(onnx, digits, **settings)
        with pytest.raises(KeyboardInterrupt):
            wootz.evaluate(onnx, digits, progress=stop, **settings)
        (state,) = user_folder("evaluation", "").glob("*/evaluation-*.safetensors")
        seen: list[float] = []
        resumed = wootz.evaluate(onnx, digits, progress=lambda _, done: seen.append(done), **settings)
        assert seen[:2] == [0.0, 0.5]
        assert torch.equal(resumed.robust, whole.robust)
        assert resumed.queries == whole.queries
        assert not state.exists()

    def test_gradients_are_not_to_be_had(self, onnx: Path, digits: Dataset) -> None:
        with pytest.raises(ConfigError, match=r"pgd-40x2: needs a model's gradients.*black-box, square"):
            wootz.evaluate(onnx, digits, eps=0.1, attack="pgd", query=HERE)

    def test_data_that_do_not_fit(self, onnx: Path, digits: Dataset) -> None:
        fewer = replace(digits, classes=digits.classes[:9])
        with pytest.raises(ModelError, match=r"knows 10 classes; the data have images \[1, 28, 28\] and 9 classes"):
            wootz.evaluate(onnx, fewer, eps=0.1, query=HERE)
        with pytest.raises(ModelError, match=r"takes images \[1, 28, 28\].*the data have images \[3, 8, 8\]"):
            wootz.evaluate(onnx, (torch.zeros(4, 3, 8, 8), torch.zeros(4)), eps=0.1, query=HERE)


class TestFunctions:
    def test_every_query_is_counted(self, plain: nn.Module, few: tuple[torch.Tensor, torch.Tensor]) -> None:
        asked: list[int] = []

        def answer(x: torch.Tensor) -> torch.Tensor:
            asked.append(len(x))
            return predictor(plain)(x)

        found = wootz.evaluate(answer, few, eps=0.1, attack="square", max_queries=30)
        assert found.queries is not None
        checks = round(found.clean_accuracy * 12)
        assert sum(asked) == found.queries.total + checks
        assert 1 <= found.queries.median <= 30

    def test_probabilities_are_as_good_as_logits(
        self, plain: nn.Module, few: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        logits, shown = predictor(plain), lambda x: predictor(plain)(x).softmax(1)
        one, other = (
            wootz.evaluate(target, few, eps=0.15, attack="square", max_queries=60) for target in (logits, shown)
        )
        assert torch.equal(one.robust, other.robust)

    def test_no_answer_is_no_success(self, plain: nn.Module, few: tuple[torch.Tensor, torch.Tensor]) -> None:
        x, _ = few

        def silent(z: torch.Tensor) -> torch.Tensor:
            known = (z.flatten(1)[:, None] - x.flatten(1)[None]).abs().amax(2).amin(1) == 0
            return torch.where(known, predictor(plain, "label")(z), -1)

        found = wootz.evaluate(silent, few, eps=0.4, max_queries=100)
        assert found.robust_accuracy == found.clean_accuracy > 0.5
        assert found.flags == ("labels-only",)

    def test_nan_is_refused(self, plain: nn.Module, few: tuple[torch.Tensor, torch.Tensor]) -> None:
        with pytest.raises(ModelError, match="returns NaN or infinity for 8 of 8 images"):
            wootz.evaluate(lambda x: predictor(plain)(x) * torch.nan, few, eps=0.1)

    @pytest.mark.parametrize(
        ("flag", "change"),
        [
            ("batch-dependent", lambda answer, x: answer(x) + 9 * x.mean() * torch.arange(10)),
            ("range", lambda answer, x: answer(x / 255)),
            ("randomized", lambda answer, x: answer(x) + torch.rand(len(x), 10)),
        ],
    )
    def test_flags(
        self, flag: str, change: Callable[[Predict, torch.Tensor], torch.Tensor], plain: nn.Module, digits: Dataset
    ) -> None:
        found = wootz.evaluate(lambda x: change(predictor(plain), x), digits, eps=0.1, n=30, max_queries=104)
        assert flag in found.flags

    def test_an_honest_one_raises_none(self, plain: nn.Module, digits: Dataset) -> None:
        assert wootz.evaluate(predictor(plain), digits, eps=0.1, n=30, max_queries=104).flags == ()

    def test_calibration_finds_the_range_on_other_images(self, plain: nn.Module, digits: Dataset) -> None:
        seen: list[torch.Tensor] = []

        def answer(x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return predictor(plain)(x / 255).roll(1, 1)

        query = QueryConfig(calibrate=80)
        found = wootz.evaluate(answer, digits, eps=0.1, n=20, max_queries=104, query=query)
        assert found.clean_accuracy > 0.8
        assert any("0 to 255" in note and "classes renumbered" in note for note in found.notes)
        assert torch.equal(seen[0], digits.validation.subset(slice(80)).images())
        with pytest.raises(ConfigError, match="calibrate: needs validation images"):
            wootz.evaluate(answer, digits.test, eps=0.1, n=20, query=query)


class TestServices:
    def test_a_served_run_falls_and_says_how_many_queries_it_gets(
        self, plain: nn.Module, digits: Dataset, caplog: pytest.LogCaptureFixture
    ) -> None:
        info = ModelInfo(name="m", shape=digits.shape, classes=digits.classes, data="mnist-5k", eps=0.1)
        with running(app(predictor(plain), info)) as url:
            found = wootz.evaluate(f"{url}/v2/models/m", digits, eps=0.4, n=10, attack="square", max_queries=50)
        assert found.robust_accuracy <= 0.2 < found.clean_accuracy
        assert found.queries is not None
        assert found.queries.total <= 520
        assert "up to 520 queries will be sent: 10 images, up to 50 each" in caplog.text

    def test_labels_are_enough(self, plain: nn.Module, digits: Dataset) -> None:
        with tf_serving(predictor(plain, "label")) as (url, _):
            found = wootz.evaluate(url, digits, eps=0.4, n=8, max_queries=300, access="label")
            assert found.robust_accuracy <= 0.3
            assert found.first_success.keys() == {"hop-skip-jump"}
            query = QueryConfig(client=("classes=" + ",".join(digits.classes),))
            with pytest.raises(ModelError, match=r"answers nothing usable.*does --access label help"):
                wootz.evaluate(url, digits, eps=0.4, n=8, query=query)

    @pytest.mark.parametrize("status", [503, 429])
    def test_a_failing_service_is_asked_on_where_it_stopped(
        self, status: int, plain: nn.Module, digits: Dataset
    ) -> None:
        query = QueryConfig(access="label", client=("max_tries=1",))
        settings = {"eps": 0.2, "n": 6, "max_queries": 150, "query": query}
        down = {7}
        with tf_serving(predictor(plain, "label"), lambda n: status if n in down else 200) as (url, sizes):
            with pytest.raises(InconclusiveError, match=rf"gave no answer \(status {status} at the last of 1 tries\)"):
                wootz.evaluate(url, digits, **settings)
            resumed = wootz.evaluate(url, digits, **settings)
            broken = sum(sizes) - sizes[6]
            before = len(sizes)
            whole = wootz.evaluate(url, digits, **settings)
        assert torch.equal(resumed.robust, whole.robust)
        assert resumed.queries == whole.queries
        assert broken == sum(sizes[before:])

    def test_the_command_line(
        self, plain: nn.Module, digits: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ["--data", "mnist-5k", "--eps", "8/255", "-n", "4", "--max-queries", "60", "--access", "label"]
        with tf_serving(predictor(plain, "label")) as (url, _):
            said = run_command(capsys, monkeypatch, "evaluate", url, *words, "--json")
            assert said.code == 0
            assert said.json["access"] == "label"
            assert said.json["robust"]["queries"]["total"] == said.json["queries"]  # type: ignore[index]
            said = run_command(capsys, monkeypatch, "evaluate", url)
            assert_usage_error(said, "needs --data", "--eps")
            said = run_command(capsys, monkeypatch, "evaluate", url, *words, "--attack", "apgd-ce")
            assert_usage_error(said, "apgd-ce: needs a model's gradients")
        said = run_command(capsys, monkeypatch, "evaluate", url, *words, "--endpoint-option", "max_tries=1")
        assert said.code == 3
        assert "INCONCLUSIVE" in said.err
        said = run_command(capsys, monkeypatch, "evaluate", "nothing.onnx", *words)
        assert_usage_error(said, "nothing.onnx", "No such file")
