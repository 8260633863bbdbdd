"""Where and how fast a run goes: device, precision, processes. Nothing here belongs to the result's name."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Device and precision of training; evaluation is always float32.

    Attributes:
        device: `auto` is CUDA where there is one, else the CPU.
        precision: `bf16` computes training passes in bfloat16; `auto` does so where the hardware multiplies
            bfloat16 itself.
        processes: data-parallel processes (gloo on CPU, NCCL on CUDA).
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
        return torch.cuda.is_bf16_supported() if self.accelerator == "cuda" else _multiplies_bfloat16()

    def fabric(self) -> Fabric:
        """Return the Fabric that places, casts and synchronizes a training run."""
        strategy: str | DDPStrategy = "auto"
        if self.processes > 1:
            backend = "gloo" if self.accelerator == "cpu" else "nccl"
            # Buffers are averaged once an epoch; rebroadcasting them at every forward breaks backward.
            strategy = DDPStrategy(start_method="spawn", process_group_backend=backend, broadcast_buffers=False)
        return Fabric(
            accelerator=self.accelerator,
            devices=self.processes,
            precision="bf16-mixed" if self.bfloat16 else "32-true",
            strategy=strategy,
        )

    def launch(self, work: Callable[[Fabric], None]) -> None:
        """Do picklable `work` in each of several processes, and return when all have ended."""
        self.fabric().launch(partial(_done_together, work=work))


def _done_together(fabric: Fabric, work: Callable[[Fabric], None]) -> None:
    """Do the work; who is first then waits for the others, for a process that leaves a group in use brings it down."""
    work(fabric)
    fabric.barrier()
    torch.distributed.destroy_process_group()


def _multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware, by matrices (AMX) or vectors, so that bfloat16 is a gain."""
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # PyTorch has no public ones, nor always these
    return any(getattr(torch.cpu, name, bool)() for name in names)


_CHANNEL_BLOCK = 16
"""Channels in a block of oneDNN's kernels: 8 with AVX2, 16 with AVX-512."""


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Return the memory format to train in: channels last, which is faster, except where oneDNN cannot compute it.

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
