"""Suspects and victims behind HTTP, opened as a `Predict`."""

from wootz.suspects.endpoints.endpoint import Endpoint, open_endpoint
from wootz.suspects.endpoints.identity import Identity, describe
from wootz.suspects.endpoints.presentation import Presentation
from wootz.suspects.endpoints.settings import Client, EndpointInfo, Template
from wootz.suspects.endpoints.table import SHAPES
from wootz.suspects.endpoints.transcript import Missing

__all__ = [
    "Client",
    "Endpoint",
    "EndpointInfo",
    "Identity",
    "Missing",
    "Presentation",
    "SHAPES",
    "Template",
    "describe",
    "open_endpoint",
]
