"""A wrapper that makes a network of other code a model of images in [0, 1]: it resizes, normalizes, finds logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.errors import ConfigError

_LARGEST_SIZE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapper:
    """What is done around a network.

    Attributes:
        mean: per channel, subtracted from images in [0, 1]; one value is for all channels, none is 0.
        std: per channel, that images are divided by afterwards; one value is for all channels, none is 1.
        size: the side in pixels that images are resized to first; None keeps their size.
        logits: the attribute or key of the network's output that holds the logits; empty for a plain tensor, or an
            output with `logits`.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int | None = None
    logits: str = ""

    def __post_init__(self) -> None:
        for value in self.std:
            checks.positive(std=value)
        for value in self.mean:
            checks.within(-1000, 1000, mean=value)
        if self.size is not None:
            checks.within(1, _LARGEST_SIZE, size=self.size)

    def network_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return channels, height and width of images of `shape` as the network gets them."""
        return shape if self.size is None else (shape[0], self.size, self.size)


class Wrapped(nn.Module):
    """A network in its wrapper: images float32 [N, C, H, W] in [0, 1] -> logits [N, K].

    Its tensors have the names that they have in the network, so that state dicts of either load into the other.
    """

    def __init__(self, network: nn.Module, wrapper: Wrapper) -> None:
        super().__init__()
        self.network, self.wrapper = network, wrapper
        self.register_load_state_dict_pre_hook(_into_network)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        cfg = self.wrapper
        if cfg.size is not None and tuple(x.shape[2:]) != (cfg.size, cfg.size):
            x = _resized(x, cfg.size)
        if cfg.mean:
            x = x - _per_channel(cfg.mean, x)
        if cfg.std:
            x = x / _per_channel(cfg.std, x)
        output = self.network(x)
        return output if isinstance(output, Tensor) else _logits_of(output, cfg.logits or "logits")

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """Return the network's state dict."""
        return self.network.state_dict(*args, **options)


def _into_network(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the tensors of a state dict the names that they have inside the wrapper."""
    for name in [name for name in state_dict if name.startswith(prefix)]:
        state_dict[f"{prefix}network.{name[len(prefix) :]}"] = state_dict.pop(name)


def _resized(x: Tensor, size: int) -> Tensor:
    """Return images of `size` pixels a side: means over whole blocks of pixels first, then bilinear.

    Bilinear resizing with antialiasing would do the same, but cannot be exported to ONNX.
    """
    if (factor := min(x.shape[2:]) // size) > 1:
        x = F.avg_pool2d(x, factor)
    return F.interpolate(x, (size, size), mode="bilinear")


def _per_channel(values: tuple[float, ...], x: Tensor) -> Tensor:
    if len(values) not in (1, x.shape[1]):
        raise ConfigError(f"wrapper: {len(values)} values of mean or std for images with {x.shape[1]} channels")
    return x.new_tensor(values).view(1, -1, 1, 1)


def _logits_of(output: Any, name: str) -> Tensor:
    logits = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    if not isinstance(logits, Tensor):
        raise ConfigError(
            f"the network returns {type(output).__name__} without {name!r}; name its logits: --set wrapper.logits=NAME"
        )
    return logits
