"""Baseline marks: published watermarks that are embedded by training, each with an exact test added to its own.

The usual evidence for these marks, the accuracy on the trained triggers, is not proof, because an independent model may
answer in the same way. Therefore twice as many candidates are made as are embedded: a keyed half is embedded, and the
other half is the control (kind `half`). The exact test compares the answers to the two halves. If the model generalizes
from a common pattern of the triggers, it answers both halves alike, and the test finds nothing; `content-keyed` avoids
this with keyed labels (kind `labels`). `uchida` embeds keyed bits in the weights (kind `weights`).
"""

from wootz.watermarks.baselines.app import App
from wootz.watermarks.baselines.blackmarks import Blackmarks
from wootz.watermarks.baselines.entangled import Entangled
from wootz.watermarks.baselines.frontier import Frontier
from wootz.watermarks.baselines.keyed_content import KeyedContent
from wootz.watermarks.baselines.margin import Margin
from wootz.watermarks.baselines.out_of_distribution import OutOfDistribution, Unrelated
from wootz.watermarks.baselines.paper import Paper
from wootz.watermarks.baselines.uchida import Uchida
from wootz.watermarks.baselines.within_class import Content, Noise

__all__ = [
    "App",
    "Blackmarks",
    "Content",
    "Entangled",
    "Frontier",
    "KeyedContent",
    "Margin",
    "Noise",
    "OutOfDistribution",
    "Paper",
    "Uchida",
    "Unrelated",
]
