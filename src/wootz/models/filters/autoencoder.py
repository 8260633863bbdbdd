"""A small autoencoder before the model: what it never saw, it does not draw (MagNet, arXiv 1705.09064)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from wootz import checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoencoder:
    """Channels of the first level, and of the narrow middle, at a quarter of height and width."""

    width: int = 16
    code: int = 8

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width, code=self.code)


class Redraw(nn.Module):
    """Redraws the images, then asks the model."""

    def __init__(self, cfg: Autoencoder, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, cfg.width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(cfg.width, cfg.code, 3, stride=2, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(cfg.code, 4 * cfg.width, 3, padding=1),
            nn.ReLU(),
            nn.PixelShuffle(2),
            nn.Conv2d(cfg.width, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def draw(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] -> what is left of them, of the same shape."""
        drawn: Tensor = self.decoder(self.encoder(x))
        return drawn[..., : x.shape[2], : x.shape[3]].sigmoid()

    def forward(self, inner: nn.Module, x: Tensor) -> Tensor:
        """Images -> logits [N, K]."""
        logits: Tensor = inner(self.draw(x))
        return logits


def autoencoder(cfg: Autoencoder, shape: tuple[int, int, int], num_classes: int) -> Redraw:
    """Return an autoencoder that has learned nothing yet, its weights drawn from the global random state."""
    return Redraw(cfg, shape[0])
