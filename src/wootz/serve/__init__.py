"""A model behind the Open Inference Protocol v2: `app` makes it, `serve` or `running` starts it."""

from wootz.serve.app import Guarding, app
from wootz.serve.lock import read_token
from wootz.serve.querylog import QueryLog
from wootz.serve.server import listen, running, serve, url_of
from wootz.serve.settings import Facts, Limits

__all__ = ["Facts", "Guarding", "Limits", "QueryLog", "app", "listen", "read_token", "running", "serve", "url_of"]
