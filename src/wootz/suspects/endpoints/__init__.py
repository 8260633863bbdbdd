"""HTTP clients of remote models: suspects and extraction targets, opened as a `Predict`."""

from wootz.suspects.endpoints.adapters import API_ADAPTERS
from wootz.suspects.endpoints.client_config import Client, Template
from wootz.suspects.endpoints.context import EndpointInfo, Identity, endpoint_identity
from wootz.suspects.endpoints.endpoint import Endpoint, open_endpoint
from wootz.suspects.endpoints.preprocessing import Preprocessing
from wootz.suspects.endpoints.transcript import MissingReason

__all__ = [
    "API_ADAPTERS",
    "Client",
    "Endpoint",
    "EndpointInfo",
    "Identity",
    "MissingReason",
    "Preprocessing",
    "Template",
    "endpoint_identity",
    "open_endpoint",
]
