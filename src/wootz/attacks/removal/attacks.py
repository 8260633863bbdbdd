"""The removal attacks by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wootz.attacks.removal.adaptive import Overwrite, RegressScores, overwrite, regress_scores
from wootz.attacks.removal.channels import Permute, permute
from wootz.attacks.removal.distillation import Attention, Distill, distill, nad
from wootz.attacks.removal.filters import FILTER_ATTACKS
from wootz.attacks.removal.finetune import LayerFinetune, Mixup, Regularize, finetune_layers, mixup, regularize
from wootz.attacks.removal.implicit import Implicit, ibau
from wootz.attacks.removal.neural_cleanse import NeuralCleanse, neural_cleanse
from wootz.attacks.removal.neuron_pruning import ChannelLipschitz, NeuronPruning, anp, clp
from wootz.attacks.removal.pruning import FinePrune, Prune, Structured, fine_prune, prune, prune_channels
from wootz.attacks.removal.weights import Quantize, WeightNoise, WeightShift, add_noise, quantize, shift_weights
from wootz.attacks.removal.wrk import Wrk, wrk
from wootz.types import Attack

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "ftll": Attack(
            finetune_layers,
            LayerFinetune(layers="last"),
            "arXiv 1802.04633 (FTLL)",
            "weights",
            "labeled data, 3 epochs",
        ),
        "finetune": Attack(
            finetune_layers, LayerFinetune(), "arXiv 1802.04633 (FTAL)", "weights", "labeled data, 3 epochs"
        ),
        "rtll": Attack(
            finetune_layers,
            LayerFinetune(layers="last", redraw=True),
            "arXiv 1802.04633 (RTLL)",
            "weights",
            "labeled data, 3 epochs",
        ),
        "rtal": Attack(
            finetune_layers, LayerFinetune(redraw=True), "arXiv 1802.04633 (RTAL)", "weights", "labeled data, 3 epochs"
        ),
        "finetune-smooth": Attack(
            finetune_layers,
            LayerFinetune(label_smoothing=0.1, epochs=10),
            "arXiv 1512.00567 (section 7)",
            "weights",
            "labeled data, 10 epochs",
        ),
        "finetune-robust": Attack(
            finetune_layers,
            LayerFinetune(loss="pgd-at", epochs=5),
            "arXiv 1706.06083",
            "weights",
            "labeled data, 5 adversarial epochs",
        ),
        "mixup": Attack(mixup, Mixup(), "arXiv 1710.09412", "weights", "labeled data, 10 epochs"),
        "regularize": Attack(regularize, Regularize(), "arXiv 1906.07745", "weights", "labeled data, 5 + 5 epochs"),
        "distill": Attack(distill, Distill(), "arXiv 1503.02531", "weights", "labeled data, 15 epochs"),
        "prune": Attack(prune, Prune(), "arXiv 1506.02626", "weights", "none"),
        "prune-layer": Attack(prune, Prune(scope="layer"), "arXiv 1506.02626", "weights", "none"),
        "prune-channels": Attack(prune_channels, Structured(), "arXiv 2301.12900", "weights", "none"),
        "fine-prune": Attack(fine_prune, FinePrune(), "arXiv 1805.12185", "weights", "labeled data, 3 epochs"),
        "quantize": Attack(quantize, Quantize(), "k-bit weights, one scale per channel", "weights", "none"),
        "quantize-4": Attack(quantize, Quantize(bits=4), "k-bit weights, one scale per channel", "weights", "none"),
        "quantize-2": Attack(quantize, Quantize(bits=2), "k-bit weights, one scale per channel", "weights", "none"),
        "weight-noise": Attack(add_noise, WeightNoise(), "Gaussian, by each tensor's spread", "weights", "none"),
        "weight-shift": Attack(
            shift_weights,
            WeightShift(),
            "after arXiv 2108.04974; the form is ours",
            "weights",
            "labeled data, 5 epochs",
        ),
        "feature-permute": Attack(permute, Permute(), "against arXiv 1701.04082", "weights", "none"),
        "overwrite": Attack(
            overwrite, Overwrite(), "ours, adaptive: our method, another key", "weights", "labeled data, 5 epochs"
        ),
        "regress-scores": Attack(
            regress_scores, RegressScores(), "ours, adaptive: against runner-up", "weights", "unlabeled data, 10 epochs"
        ),
        "neural-cleanse": Attack(neural_cleanse, NeuralCleanse(), "S&P 2019, Wang et al.", "weights", "labeled data"),
        "nad": Attack(nad, Attention(), "arXiv 2101.05930", "weights", "labeled data, 10 + 10 epochs"),
        "anp": Attack(anp, NeuronPruning(), "arXiv 2110.14430", "weights", "labeled data, 2,000 steps"),
        "clp": Attack(clp, ChannelLipschitz(), "arXiv 2208.03111", "weights", "none"),
        "i-bau": Attack(ibau, Implicit(), "arXiv 2110.03735", "weights", "labeled data, 20 epochs"),
        "wrk": Attack(wrk, Wrk(), "after arXiv 2511.07947; the form is ours", "weights", "labeled data, 10 epochs"),
        **FILTER_ATTACKS,
    }
)
