"""Measure the adversarial training batches per second of several trainings that run side by side on one device.

    python benchmarks/training_rate.py [--model paper-cnn] [--steps 10] [--precision 32 bf16] [--processes 1 4]

Each process trains its own network on its own random images; all start together, and the figure is their sum. It
shows which `wootz bench --workers` and `--precision` to choose on a machine.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing as mp
import time
from multiprocessing.synchronize import Barrier

import torch

from wootz.models import MODELS, ModelSpec, build
from wootz.registry import lookup
from wootz.rng import generator
from wootz.training import LOSSES, Batch, Execution, Recipe


def work(execution: Execution, model: str, steps: int, seconds: float, start: Barrier, counts: mp.Queue) -> None:
    torch.set_num_threads(1)
    fabric = execution.fabric()
    spec = ModelSpec(architecture=model, settings={}, shape=(1, 28, 28), classes=tuple("0123456789"))
    net = build(spec, 0).to(fabric.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    forward, wrapped = fabric.setup(net, optimizer)
    x = torch.rand(128, 1, 28, 28, device=fabric.device)
    y = torch.randint(10, (128,), device=fabric.device)
    batch = Batch(x, y, torch.nn.functional.one_hot(y, 10).float())
    cfg, loss_function = Recipe(steps=steps), lookup(LOSSES, "pgd-at", "loss")
    stream = generator(0, "rate", device=fabric.device)

    def step() -> None:
        with fabric.autocast():
            loss = loss_function(cfg, net, forward, batch, eps=0.25, generator=stream)
        loss.item()
        optimizer.zero_grad()
        fabric.backward(loss)
        wrapped.step()

    for _ in range(5):
        step()
    start.wait()
    begin, count = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        step()
        count += 1
    counts.put(count / (time.monotonic() - begin))


def rate(execution: Execution, model: str, steps: int, seconds: float, processes: int) -> float:
    context = mp.get_context("spawn")
    start, counts = context.Barrier(processes), context.Queue()
    arguments = (execution, model, steps, seconds, start, counts)
    workers = [context.Process(target=work, args=arguments) for _ in range(processes)]
    for worker in workers:
        worker.start()
    total = sum(counts.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="paper-cnn", choices=list(MODELS))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["auto"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1])
    args = parser.parse_args()
    print("| processes | precision | batches of 128 per second, together |\n|--:|---|--:|")
    for precision, processes in itertools.product(args.precision, args.processes):
        execution = Execution(device=args.device, precision=precision)
        figure = rate(execution, args.model, args.steps, args.seconds, processes)
        print(f"| {processes} | {precision} | {figure:.1f} |", flush=True)


if __name__ == "__main__":
    main()
