"""Keys of small material, and suspects that lean along a keyed direction."""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.keys import DirectionKey, Key, RegisteredMaterial, derive_key
from wootz.types import Predict

K, D = 10, 8


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 6, 6), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def direction_material() -> RegisteredMaterial:
    eye = torch.eye(36)[:, :D]
    prior = (torch.ones(K, K) - torch.eye(K)) / (K - 1)
    tensors = {
        "components": eye,
        "center": torch.full((36,), 0.5),
        "class_mean": torch.zeros(K, D),
        "class_scale": torch.full((K, D), 0.3),
        "prior": prior,
        "probes": images(3000, 1),
        "probe_labels": torch.arange(3000) % K,
    }
    return RegisteredMaterial("direction", tensors, {})


def key(material: RegisteredMaterial, secret: int = 0) -> Key:
    return derive_key("m", material, K, [secret.to_bytes(32, "big")], b"D" * 32)


def direction(secret: int = 0) -> DirectionKey:
    found = key(direction_material(), secret)
    assert isinstance(found, DirectionKey)
    return found


def direction_suspect(owned: DirectionKey, strength: float, noise: float = 1.0) -> Predict:
    """Return a suspect whose wrong-class scores lean along the key, under noise that knows nothing of it."""
    stream = torch.Generator().manual_seed(3)
    table = {image.numpy().tobytes(): number for number, image in enumerate(owned.probes)}
    z = owned.features(owned.probes.float() / 255, owned.probe_labels)
    scores = strength * torch.einsum("nkd,nd->nk", owned.direction[owned.probe_labels], z)
    scores += noise * torch.randn(scores.shape, generator=stream)
    scores = scores.scatter(1, owned.probe_labels[:, None], 5.0)

    def predict(x: Tensor) -> Tensor:
        return scores[[table[i.mul(255).round().to(torch.uint8).numpy().tobytes()] for i in x]]

    return predict
