"""Device, precision and processes of a training run: settings that are not part of its digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from wootz import checks
from wootz.errors import ConfigError
from wootz.logs import quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Device and precision of training; evaluation is always float32.

    Attributes:
        device: the device; `auto` is CUDA if available, else the CPU.
        precision: the precision of training passes; `bf16` is bfloat16, and `auto` uses it if the hardware supports
            it natively.
        processes: the number of data-parallel processes (gloo on CPU, NCCL on CUDA).
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "bf16", "32"] = "auto"
    processes: int = 1

    def __post_init__(self) -> None:
        checks.at_least(1, processes=self.processes)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device = 'cuda': PyTorch sees no CUDA device here; use cpu or auto")

    @property
    def accelerator(self) -> Literal["cpu", "cuda"]:
        """The device after `auto` is resolved."""
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device

    @property
    def bfloat16(self) -> bool:
        """Whether training passes run in bfloat16, after `auto` is resolved."""
        if self.precision != "auto":
            return self.precision == "bf16"
        return torch.cuda.is_bf16_supported() if self.accelerator == "cuda" else _has_native_bfloat16()

    def fabric(self) -> Fabric:
        """Return the Fabric for device placement, mixed precision and synchronization."""
        quiet()
        strategy: str | DDPStrategy = "auto"
        if self.processes > 1:
            backend = "gloo" if self.accelerator == "cpu" else "nccl"
            # Buffers are averaged once per epoch; rebroadcasting them at every forward pass breaks the backward pass.
            strategy = DDPStrategy(start_method="spawn", process_group_backend=backend, broadcast_buffers=False)
        return Fabric(
            accelerator=self.accelerator,
            devices=self.processes,
            precision="bf16-mixed" if self.bfloat16 else "32-true",
            strategy=strategy,
        )

    def launch(self, work: Callable[[Fabric], None]) -> None:
        """Run `work`, which must be picklable, in each process, and return when all have ended."""
        self.fabric().launch(partial(_run_and_wait, work=work))


def _run_and_wait(fabric: Fabric, work: Callable[[Fabric], None]) -> None:
    """Run the work, then wait for all processes: one that left the process group early would abort the others."""
    work(fabric)
    fabric.barrier()
    torch.distributed.destroy_process_group()


def _has_native_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware, by matrices (AMX) or vectors (AVX-512)."""
    names = (
        "_is_amx_tile_supported",
        "_is_avx512_bf16_supported",
    )  # private, and missing from some versions of PyTorch
    return any(getattr(torch.cpu, name, bool)() for name in names)


_CHANNEL_BLOCK = 16
"""Channels in a block of oneDNN's kernels: 8 with AVX2, 16 with AVX-512."""


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Return the memory format to train in: channels last, which is faster, except where oneDNN has a bug.

    On CPUs, the weight gradient of a strided 1x1 convolution with fewer input channels than a block writes past its
    workspace in channels last (github.com/uxlfoundation/oneDNN/issues/6035): the process hangs or dies.
    """
    unsafe = device.type == "cpu" and any(
        isinstance(layer, nn.Conv2d)
        and tuple(layer.kernel_size) == (1, 1)
        and tuple(layer.stride) != (1, 1)
        and layer.in_channels // layer.groups < _CHANNEL_BLOCK
        for layer in model.modules()
    )
    return torch.contiguous_format if unsafe else torch.channels_last
