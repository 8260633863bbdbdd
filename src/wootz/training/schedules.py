"""What changes along a run, as functions of the share of training done (0 to 1)."""

import math

from wootz.training.recipe import Recipe


def learning_rate(cfg: Recipe, done: float) -> float:
    """Rise linearly over `cfg.warmup`, then follow `cfg.schedule`."""
    if done < cfg.warmup:
        return cfg.lr * max(done / cfg.warmup, 0.01)
    if cfg.schedule == "constant":
        return cfg.lr
    return cfg.lr * max(0.5 * (1 + math.cos(math.pi * (done - cfg.warmup) / (1 - cfg.warmup))), 0.005)


def budget(cfg: Recipe, done: float) -> float:
    """Rise linearly over `cfg.ramp` to `cfg.eps`."""
    return cfg.eps if done >= cfg.ramp else cfg.eps * done / cfg.ramp
