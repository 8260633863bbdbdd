"""Suspects and victims behind HTTP, opened as a `Predict`."""

from wootz.endpoints.endpoint import Endpoint, open_endpoint
from wootz.endpoints.identity import Identity, describe
from wootz.endpoints.presentation import Presentation
from wootz.endpoints.settings import Client, Facts, Template
from wootz.endpoints.table import SHAPES
from wootz.endpoints.transcript import Missing

__all__ = [
    "Client", "Endpoint", "Facts", "Identity", "Missing", "Presentation", "SHAPES", "Template", "describe",
    "open_endpoint",
]  # fmt: skip
