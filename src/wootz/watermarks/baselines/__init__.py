"""Baseline marks: what others embed by training, each with an exact test put beside its own.

Their usual evidence, accuracy on what was taught, proves nothing: a stranger's model may answer the same. So twice as
many candidates are made as are taught, a keyed half is taught, and the other half is the control (kind `half`). The
test asks whether the taught half is answered better. Where a mark generalizes from a pattern, both halves are answered
alike and the test sees nothing; `content-keyed` is our answer to that, with keyed labels (kind `labels`).
"""

from wootz.watermarks.baselines.app import App
from wootz.watermarks.baselines.blackmarks import Blackmarks
from wootz.watermarks.baselines.entangled import Entangled
from wootz.watermarks.baselines.frontier import Frontier
from wootz.watermarks.baselines.keyed_content import KeyedContent
from wootz.watermarks.baselines.margin import Margin
from wootz.watermarks.baselines.ood import OutOfDistribution
from wootz.watermarks.baselines.paper import Paper
from wootz.watermarks.baselines.unrelated import Unrelated
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
    "Unrelated",
]
