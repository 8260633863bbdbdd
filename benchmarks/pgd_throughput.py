"""Measure the images x steps per second of PGD, ours and that of other libraries, in one run on one machine.

    python benchmarks/pgd_throughput.py [--model paper-cnn] [--batch 256] [--steps 10] [--repeats 5] [--json]

All attack the same model in eval mode with the same images, eps, step size and number of steps, one after another
in turns; the figure is the median over the turns. `wootz` computes as training does here
(bfloat16 and channels-last where the hardware multiplies bfloat16 matrices), `wootz-float32` as evaluation
does. Peers that are not installed are left out; `make peers` installs them.

The fraction of the peak counts floating-point operations of matrix products and convolutions, forward and
backward to the input, against the best rate of a large bfloat16 matrix product on the same machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wootz.attacks.evasion import PGD, pgd
from wootz.models import MODELS, ModelSpec, build
from wootz.modes import eval_mode
from wootz.rng import generator

EPS = 0.25
Attack = Callable[[Tensor, Tensor], Any]


def ours(model: nn.Module, steps: int, *, fast: bool) -> Attack:
    cfg = PGD(eps=EPS, steps=steps, step_size=EPS / 4, keep="last")
    if fast:
        model = model.to(memory_format=torch.channels_last)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        if fast:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=fast):
            return pgd(cfg, model, x, y, generator=generator(0, "bench", device=x.device))

    return attack


def torchattacks(model: nn.Module, steps: int) -> Attack:
    import torchattacks as ta

    return ta.PGD(model, eps=EPS, alpha=EPS / 4, steps=steps, random_start=True)


def foolbox(model: nn.Module, steps: int) -> Attack:
    import foolbox as fb

    wrapped = fb.PyTorchModel(model, bounds=(0, 1), device=next(model.parameters()).device)
    attack = fb.attacks.LinfPGD(abs_stepsize=EPS / 4, steps=steps, random_start=True)
    return lambda x, y: attack.run(wrapped, x, fb.criteria.Misclassification(y), epsilon=EPS)


def cleverhans(model: nn.Module, steps: int) -> Attack:
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    def attack(x: Tensor, y: Tensor) -> Tensor:
        return projected_gradient_descent(
            model, x, EPS, EPS / 4, steps, float("inf"), clip_min=0, clip_max=1, y=y, sanity_checks=False
        )

    return attack


def art(model: nn.Module, steps: int) -> Attack:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    device = next(model.parameters()).device.type
    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        (1, 28, 28),
        10,
        clip_values=(0, 1),
        device_type="gpu" if device == "cuda" else "cpu",
    )
    peer = ProjectedGradientDescentPyTorch(
        classifier, eps=EPS, eps_step=EPS / 4, max_iter=steps, num_random_init=1, batch_size=4096, verbose=False
    )
    return lambda x, y: peer.generate(x.cpu().numpy(), y.cpu().numpy())


PEERS = {"torchattacks": torchattacks, "foolbox": foolbox, "cleverhans": cleverhans, "art": art}


def seconds(attack: Attack, x: Tensor, y: Tensor) -> float:
    start = time.perf_counter()
    attack(x, y)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def gemm_peak(device: str) -> float:
    """Best bfloat16 rate of a square matrix product, in operations per second."""
    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(12):
        start = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def operations(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Floating-point operations of one PGD step on one image."""
    with eval_mode(model), FlopCounterMode(display=False) as counter:
        point = x[:1].clone().requires_grad_(True)
        nn.functional.cross_entropy(model(point), y[:1]).backward()
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(MODELS), default="paper-cnn")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    size = 32 if args.model == "preact-resnet18" else 28
    spec = ModelSpec(architecture=args.model, settings={}, shape=(1, size, size), classes=tuple("0123456789"))
    stream = generator(0, "images")
    x = torch.rand(args.batch, 1, size, size, generator=stream).to(args.device)
    y = torch.randint(0, 10, (args.batch,), generator=stream).to(args.device)

    def fresh() -> nn.Module:
        return build(spec, 0).eval().to(args.device)

    attacks = {
        "wootz": ours(fresh(), args.steps, fast=True),
        "wootz-float32": ours(fresh(), args.steps, fast=False),
    }
    missing = []
    for name, make in PEERS.items():
        try:
            attacks[name] = make(fresh(), args.steps)
        except ImportError:
            missing.append(name)
    rates: dict[str, list[float]] = {name: [] for name in attacks}
    for turn in range(args.repeats + 1):
        for name, attack in attacks.items():
            taken = seconds(attack, x, y)
            if turn:
                rates[name].append(args.batch * args.steps / taken)
    speed = {name: statistics.median(values) for name, values in rates.items()}
    fraction = speed["wootz"] * operations(fresh(), x, y) / gemm_peak(args.device)
    if args.json:
        result = {
            "img_steps_per_second": {name: round(value) for name, value in speed.items()},
            "fraction_of_bf16_gemm_peak": round(fraction, 3),
            "model": args.model,
            "batch": args.batch,
            "steps": args.steps,
            "device": args.device,
        }
        print(json.dumps(result))
        return
    best = max((speed[name] for name in PEERS if name in speed), default=None)
    print(f"PGD-{args.steps} on {args.model}, {args.batch} images, {args.device}, torch {torch.__version__}")
    for name, value in sorted(speed.items(), key=lambda item: -item[1]):
        low, high = min(rates[name]), max(rates[name])
        ratio = f"  {value / best:5.2f} x the fastest peer" if best else ""
        print(f"{name:14s} {value:9,.0f} img x steps / s  ({low:,.0f} to {high:,.0f}){ratio}")
    print(f"fraction of the bfloat16 GEMM peak: {fraction:.1%}")
    if missing:
        print(f"not installed: {', '.join(missing)} (make peers)")


if __name__ == "__main__":
    main()
