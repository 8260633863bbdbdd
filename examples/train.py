"""An ordinary training loop that knows nothing of wootz, apart from the loader of class folders.

python examples/train.py FOLDER weights.pt [--size 64] [--epochs 12] [--eps 4/255] [--seed 0]

Trains the network of `resnet.py`, with `--eps` on adversarial examples of a single step from a random start (Wong et
al., arXiv 2001.03994), and saves its state dict by `torch.save`.
"""

from __future__ import annotations

import argparse
from fractions import Fraction

import torch
from resnet import make
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import load


def adversarial(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return adversarial examples within `eps` of images [N, C, H, W]: one step of 1.25 eps from a random point."""
    start = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1).requires_grad_()
    gradient = torch.autograd.grad(F.cross_entropy(model(start), y), start)[0]
    point = start.detach() + 1.25 * eps * gradient.sign()
    return point.clamp(x - eps, x + eps).clamp(0, 1)


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--eps", type=Fraction, default=Fraction(0))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    data = load(given.data, size=given.size)
    x, y = data.train.images(), data.train.labels
    model = make(len(data.classes), data.shape[0], given.width)
    steps = given.epochs * (len(y) // 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    for epoch in range(given.epochs):
        model.train()
        for rows in torch.randperm(len(y))[: len(y) // 64 * 64].split(64):
            images = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, x[rows].flip(3), x[rows])
            if given.eps:
                images = adversarial(model, images, y[rows], float(given.eps))
            loss = F.cross_entropy(model(images), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            scores = torch.cat([model(part) for part in data.test.images().split(256)])
        print(f"epoch {epoch}: test accuracy {(scores.argmax(1) == data.test.labels).float().mean():.2%}")
    torch.save(model.state_dict(), given.out)


if __name__ == "__main__":
    main()
