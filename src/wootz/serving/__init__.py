"""A model server by the Open Inference Protocol v2: `app` creates the application, `serve` and `running` run it."""

# ruff: noqa: E402
from wootz.extras import require

require("serve")

from wootz.serving.admission import ServingLimits, read_token
from wootz.serving.app import ScoreFilter, app
from wootz.serving.model_info import ModelInfo
from wootz.serving.query_log import QueryLog
from wootz.serving.server import listen, running, serve, url_of

__all__ = [
    "ModelInfo",
    "QueryLog",
    "ScoreFilter",
    "ServingLimits",
    "app",
    "listen",
    "read_token",
    "running",
    "serve",
    "url_of",
]
