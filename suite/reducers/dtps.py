"""Joint token pruning and squeezing, tokens chosen by a learned predictor."""

from suite.reducers.base import register
from suite.reducers.score_predictor import PredictedPruning
from suite.reducers.squeeze import squeeze_rows, squeeze_softly


@register("dtps")
class DTPS(PredictedPruning):
    """Keep the patches that a predictor scores best and fold each of the others into its most similar kept one.

    Source: Wei et al., CVPR 2023, arXiv 2304.10716 (dTPS). Every stage has a predictor of its own, which sees the
    tokens before its block; int(T0 * keep^(k+1)) of the T0 original patches remain after stage k, in falling order of
    their scores. No sizes in attention or head. In training all stay, and those that would go are masked.

    When: model and predictors can be trained together, attention has to stay fused, and nothing is to be lost.
    """

    def take_out(self, tokens, staying, leaving):
        return squeeze_rows(tokens, staying, leaving)

    def take_out_softly(self, patches, staying, leaving):
        return squeeze_softly(patches, staying, leaving)
