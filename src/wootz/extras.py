"""Optional dependencies, by the extra of the package that installs them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType

from wootz.errors import ConfigError

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "serve": ("httptools", "orjson", "prometheus_client", "starlette", "uvicorn"),
        "onnx": ("onnx", "onnxruntime"),
        "report": ("jinja2", "matplotlib"),
        "autoattack": ("pyautoattack",),
        "demo": ("mlxtend",),
        "ray": ("ray",),
        "timm": ("timm",),
        "hf": ("transformers",),
        "datasets": ("datasets",),
    }
)
"""Extra -> modules that it installs."""


def require(extra: str) -> None:
    """Check that the modules of an extra are installed.

    Raises:
        ConfigError: one is missing; the message names the extra.
    """
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)}: not installed; this needs the extra {extra!r}: pip install 'wootz[{extra}]'"
        )
