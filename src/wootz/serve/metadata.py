"""What the protocol says of server and model: names, datatypes, shapes."""

from __future__ import annotations

from typing import Any

from wootz import __version__
from wootz.serve.settings import Facts

INPUT = "image"
VERSION = "1"


def about_server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "wootz", "version": __version__, "extensions": ["binary_tensor_data"]}


def about_model(facts: Facts) -> dict[str, Any]:
    """Return the model's metadata; what the protocol has no field for stands in `parameters`."""
    widths = {"scores": [-1, len(facts.classes)], "label": [-1]}
    return {
        "name": facts.name,
        "versions": [VERSION],
        "platform": "pytorch",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, *facts.shape]}],
        "outputs": [{"name": n, "datatype": datatype(n), "shape": widths[n]} for n in outputs(facts)],
        "parameters": {
            "classes": list(facts.classes),
            "range": [0, 1],
            "access": facts.access,
            **({"scores": "log-probabilities"} if facts.access == "scores" else {}),
            **({"data": facts.data} if facts.data else {}),
            **({"set_aside": f"{facts.set_aside:g}"} if facts.set_aside is not None else {}),
            **({"eps": f"{facts.eps:g}"} if facts.eps is not None else {}),
        },
    }


def outputs(facts: Facts) -> tuple[str, ...]:
    """Return the names of what can be asked for; the first is what a client takes that does not choose."""
    return ("scores", "label") if facts.access == "scores" else ("label",)


def datatype(output: str) -> str:
    """Return an output's datatype, as the protocol spells it."""
    return "FP32" if output == "scores" else "INT64"
