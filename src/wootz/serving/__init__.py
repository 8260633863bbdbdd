"""A model behind the Open Inference Protocol v2: `app` makes it, `serve` or `running` starts it."""

from wootz.serving.app import Guarding, app
from wootz.serving.lock import read_token
from wootz.serving.querylog import QueryLog
from wootz.serving.server import listen, running, serve, url_of
from wootz.serving.settings import Limits, ModelInfo

__all__ = ["ModelInfo", "Guarding", "Limits", "QueryLog", "app", "listen", "read_token", "running", "serve", "url_of"]
