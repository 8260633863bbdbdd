"""The removal attacks that put a filter before or after the model, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wootz.attacks.removal.filter_autoencoder import Redrawing, redraw_inputs
from wootz.attacks.removal.filter_refuse import Refusing, refuse_oddities
from wootz.attacks.removal.filter_regress import Regressing, forget_scores
from wootz.attacks.removal.filtering import filtering
from wootz.models.filters.inputs import Blur, Grain, Jpeg, Median, Noise, Squeeze
from wootz.models.filters.outputs import Flatten, OutputNoise, Round, Temperature, TopK
from wootz.types import Attack

FILTERING: Mapping[str, Attack] = MappingProxyType(
    {
        "input-jpeg": Attack(filtering, Jpeg(), "arXiv 1608.00853", "weights", "none"),
        "input-blur": Attack(filtering, Blur(), "a Gaussian", "weights", "none"),
        "input-median": Attack(filtering, Median(), "arXiv 1704.01155", "weights", "none"),
        "input-quantize": Attack(filtering, Grain(), "arXiv 1704.01155", "weights", "none"),
        "input-noise": Attack(filtering, Noise(), "Gaussian, by the image's content", "weights", "none"),
        "input-squeeze": Attack(filtering, Squeeze(), "down and up again, bilinear", "weights", "none"),
        "input-autoencoder": Attack(redraw_inputs, Redrawing(), "arXiv 1705.09064", "weights", "unlabeled data"),
        "output-round": Attack(filtering, Round(), "arXiv 1609.02943, 7", "weights", "none"),
        "output-top-k": Attack(filtering, TopK(), "arXiv 1609.02943, 7", "weights", "none"),
        "output-temperature": Attack(filtering, Temperature(), "arXiv 1610.05820, 7", "weights", "none"),
        "output-noise": Attack(filtering, OutputNoise(), "Gaussian, by the image's content", "weights", "none"),
        "output-flatten": Attack(filtering, Flatten(), "wrong classes made equal", "weights", "none"),
        "output-regress": Attack(
            forget_scores, Regressing(), "ours, adaptive: against runner-up", "weights", "unlabeled data"
        ),
        "refuse": Attack(refuse_oddities, Refusing(), "ours, adaptive: against triggers", "weights", "unlabeled data"),
    }
)
