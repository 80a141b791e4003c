"""The unreduced model: the baseline of every comparison."""

from suite.reducers.base import Reducer, register


@register("none")
class Unreduced(Reducer):
    """No reduction; the model as it is."""

    rates = ()
