"""Baseline marks: what others embed by training, each with an exact test put beside its own.

Their usual evidence, accuracy on what was taught, proves nothing: a stranger's model may answer the same. So twice as
many candidates are made as are taught, a keyed half is taught, and the other half is the control (kind `half`). The
test asks whether the taught half is answered better. Where a mark generalizes from a pattern, both halves are answered
alike and the test sees nothing; `content-keyed` is our answer to that, with keyed labels (kind `labels`).
"""

from wootz.marks.baselines.app import App
from wootz.marks.baselines.blackmarks import Blackmarks
from wootz.marks.baselines.entangled import Entangled
from wootz.marks.baselines.frontier import Frontier
from wootz.marks.baselines.keyed_content import KeyedContent
from wootz.marks.baselines.margin import Margin
from wootz.marks.baselines.ood import OutOfDistribution
from wootz.marks.baselines.paper import Paper
from wootz.marks.baselines.unrelated import Unrelated
from wootz.marks.baselines.within_class import Content, Noise

__all__ = [
    "App", "Blackmarks", "Content", "Entangled", "Frontier", "KeyedContent", "Margin", "Noise", "OutOfDistribution",
    "Paper", "Unrelated",
]  # fmt: skip
