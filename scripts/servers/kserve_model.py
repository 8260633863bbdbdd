"""Serve a model with kserve.

    .venvs/kserve/bin/python scripts/servers/kserve_model.py MODEL PORT

MODEL is an .npz (see `linear_model.py`), or a run folder, which PyTorch and wootz (on PYTHONPATH) read. It is served
under the name of the file or folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from linear_model import Linear


class Images(Model):
    """One input `image`, one output `scores`, as JSON or binary data."""

    def __init__(
        self, name: str, shape: tuple[int, ...], classes: int, scores: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        super().__init__(name)
        self.shape, self.classes, self.scores, self.ready = shape, classes, scores, True

    def get_input_types(self) -> list[dict]:
        """Return the metadata of the input."""
        return [{"name": "image", "datatype": "FP32", "shape": [-1, *self.shape]}]

    def get_output_types(self) -> list[dict]:
        """Return the metadata of the output."""
        return [{"name": "scores", "datatype": "FP32", "shape": [-1, self.classes]}]

    def predict(self, payload: InferRequest, headers: object = None, response_headers: object = None) -> InferResponse:
        """Answer a request."""
        scores = self.scores(payload.inputs[0].as_numpy())
        output = InferOutput(name="scores", shape=list(scores.shape), datatype="FP32")
        output.set_data_from_numpy(scores, binary_data=bool(payload.use_binary_outputs))
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=[output])


def linear(path: Path) -> Images:
    model = Linear(path)
    return Images(path.stem, model.shape, len(model.bias), model)


def network(folder: Path) -> Images:
    import torch

    from wootz.models import read_model

    model, spec, _ = read_model(folder)

    def scores(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.tensor(x)).log_softmax(1).numpy()

    return Images(folder.name, spec.shape, len(spec.classes), scores)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    served = network(place) if place.is_dir() else linear(place)
    ModelServer(http_port=int(sys.argv[2]), enable_grpc=False).start([served])
