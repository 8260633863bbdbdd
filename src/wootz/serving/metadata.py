"""What the protocol says of server and model: names, datatypes, shapes."""

from __future__ import annotations

from typing import Any

from wootz import __version__
from wootz.serving.settings import ModelInfo

INPUT = "image"
VERSION = "1"


def about_server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "wootz", "version": __version__, "extensions": ["binary_tensor_data"]}


def about_model(info: ModelInfo) -> dict[str, Any]:
    """Return the model's metadata; what the protocol has no field for stands in `parameters`."""
    widths = {"scores": [-1, len(info.classes)], "label": [-1]}
    return {
        "name": info.name,
        "versions": [VERSION],
        "platform": "pytorch",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, *info.shape]}],
        "outputs": [{"name": n, "datatype": datatype(n), "shape": widths[n]} for n in outputs(info)],
        "parameters": {
            "classes": list(info.classes),
            "range": [0, 1],
            "access": info.access,
            **({"scores": "log-probabilities"} if info.access == "scores" else {}),
            **({"data": info.data} if info.data else {}),
            **({"set_aside": f"{info.set_aside:g}"} if info.set_aside is not None else {}),
            **({"eps": f"{info.eps:g}"} if info.eps is not None else {}),
        },
    }


def outputs(info: ModelInfo) -> tuple[str, ...]:
    """Return the names of what can be asked for; the first is what a client takes that does not choose."""
    return ("scores", "label") if info.access == "scores" else ("label",)


def datatype(output: str) -> str:
    """Return an output's datatype, as the protocol spells it."""
    return "FP32" if output == "scores" else "INT64"
