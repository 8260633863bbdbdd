"""The description of a served model, and the metadata of model and server in the Open Inference Protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wootz import __version__, checks
from wootz.types import AnswerAccess

INPUT = "image"
VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The public description of a model.

    Attributes:
        name: the name that the model is served under.
        shape: channels, height and width of an input image.
        classes: the class names, in the order of the scores.
        data: the name of the training data set; empty omits it.
        set_aside: the held-out fraction of that data set; None omits it.
        size: the side that its images were resized to; None omits it.
        eps: the perturbation budget of adversarial training; None omits it.
        access: `scores` answers with scores and labels, `label` with labels only.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    data: str = ""
    set_aside: float | None = None
    size: int | None = None
    eps: float | None = None
    access: AnswerAccess = "scores"

    def __post_init__(self) -> None:
        checks.one_of(("scores", "label"), access=self.access)


def server_metadata() -> dict[str, Any]:
    """Return the metadata of the server."""
    return {"name": "wootz", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_metadata(info: ModelInfo) -> dict[str, Any]:
    """Return the metadata of a model; `parameters` has what the protocol has no field for."""
    shapes = {"scores": [-1, len(info.classes)], "label": [-1]}
    return {
        "name": info.name,
        "versions": [VERSION],
        "platform": "pytorch",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, *info.shape]}],
        "outputs": [
            {"name": name, "datatype": output_datatype(name), "shape": shapes[name]} for name in output_names(info)
        ],
        "parameters": {
            "classes": list(info.classes),
            "range": [0, 1],
            "access": info.access,
            **({"scores": "log-probabilities"} if info.access == "scores" else {}),
            **({"data": info.data} if info.data else {}),
            **({"set_aside": f"{info.set_aside:g}"} if info.set_aside is not None else {}),
            **({"size": info.size} if info.size is not None else {}),
            **({"eps": f"{info.eps:g}"} if info.eps is not None else {}),
        },
    }


def output_names(info: ModelInfo) -> tuple[str, ...]:
    """Return the names of the output tensors; a client that selects none reads the first one."""
    return ("scores", "label") if info.access == "scores" else ("label",)


def output_datatype(name: str) -> str:
    """Return the datatype of an output tensor, as the protocol spells it."""
    return "FP32" if name == "scores" else "INT64"
