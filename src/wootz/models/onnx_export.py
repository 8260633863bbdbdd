"""A model as an ONNX file, for those who serve it elsewhere."""

from __future__ import annotations

import io
import json
import warnings

import torch
from torch import nn

from wootz.models.saved import ModelSpec
from wootz.modes import eval_mode

OPSET = 17


def to_onnx(model: nn.Module, spec: ModelSpec) -> bytes:
    """Return the model as one ONNX file: images float32 [N, C, H, W] in [0, 1] -> logits [N, K], normalization inside.

    The classes' names stand in its metadata as `classes`, a JSON list. Filters whose work is no tensor operation
    (JPEG) can not be exported.
    """
    import onnx

    written, x = io.BytesIO(), torch.zeros(2, *spec.shape)
    with eval_mode(model), warnings.catch_warnings():
        # The newer exporter (dynamo) needs a package that we do not; the older one says so at every call.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (x,),
            written,  # type: ignore[arg-type]  # its older exporter takes open files
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "N"}, "logits": {0: "N"}},
        )
    made = onnx.load_model_from_string(written.getvalue())
    onnx.helper.set_model_props(made, {"classes": json.dumps(list(spec.classes))})
    data: bytes = made.SerializeToString()
    return data
