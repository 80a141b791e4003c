"""The unreduced model: the baseline of every comparison."""

from suite.contract.baseline import BASELINE
from suite.reducers.base import Reducer, register


@register(BASELINE)
class Unreduced(Reducer):
    """No reduction; the model as it is."""

    rates = ()
