"""What networks do, done inside the walls of the isolated process: files of every dtype, architectures, operations.

Run as `python -I walled.py FOLDER WALLS THREADS...`: every suspect in the folder is read, then the walls are raised if
WALLS is 1, then each suspect is loaded and queried, and each operation is run with each number of threads. Prints
{name: numbers or an error}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def operations(torch: Any) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yield operations by name, each a function of the dtype."""
    from torch import nn
    from torch.nn import functional as F

    def some(*shape: int) -> Any:
        count = torch.Size(shape).numel()
        return ((torch.arange(count) * 7919 % 257).float() / 257).reshape(shape)

    def layer(make: Callable[[], Any], *shape: int) -> Callable[[Any], Any]:
        def run(dtype: Any) -> Any:
            torch.manual_seed(0)
            out = make().to(dtype).eval()(some(*shape).to(dtype))
            return out[0] if isinstance(out, tuple) else out

        return run

    def function(of: Callable[[Any], Any], *shape: int) -> Callable[[Any], Any]:
        return lambda dtype: of(some(*shape).to(dtype))

    image, sequence = (2, 4, 12, 12), (2, 9, 8)
    grid = torch.linspace(-1, 1, 50).view(1, 5, 5, 2).expand(2, 5, 5, 2)
    yield "conv1d", layer(lambda: nn.Conv1d(9, 6, 3), *sequence)
    yield "conv2d", layer(lambda: nn.Conv2d(4, 6, 3, padding=1), *image)
    yield "conv2d large", layer(lambda: nn.Conv2d(16, 32, 3, padding=1), 16, 16, 32, 32)
    yield "depthwise", layer(lambda: nn.Conv2d(4, 8, 3, groups=4), *image)
    yield "dilated", layer(lambda: nn.Conv2d(4, 8, 3, dilation=2, stride=2), *image)
    yield "transposed", layer(lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), *image)
    yield "conv3d", layer(lambda: nn.Conv3d(2, 3, 3), 2, 2, 6, 6, 6)
    yield (
        "channels last",
        function(lambda x: F.conv2d(x.to(memory_format=torch.channels_last), x[:, :, :3, :3].contiguous()), *image),
    )
    yield "linear", layer(lambda: nn.Linear(8, 5), *sequence)
    yield "linear large", layer(lambda: nn.Linear(512, 512), 256, 512)
    for name, make in (
        ("batch norm", lambda: nn.BatchNorm2d(4)),
        ("group norm", lambda: nn.GroupNorm(2, 4)),
        ("instance norm", lambda: nn.InstanceNorm2d(4)),
        ("layer norm", lambda: nn.LayerNorm([12, 12])),
        ("local response norm", lambda: nn.LocalResponseNorm(2)),
        ("max pool", lambda: nn.MaxPool2d(2)),
        ("average pool", lambda: nn.AvgPool2d(3)),
        ("adaptive pool", lambda: nn.AdaptiveAvgPool2d(1)),
        ("lp pool", lambda: nn.LPPool2d(2, 2)),
        ("pixel shuffle", lambda: nn.PixelShuffle(2)),
        ("reflection pad", lambda: nn.ReflectionPad2d(2)),
        ("unfold", lambda: nn.Unfold(3)),
        ("softmax", lambda: nn.Softmax(1)),
        ("gelu", nn.GELU),
        ("silu", nn.SiLU),
        ("mish", nn.Mish),
        ("softplus", nn.Softplus),
        ("prelu", nn.PReLU),
    ):
        yield name, layer(make, *image)
    yield "attention", layer(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), *sequence)
    yield "scaled dot product", function(lambda x: F.scaled_dot_product_attention(x, x, x), *sequence)
    yield "lstm", layer(lambda: nn.LSTM(8, 4, batch_first=True), *sequence)
    yield "gru", layer(lambda: nn.GRU(8, 4, batch_first=True), *sequence)
    for mode in ("nearest", "bilinear", "bicubic", "area"):
        yield (
            f"interpolate {mode}",
            function(lambda x, mode=mode: F.interpolate(x, scale_factor=1.5, mode=mode), *image),
        )
    yield "antialias", function(lambda x: F.interpolate(x, size=5, mode="bilinear", antialias=True), *image)
    yield "grid sample", function(lambda x: F.grid_sample(x, grid.to(x.dtype), align_corners=False), *image)
    yield "fft", function(lambda x: torch.fft.rfft2(x).abs(), *image)
    yield "inverse fft", function(lambda x: torch.fft.ifft2(x).real, *image)
    yield "matmul", function(lambda x: x @ x.mT, 3, 32, 32)
    yield "einsum", function(lambda x: torch.einsum("nct,nkt->nck", x, x), *sequence)
    yield "svd", function(lambda x: torch.linalg.svdvals(x), 6, 5)
    yield "solve", function(lambda x: torch.linalg.solve(x + torch.eye(6, dtype=x.dtype), x), 6, 6)
    yield "sort", function(lambda x: x.sort(-1).values, *image)
    yield "top k", function(lambda x: x.topk(3).values, *image)
    yield "cumsum", function(lambda x: x.cumsum(-1), *image)
    yield "embedding", function(lambda x: F.embedding(torch.tensor([1, 2]), x), 5, 4)
    yield "histogram", function(lambda x: torch.histc(x, 5), *image)
    yield "exp log", function(lambda x: (x.exp() + 1).log().erf().tanh(), *image)
    yield "random", lambda dtype: torch.manual_seed(0) and torch.rand(64).to(dtype)
    yield "normal", lambda dtype: torch.manual_seed(0) and torch.randn(64).to(dtype)
    yield (
        "quantized",
        function(
            lambda x: torch.nn.functional.linear(torch.quantize_per_tensor(x, 0.1, 0, torch.quint8).dequantize(), x),
            6,
            6,
        ),
    )


def main(folder: Path, thread_counts: list[int], *, walls: bool) -> None:
    """Run everything and print what came out."""
    from wootz.suspects.files.sandbox import drop_rights, leave_network

    users = leave_network()[1] if walls else False
    import safetensors.torch
    import torch

    from wootz.suspects.files.limits import Limits
    from wootz.suspects.files.loading import load
    from wootz.suspects.files.untrusted import Untrusted

    _ = safetensors
    suspects = [
        Untrusted(path.name, "torch-zip" if path.suffix == ".pt" else "safetensors", path.read_bytes(), about)  # type: ignore[arg-type]
        for path in sorted(folder.iterdir())
        if path.suffix in (".pt", ".safetensors")
        for about in [path.with_suffix(".json").read_bytes()]
    ]
    if walls:
        drop_rights(Limits(), threads=max(thread_counts), own_users=users)
    found: dict[str, Any] = {}
    for threads in thread_counts:
        torch.set_num_threads(threads)
        for suspect in suspects:
            loaded = load(suspect, Limits(), threads=threads)
            x = torch.linspace(0, 1, 3 * torch.Size(loaded.spec.shape).numel()).view(3, *loaded.spec.shape)
            found[f"{suspect.name} {threads}"] = loaded.predict(x).flatten().tolist()
        for name, run in operations(torch):
            for dtype in (torch.float16, torch.float32, torch.bfloat16, torch.float64):
                with torch.no_grad():
                    try:
                        result = run(dtype).double()
                        numbers: Any = [result.sum().item(), result.square().sum().item()]
                    except (RuntimeError, NotImplementedError) as error:
                        numbers = type(error).__name__
                found[f"{name} {dtype} {threads}"] = numbers
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(count) for count in sys.argv[3:]], walls=sys.argv[2] == "1")
