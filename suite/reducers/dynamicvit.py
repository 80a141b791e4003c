"""DynamicViT: pruning by a learned predictor."""

from suite.reducers.base import register
from suite.reducers.score_predictor import PredictedPruning


@register("dynamicvit")
class DynamicViT(PredictedPruning):
    """Keep the patches that a predictor scores best, drop the others.

    Source: Rao et al., NeurIPS 2021, arXiv 2106.02034. Every stage has a predictor of its own, which sees the tokens
    before its block; int(T0 * keep^(k+1)) of the T0 original patches remain after stage k, in falling order of their
    scores. In training all stay, and those that would go are masked.

    When: model and predictors can be trained together; the baseline of learned pruning.
    """

    def take_out(self, tokens, staying, leaving):
        return tokens.keep_rows(staying)

    def take_out_softly(self, patches, staying, leaving):
        return patches
