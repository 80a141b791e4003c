"""AdaMerge: ToMe by salience, with an amount that every image sets in every block."""

import torch

from suite.reducers.base import Reducer, register
from suite.tokens.grouping import full_precision, take
from suite.tokens.matching import normalize
from suite.tokens.padding import padded
from suite.tokens.products import cosines
from suite.tokens.ranking import best_first

LEARNED = ("mean", "deviation")
COSINES = "cosines"  # also in a weights file: whether its statistics are of those
SALIENCE = ("products", COSINES)


@register("adamerge")
class AdaMerge(Reducer):
    """Merge salient patches into their most similar among later ones; how many, the image's redundancy says.

    Source: Lee, Go and Choi, 2026, arXiv 2605.27465, whose code was not published: **a reading of the paper.** The
    salience s of a patch is what it receives of softmax(x xᵀ), from 0 to 1 within the image. Of the patches in their
    order, every one of the first half points at that of the second half with the largest s_i cos(x_i, x_j). With S
    their mean and z = (S - mean) / deviation / temperature, the r sigmoid(alpha z) best pointers, rounded down, become
    merges: means by s. r is the rate's, the most that a block takes out.

    When: images differ much in redundancy, batches are small, and there are training images for `train adamerge`.

    Decided here, for the paper leaves it open: alpha is 1; several that go to one are one mean by s; what is left of
    the first half stands before the second, in order; of an odd number the first half is the smaller; a group without
    salience is a plain mean; sizes are not used; every image has its own amount, and samples of a batch are padded to
    the longest; in the first of the paper's two passes for mean and deviation nothing is taken out.

    A weights file holds `mean` and `deviation` (L,), of S in every block over images of the training set, taken with
    the reduction that a first pass's brought: `train adamerge` makes it, for its rate. Without them every block takes
    out all of r, which is not the method's.

    mean, deviation: the same as options, one number a block. salience: `products` as above, or `cosines`, of
    softmax(cos(x, x)), which is not the paper's text: of products of long x few patches
    receive nearly all, and these are merged first.
    """

    rates = ("r",)
    input_dependent = True
    learned = "statistics"
    reads_sizes = False

    def __init__(
        self,
        mean: list[float] | None = None,
        deviation: list[float] | None = None,
        alpha: float = 1.0,
        temperature: float = 1.0,
        salience: str = "products",
    ) -> None:
        super().__init__()
        if salience not in SALIENCE:
            raise ValueError(f"salience {salience!r} is unknown; use {' or '.join(SALIENCE)}")
        if (mean is None) != (deviation is None) or len(mean or []) != len(deviation or []):
            raise ValueError("statistics are two lists, one number a block in each; give both mean and deviation")
        if temperature <= 0 or any(one <= 0 for one in deviation or []):
            raise ValueError("a temperature and deviations are above 0")
        # numbers, not tensors: a model's conversion to half precision is not to round them
        self.statistics = None if mean is None or deviation is None else list(zip(mean, deviation, strict=True))
        self.given, self.alpha, self.temperature = mean is not None, alpha, temperature
        self.salience = salience
        for name in (*LEARNED, COSINES):
            self.register_buffer(name, None)

    @property
    def trained(self):
        return self.statistics is not None

    def prepare(self, state):
        """Take the statistics of a weights file. ValueError, in one line, for what is none."""
        if self.given:
            raise ValueError("it was given statistics as options; leave these out, or the file")
        if lacking := [name for name in LEARNED if name not in state]:
            raise ValueError(f"it holds no {' and no '.join(lacking)}")
        mean, deviation = (state[name] for name in LEARNED)
        if mean.dim() != 1 or mean.shape != deviation.shape or not bool((deviation > 0).all()):
            raise ValueError("mean and deviation have to be one number a block in each, and deviations above 0")
        if (found := SALIENCE[bool(state.get(COSINES, False))]) != self.salience:
            raise ValueError(f"its statistics are of salience={found}, not of {self.salience}; say so, or measure anew")
        for name in {*LEARNED, COSINES} & state.keys():
            setattr(self, name, state[name].clone())
        self.statistics = list(zip(mean.tolist(), deviation.tolist()))

    def build(self, layout, stages):
        if self.statistics is not None and len(self.statistics) != layout.depth:
            raise ValueError(f"its statistics are of {len(self.statistics)} blocks; the model has {layout.depth}")

    def leaving(self, count, amount):
        return count  # at most, for nobody knows before the images

    def before_block(self, tokens, signals, amount):
        prefix = tokens.num_prefix
        x, valid = tokens.x[:, prefix:], tokens.valid
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            present = torch.ones_like(x[..., 0], dtype=torch.bool) if valid is None else valid[:, prefix:]
            wide = full_precision(x)
            salience = salience_of(normalize(wide) if self.salience == COSINES else wide, present)
            best, to, first = pointers(x, salience, present)
            most = self.most(best, first, signals.block, amount)
            gone = (best_first(best).argsort(1) < most) & first
            # where none is gone, too: a trace would leave out the cost of products that nothing came of
            places, valid = padded(present & ~gone)
            moved = ((present & ~gone).cumsum(1) - 1).clamp(min=0)
            target = moved.where(~gone, moved.gather(1, to))
        merged = salient_means(x, salience * present, target, present, places)
        return tokens.assign(merged, target, valid)

    def most(self, best, first, block, r):
        """How many of the pointers (B, T) become merges: (B, 1), or r where nobody knows what is usual."""
        if self.statistics is None:
            return r
        mean, deviation = self.statistics[block]
        z = (redundancy_of(best, first) - mean) / deviation / self.temperature
        return (r * (self.alpha * z).sigmoid()).floor()


