"""Which trigger images does a detector tell from ordinary images, and what do refused ones leave of the bits?

    python benchmarks/blending.py RUN [--design pgd|splice] [--fresh --wm-eps 0.998] [--seed 2] [--json]

RUN is a run folder with the mark `triggers`. With `--fresh` only its panel is used: triggers of the design are made
anew, and no model is asked. `--design` is how RUN's triggers were made, and how the thief makes his own. Detectors are
fitted to the thief's share and to triggers that the thief makes with models trained on that share; no detector sees a
trigger of RUN. The limit of each refuses 0.1% or 1% of the test images.

`splice` copies a window of one training image into another (as CutMix does, Yun et al., arXiv 1905.04899). A window
counts where all panel models then answer another class than the base image's. Of those the one is taken whose rim
fits best.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.attacks.evasion import margin, predict_logits
from wootz.checks import gray_levels
from wootz.data import Dataset, Split, load
from wootz.errors import ConfigError
from wootz.keys import read_keys
from wootz.models import ModelSpec, build, read_model
from wootz.rng import generator
from wootz.statistics import verify
from wootz.suspects.files import predictor
from wootz.training import Recipe, train
from wootz.types import Predict
from wootz.watermarks import MarkContext, Triggers, check_wm_eps
from wootz.watermarks.out_of_ball import near_any, out_of_ball_examples

SIDES = (0.25, 0.5)
"""Sides of a window, in parts of the image's. A larger window holds a whole object of the other image."""
WINDOWS = 128
"""Windows tried for each base image."""
SHARES = (0.001, 0.01)
"""Ordinary images that are refused."""
OWN, THIEFS = 512, 1024


class Scores(NamedTuple):
    """What a detector says of test images and of triggers; the higher, the more like a trigger."""

    ordinary: Tensor
    triggers: Tensor


