"""Channel Lipschitzness pruning (Zheng et al., arXiv 2208.03111): channels that amplify too much go; no data needed.

A trigger moves some channels far more than any change of an ordinary image does. How far a channel can be moved is
bounded by its Lipschitz constant, which shows in the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.removal.neurons import hidden_layers, norm_after, without_neurons


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLipschitz:
    """Channels go that lie more than `u` standard deviations above their layer's mean.

    The source's u is 3. No channel of n can lie further out than (n - 1) / sqrt(n): layers of ten channels or fewer
    need a smaller u.
    """

    u: float = 3.0

    def __post_init__(self) -> None:
        checks.positive(u=self.u)


def clp(cfg: ChannelLipschitz, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` without those channels of its convolutions; neither data nor randomness are used."""
    gone = {}
    for name, layer in hidden_layers(model).items():
        if isinstance(layer, nn.Conv2d):
            constants = lipschitz(model, name)
            gone[name] = constants > constants.mean() + cfg.u * constants.std(correction=0)
    return without_neurons(model, gone)


def lipschitz(model: nn.Module, name: str) -> Tensor:
    """Return the constant [channels] of a convolution: its kernels' spectral norms, times the norm's scale if any.

    As in the source, the kernel is read as the matrix [inputs, places], which stands in for the convolution.
    """
    constants: Tensor = torch.linalg.matrix_norm(model.get_parameter(f"{name}.weight").detach().flatten(2), ord=2)
    norm = norm_after(model, name)
    if norm is not None and norm.running_var is not None:
        constants = constants * (norm.weight.detach() / (norm.running_var + norm.eps).sqrt()).abs()
    return constants