def salience_of(x, present):
    """(B, T, C) -> (B, T) in [0, 1]: sums of the columns of softmax(x xᵀ), from the least to the largest of each image.

    present: (B, T) bool, False on padding.
    """
    received = (x @ x.transpose(1, 2)).masked_fill(~present[:, None], -torch.inf).softmax(2)
    received = (received * present[..., None]).sum(1)
    low = received.masked_fill(~present, torch.inf).amin(1, keepdim=True)
    high = received.masked_fill(~present, -torch.inf).amax(1, keepdim=True)
    return (received - low) / (high - low).clamp(min=torch.finfo(received.dtype).tiny)


def pointers(x, salience, present):
    """What every patch of the first half points at: its score (B, T), -inf in the second half, and the place (B, T);
    and (B, T) bool, who is in the first half."""
    place, half = torch.arange(x.shape[1], device=x.device), present.sum(1, keepdim=True) // 2
    first = place < half
    unit = normalize(x)
    alike = cosines(unit, unit).masked_fill(~((place >= half) & present)[:, None], -torch.inf)
    nearest, to = alike.max(2)  # one factor a row leaves their order, and may be too small for products to keep it
    return (salience * nearest).masked_fill(~first, -torch.inf), to, first


def redundancy_of(best, first):
    """S (B, 1): the mean score of the pointers (B, T) of the first half; 0 of none."""
    return best.masked_fill(~first, 0).sum(1, keepdim=True) / first.sum(1, keepdim=True).clamp(min=1)


def salient_means(x, salience, target, present, places):
    """(B, M, C) means by salience of the patches (B, T, C) that have the same target, plain ones of patches without
    any; a lone patch as it is.

    places: (B, M) where those that stay were.
    """
    present = present.to(salience.dtype)
    empty = salience.new_zeros(len(x), places.shape[1])
    largest = empty.scatter_reduce(1, target, salience, "amax").gather(1, target)
    # as parts of the group's largest: most are far too small for products with them
    weight = torch.where(largest > 0, salience / largest, present)
    share, members = (empty.scatter_add(1, target, one) for one in (weight, present))
    wide = full_precision(x) * weight[..., None]
    total = wide.new_zeros(*places.shape, x.shape[2]).scatter_add(1, target[..., None].expand_as(wide), wide)
    mean = total / share.clamp(min=1)[..., None]
    return torch.where(members[..., None] > 1, mean.to(x.dtype), take(x, places))
