"""The input format and class order of a suspect are detected on ordinary images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.data import Dataset
from wootz.errors import ModelError
from wootz.statistics.calibration import InputFormat, detect_input_format, with_input_format
from wootz.statistics.queries import LabelledImages
from wootz.suspects.endpoints import Identity
from wootz.suspects.files import predictor
from wootz.types import Predict
from wootz.workflows.suspects import Suspect, fitting
from wootz.workflows.verify import calibrated_suspect

ORDER = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])  # the suspect's class k is the key's ORDER[k]


def habits(plain: nn.Module, scale: str, layout: str, side: int, *, labels: bool) -> Predict:
    """Return `plain` as a service with this input format and another class order."""
    back = {
        "0 to 1": lambda x: x,
        "0 to 255": lambda x: x / 255,
        "-1 to 1": lambda x: (x + 1) / 2,
    }[scale]
    model = predictor(plain)

    def answer(x: Tensor) -> Tensor:
        x = back(x.permute(0, 3, 1, 2) if layout == "NHWC" else x)
        assert x.shape[2:] == (side, side)
        said = model(F.interpolate(x, (28, 28), mode="bilinear", antialias=True))
        said = said[:, ORDER]
        return said.argmax(1) if labels else said

    return answer


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize(
    ("scale", "layout", "side"),
    [("0 to 1", "NCHW", 28), ("0 to 255", "NHWC", 28), ("-1 to 1", "NCHW", 32), ("0 to 255", "NCHW", 56)],
)
def test_the_input_format_is_detected_and_applied(
    digits: Dataset, plain: nn.Module, scale: str, layout: str, side: int, labels: bool
) -> None:
    suspect = habits(plain, scale, layout, side, labels=labels)
    shape = (1, side, side) if layout == "NCHW" else (side, side, 1)
    few, rest = digits.probes.subset(slice(200)), digits.probes.subset(slice(200, 600))
    found = detect_input_format(suspect, few.pixels, few.labels, shape=shape, num_classes=10)
    assert (found.scale, found.layout, found.size) == (scale, layout, (side, side))
    assert found.classes == tuple(ORDER.tolist())
    assert "classes renumbered" in found.describe()
    said = with_input_format(suspect, found)(rest.images())
    top = said if labels else said.argmax(1)
    assert (top == rest.labels).float().mean() > 0.85
    assert (top == predictor(plain)(rest.images()).argmax(1)).float().mean() > 0.9


def test_the_default_format_changes_nothing(digits: Dataset, plain: nn.Module) -> None:
    few = digits.probes.subset(slice(100))
    found = detect_input_format(predictor(plain), few.pixels, few.labels, shape=digits.shape, num_classes=10)
    assert found._replace(accuracy=0) == InputFormat("0 to 1", "NCHW", False, (28, 28), tuple(range(10)), 0)
    x = few.images()
    assert torch.equal(with_input_format(predictor(plain), found)(x), predictor(plain)(x))


def test_missing_answers_and_unknown_classes_stay_missing(digits: Dataset) -> None:
    few = digits.probes.subset(slice(50))

    def refuses(x: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x)) % 2 == 0, -1, 77)

    found = detect_input_format(refuses, few.pixels, few.labels, shape=digits.shape, num_classes=10)
    assert found.accuracy == 0
    assert (with_input_format(refuses, found)(few.images()) == -1).all()


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("place", [0, 4, 10])
def test_a_class_that_is_never_answered_is_left_out(
    digits: Dataset, plain: nn.Module, place: int, labels: bool
) -> None:
    """A thief adds an output that is never the largest: answers are those of the model without it."""
    model = predictor(plain)

    def padded(x: Tensor) -> Tensor:
        scores = model(x)
        scores = torch.cat([scores[:, :place], scores.amin(1, keepdim=True) - 1, scores[:, place:]], 1)
        return scores.argmax(1) if labels else scores

    few, rest = digits.probes.subset(slice(200)), digits.probes.subset(slice(200, 300)).images()
    suspect = Suspect(
        predict=padded, shape=None, num_classes=11, identity=Identity("thief", ""), about={}, remote=False
    )
    registration = {"shape": digits.shape, "classes": digits.classes}
    with pytest.raises(ModelError, match=r"knows 11 classes.* --calibrate 200 leaves out classes"):
        fitting(registration, suspect)
    found = fitting(registration, calibrated_suspect(registration, suspect, LabelledImages(*few)))
    assert torch.equal(found.predict(rest), model(rest).argmax(1) if labels else model(rest))
    nine = replace(suspect, predict=lambda x: model(x)[:, :9], num_classes=None)
    found = fitting(registration, calibrated_suspect(registration, nine, LabelledImages(*few)))
    with pytest.raises(ModelError, match="knows 9 classes"):
        found.predict(rest)


@pytest.mark.parametrize(("missed", "taken"), [(10, "0 to 1"), (16, "standardized")])
def test_the_default_format_is_kept_if_another_is_hardly_better(missed: int, taken: str, digits: Dataset) -> None:
    """A service that errs on 8 of 200 images where they come standardized, and on some more as they are."""
    few = digits.probes.subset(slice(200))
    wrong = (few.labels + 1) % 10

    def suspect(x: Tensor) -> Tensor:
        errors = 150 if x.max() > 50 or x.min() == -1 else 8 if x.min() < 0 else missed
        return torch.where(torch.arange(200) < errors, wrong, few.labels)

    found = detect_input_format(suspect, few.pixels, few.labels, shape=digits.shape, num_classes=10)
    assert found.scale == taken
