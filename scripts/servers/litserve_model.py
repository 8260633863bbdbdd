"""Serve a model with litserve, at /predict: {"instances": images} -> {"predictions": scores}.

    .venvs/litserve/bin/python scripts/servers/litserve_model.py MODEL.npz PORT

For MODEL.npz see `linear_model.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import litserve
import numpy as np
from linear_model import Linear


class Images(litserve.LitAPI):
    """Images [N, C, H, W] in [0, 1] -> scores."""

    def setup(self, device: str) -> None:
        """Read the model."""
        self._model = Linear(Path(sys.argv[1]))

    def decode_request(self, request: dict) -> np.ndarray:
        """Return the images."""
        return np.array(request["instances"], np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the scores."""
        return self._model(x)

    def encode_response(self, output: np.ndarray) -> dict:
        """Return them as JSON."""
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Images(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