def make(
    design: str, mark_context: MarkContext, count: int, *, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return triggers uint8 and the rows of their base images, by one of the designs; see `out_of_ball_examples`."""
    if design == "pgd":
        return out_of_ball_examples(mark_context, count, alpha=alpha, steps=Triggers().steps, generator=generator)
    check_wm_eps(mark_context.eps, alpha, mark_context.wm_eps)
    training, low, high = (
        mark_context.data.train,
        gray_levels(mark_context.eps + alpha),
        gray_levels(mark_context.wm_eps),
    )
    pixels, kept = [], []
    for rows in torch.randperm(len(training), generator=generator).split(256):
        base = training.subset(rows)
        spliced = splice(mark_context.panel, base, training.pixels, reach=high, generator=generator)
        far = (spliced.int() - base.pixels.int()).abs().flatten(1).amax(1)
        good = (far > low) & ~near_any(spliced, training.pixels, low)
        pixels.append(spliced[good])
        kept.append(rows[good])
        if sum(map(len, kept)) >= count:
            return torch.cat(pixels)[:count], torch.cat(kept)[:count]
    raise ConfigError(f"only {sum(map(len, kept))} of {count} triggers could be spliced")


def splice(
    models: Sequence[nn.Module], base: Split, donors: Tensor, *, reach: int, generator: torch.Generator
) -> Tensor:
    """Return base images, each with the window that fools all models, changes no pixel by more, and fits best.

    An image for which there is no such window is returned as it is.
    """
    best, fit = base.pixels.clone(), torch.full((len(base),), float("inf"))
    for _ in range(WINDOWS):
        donor = donors[torch.randint(len(donors), (len(base),), generator=generator)]
        inside = windows(len(base), base.pixels.shape[2], base.pixels.shape[3], generator)
        gap = (donor.int() - base.pixels.int()).abs()
        seam = rim_of(gap.float(), inside)
        rows = (((gap * inside).flatten(1).amax(1) <= reach) & (seam < fit)).nonzero().squeeze(1)
        spliced = torch.where(inside[rows], donor[rows], base.pixels[rows])
        fooled = torch.ones(len(rows), dtype=torch.bool)
        for model in models:
            fooled &= margin(predict_logits(model, spliced.float().div(255)), base.labels[rows]) > 0
        best[rows[fooled]], fit[rows[fooled]] = spliced[fooled], seam[rows[fooled]]
    return best


def windows(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return which pixels bool [count, 1, height, width] lie in a window of random size and place."""
    inside = torch.ones(count, 1, height, width, dtype=torch.bool)
    for dim, length in ((2, height), (3, width)):
        low, high = (max(1, round(side * length)) for side in SIDES)
        size = torch.randint(low, high + 1, (count, 1), generator=generator)
        start = (torch.rand(count, 1, generator=generator) * (length - size + 1)).long()
        places = torch.arange(length)
        inside &= ((places >= start) & (places < start + size))[:, None, :, None].transpose(2, dim)
    return inside


def rim_of(gap: Tensor, inside: Tensor) -> Tensor:
    """Return the mean of `gap` [N, C, H, W] along the rim of each window [N], one pixel to either side."""
    rim = F.max_pool2d(inside.float(), 3, 1, 1) - (1 - F.max_pool2d(1 - inside.float(), 3, 1, 1))
    return (gap * rim).flatten(1).sum(1) / (rim.flatten(1).sum(1) * gap.shape[1])


def statistics(pixels: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Return what simple detectors look at, each float [N]; `known` are the thief's images uint8 [M, C, H, W]."""
    flat, others = pixels.flatten(1).float(), known.flatten(1).float()
    low, high = known.amin(0), known.amax(0)
    frequency = torch.bincount(known.flatten().int(), minlength=256).float() + 1
    surprise = -(frequency / frequency.sum()).log2()
    across, down = (pixels.float().diff(dim=dim).abs().flatten(1).mean(1) for dim in (3, 2))
    near = torch.cat([torch.cdist(part, others).amin(1) for part in flat.split(1000)])
    return {
        "mid-gray": ((pixels >= 64) & (pixels <= 191)).flatten(1).float().mean(1),
        "variation": across + down,
        "nearest": near,
        "off range": ((pixels < low) | (pixels > high)).flatten(1).float().mean(1),
        "rare levels": surprise[pixels.int()].flatten(1).mean(1),
    }


def histogram(pixels: Tensor) -> Tensor:
    """Return the root of how many pixels have each level, float [N, 256]."""
    return torch.stack([torch.bincount(image, minlength=256) for image in pixels.flatten(1).int()]).float().sqrt()


def logistic(ordinary: Tensor, triggers: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a logistic regression on features [N, d], either class of the same weight."""
    deviation, center = torch.std_mean(ordinary, 0)

    def scaled(features: Tensor) -> Tensor:
        return ((features - center) / deviation.clamp_min(1e-4)).clamp(-10, 10)

    x = scaled(torch.cat([ordinary, triggers]))
    y = torch.cat([torch.zeros(len(ordinary)), torch.ones(len(triggers))])
    weight = torch.where(y > 0, len(ordinary) / len(triggers), 1.0)
    net = nn.Linear(x.shape[1], 1)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (
            F.binary_cross_entropy_with_logits(net(x).squeeze(1), y, weight=weight) + 1e-3 * net.weight.square().sum()
        )
        value.backward()
        return value

    optimizer.step(loss)
    return lambda features: net(scaled(features)).detach().squeeze(1)


def with_products(features: Tensor) -> Tensor:
    """Return features [N, d] and all products of two of them."""
    first, second = torch.triu_indices(features.shape[1], features.shape[1])
    return torch.cat([features, features[:, first] * features[:, second]], 1)


def convolutional(ordinary: Tensor, triggers: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return a small network, trained for 400 steps on 64 images of either class."""
    channels, height, width = ordinary.shape[1:]
    net = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 64),
        nn.ReLU(),
        nn.Linear(64, 1),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    y = torch.arange(2).repeat_interleave(64).float()
    for _ in range(400):
        few = [part[torch.randint(len(part), (64,), generator=generator)] for part in (ordinary, triggers)]
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(net(torch.cat(few).float().div(255)).squeeze(1), y).backward()
        optimizer.step()
        schedule.step()
    return lambda pixels: predict_logits(net.eval(), pixels.float().div(255)).squeeze(1)


def image_detectors(data: Dataset, triggers: Tensor, thiefs: Tensor, seed: int) -> dict[str, Scores]:
    """Return what detectors that look at images say; they are fitted to the thief's images and triggers."""
    half = len(data.thief) // 2
    known, ordinary = data.thief.pixels[:half], data.thief.pixels[half:]
    images = {"ordinary": ordinary, "thiefs": thiefs, "test": data.test.pixels, "owners": triggers}
    numbers = {name: statistics(pixels, known) for name, pixels in images.items()}
    found = {}
    for name in numbers["test"]:
        sign = 1 if numbers["thiefs"][name].mean() >= numbers["ordinary"][name].mean() else -1
        found[name] = Scores(sign * numbers["test"][name], sign * numbers["owners"][name])
    deviation, center = torch.std_mean(torch.stack([*numbers["ordinary"].values()], 1), 0)
    together = {
        name: with_products((torch.stack([*row.values()], 1) - center) / deviation.clamp_min(1e-6))
        for name, row in numbers.items()
    }
    levels_of = {name: histogram(pixels) for name, pixels in images.items()}
    for name, features in {"these five": together, "histogram": levels_of}.items():
        said = logistic(features["ordinary"], features["thiefs"])
        found[name] = Scores(said(features["test"]), said(features["owners"]))
    net = convolutional(ordinary, thiefs, generator(seed, "detector"))
    return found | {"network": Scores(net(data.test.pixels), net(triggers))}


def answer_detectors(model: nn.Module, own: nn.Module, data: Dataset, triggers: Tensor) -> dict[str, Scores]:
    """Return what a thief sees in the stolen model's answers, alone and beside a model of the thief's own."""

    def both(pixels: Tensor) -> tuple[Tensor, Tensor]:
        top = predict_logits(model, pixels.float().div(255)).softmax(1).max(1)
        other = predict_logits(own, pixels.float().div(255)).log_softmax(1)
        return -top.values, -other.gather(1, top.indices[:, None]).squeeze(1)

    test, owners = both(data.test.pixels), both(triggers)
    return {
        name: Scores(*pair)
        for name, pair in zip(("doubt", "second model"), zip(test, owners, strict=True), strict=True)
    }


def area(scores: Scores) -> float:
    """Return the chance that a trigger scores higher than an ordinary image, ties counted half."""
    ordered = scores.ordinary.sort().values
    below, up_to = (torch.searchsorted(ordered, scores.triggers, right=right) for right in (False, True))
    return float((below + up_to).double().mean()) / (2 * len(ordered))


def caught(scores: Scores, share: float) -> Tensor:
    """Return which triggers a detector refuses that refuses this share of ordinary images at most."""
    return scores.triggers > scores.ordinary.sort().values[-int(share * len(scores.ordinary)) - 1]


def refusing(model: nn.Module, refused: Tensor, x: Tensor) -> Tensor:
    """Return the model's scores of the triggers, all at once, NaN where they are refused."""
    scores = predict_logits(model, x)
    scores[refused] = torch.nan
    return scores


def thiefs_models(spec: ModelSpec, data: Dataset, eps: float, seed: int) -> tuple[nn.Module, nn.Module]:
    """Return a robust and a plain model, trained on the thief's share."""
    recipes = Recipe(eps=eps, steps=2, epochs=6, lr=3e-3), Recipe(loss="natural", eps=eps, epochs=3, lr=3e-3)
    robust, plain = (
        train(recipe, build(spec, seed + number), data.thief, data.validation, seed=seed).model
        for number, recipe in enumerate(recipes)
    )
    return robust, plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--design", choices=("pgd", "splice"), default="pgd")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--wm-eps", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    robust, spec, about = read_model(args.run / "panel" / "robust")
    panel = robust, read_model(args.run / "panel" / "plain")[0]
    eps, data = float(about["eps"]), load(about["data"])
    mark_context = MarkContext(data=data, panel=panel, model=robust, eps=eps, wm_eps=args.wm_eps)
    alpha, owner_keys = Triggers().alpha, None
    if args.fresh:
        triggers, _ = make(args.design, mark_context, OWN, alpha=alpha, generator=generator(args.seed, "owner"))
    else:
        owner_keys, model = read_keys(args.run), read_model(args.run)[0]
        triggers, params = owner_keys.materials["triggers"].tensors["pixels"], owner_keys.materials["triggers"].params
        alpha, mark_context = float(params["alpha"]), replace(mark_context, wm_eps=float(params["wm_eps"]))
    thief = thiefs_models(spec, data, eps, args.seed)
    his = replace(mark_context, data=replace(data, train=data.thief), panel=thief)
    thiefs, _ = make(args.design, his, THIEFS, alpha=alpha, generator=generator(args.seed, "thief"))
    found = image_detectors(data, triggers, thiefs, args.seed)
    answers: list[Predict] = [predictor(member) for member in panel]
    if owner_keys:
        found |= answer_detectors(model, thief[0], data, triggers)
        keys = {"triggers": owner_keys.by_mark["triggers"]}
        whole = verify(keys, predictor(model), panel=answers).evidence[0].bits
        print(json.dumps({"bits": round(whole, 1)}) if args.json else f"all answered: {whole:.1f} bits")
    for name, scores in found.items():
        row = {"detector": name, "auc": round(area(scores), 3)}
        row |= {f"caught at {share:.1%}": round(float(caught(scores, share).float().mean()), 3) for share in SHARES}
        if owner_keys:
            predict = partial(refusing, model, caught(scores, SHARES[-1]))
            row["bits left"] = round(verify(keys, predict, panel=answers).evidence[0].bits, 1)
        print(json.dumps(row) if args.json else "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
