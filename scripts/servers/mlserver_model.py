"""Serve a model with mlserver.

    .venvs/mlserver/bin/python scripts/servers/mlserver_model.py MODEL.npz PORT

For MODEL.npz see `linear_model.py`; it is served under its name. mlserver's settings go into a folder beside it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from linear_model import Linear
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Images(MLModel):
    """One input `image`, one output `scores`, as JSON."""

    async def load(self) -> bool:
        """Read the model."""
        self._model = Linear(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request."""
        scores = self._model(NumpyCodec.decode_input(payload.inputs[0]))
        output = NumpyCodec.encode_output("scores", scores)
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])


def settings(model: Path, port: int) -> dict[str, dict]:
    shape, classes = Linear(model).shape, len(Linear(model).bias)
    return {
        "settings.json": {
            "host": "127.0.0.1", "http_port": port, "grpc_port": 0, "metrics_endpoint": None, "parallel_workers": 0
        },
        "model-settings.json": {
            "name": model.stem,
            "implementation": "mlserver_model.Images",
            "parameters": {"uri": str(model.resolve())},
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, *shape]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, classes]}],
        },
    }  # fmt: skip


if __name__ == "__main__":
    place = Path(sys.argv[1])
    folder = place.with_suffix(".mlserver")
    folder.mkdir(exist_ok=True)
    for name, value in settings(place, int(sys.argv[2])).items():
        (folder / name).write_text(json.dumps(value))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.resolve())
    command = str(Path(sys.executable).parent / "mlserver")
    os.execv(command, [command, "start", str(folder)])
