"""Joint token pruning and squeezing, tokens chosen by a learned predictor."""

from torch import nn

from suite.pruning import ScorePredictor, squeeze
from suite.reducers.base import Reducer, register


@register("dtps")
class DTPS(Reducer):
    """Keep the patches that a predictor scores best and fold each of the others into its most similar kept one.

    Source: Wei et al., CVPR 2023, arXiv 2304.10716 (dTPS). Every stage has a predictor of its own, which sees the
    tokens before its block; int(T0 * keep^(k+1)) of the T0 original patches remain after stage k, in falling order of
    their scores. No sizes in attention or head.
    """

    rates = ("keep", "r")
    staged = True
    learned = "predictor"
    checkpoint_keys = {r"(score_predictor\..*)": r"\1"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.score_predictor = nn.ModuleList()

    def build(self, layout, stages):
        self.grow(self.score_predictor, stages, lambda: ScorePredictor(layout.width))

    def before_block(self, tokens, signals, amount):
        prefix = tokens.num_prefix
        score = self.score_predictor[signals.stage](tokens.x[:, prefix:])
        order = prefix + score.argsort(dim=1, descending=True, stable=True)
        return squeeze(tokens, order[:, :-amount], order[:, -amount:])
