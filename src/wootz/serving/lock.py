"""Who may ask: whoever shows the token."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from pathlib import Path

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from wootz.errors import ConfigError
from wootz.store import read_bytes

VARIABLE = "WOOTZ_TOKEN"

_OPEN = "/v2/health/"


class Lock:
    """Lets nobody in without the token (`Authorization: Bearer`); health is for everybody."""

    def __init__(self, app: ASGIApp, token: str, refuse: Callable[[int, str, dict[str, str]], Response]) -> None:
        self._app, self._token, self._refuse = app, token.encode(), refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401."""
        if scope["type"] != "http" or scope["path"].startswith(_OPEN) or self._fits(scope):
            await self._app(scope, receive, send)
            return
        refusal = self._refuse(401, "needs a token (Authorization: Bearer TOKEN)", {"WWW-Authenticate": "Bearer"})
        await refusal(scope, receive, send)

    def _fits(self, scope: Scope) -> bool:
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = shown.partition(b" ")
        return hmac.compare_digest(token.strip(), self._token) and scheme.lower() == b"bearer"


def read_token(path: Path | None) -> str:
    """Return the token in a file, or else in $WOOTZ_TOKEN; empty where there is neither.

    Raises:
        StoreError: the file can not be read.
        ConfigError: it holds no token, or something else.
    """
    text = os.environ.get(VARIABLE, "") if path is None else read_bytes(path).decode("latin-1")
    token = text.strip()
    if not all("!" <= character <= "~" for character in token) or (path is not None and not token):
        raise ConfigError(f"{path or VARIABLE}: must be one word of printable ASCII")
    return token
