"""CubistMerge: a grid of patches made smaller that stays a grid."""

import torch
import torch.nn.functional as F

from suite.reducers.base import Reducer, register
from suite.tokens.constants import positions, remembered
from suite.tokens.grouping import Matching, take
from suite.tokens.matching import normalize
from suite.tokens.ranking import best_first


@register("cubist_merge")
class CubistMerge(Reducer):
    """Take as many patches out of every row, then out of every column, each line its own, so that a grid is left.

    Source: Gong and Lis, arXiv 2509.21764. In a line, every second patch looks at its two neighbours and would go to
    the more similar one (cosine of the residual stream, of equal ones the left); those of the highest similarity do.
    A merged token has, channel by channel, the value of the larger magnitude of two. Where two patches go to the same
    one, as in the authors' code on a CPU, one of them is lost: with the first, third, ... of a line's ranks written
    first, then the second, fourth, ..., the later one stays; its group owns both.

    When: what follows wants a grid: a decoder, or positions that turn.

    lines=[4,3] takes 4 rows and 3 columns out, at most every second one; keep=0.7 leaves the nearest grid whose shape
    is about that of before. Acts once, before the second block, unless the rate names others.
    """

    rates = ("keep", "lines")
    keeps_grid = True
    reads_sizes = False

    def active_blocks(self, kind, depth):
        return (min(1, depth - 1),)

    def before_block(self, tokens, signals, amount):
        (rows, columns), (rows_left, columns_left) = signals.grids
        tokens = thin(tokens, (rows, columns), columns - columns_left, across=False)
        return thin(tokens, (rows, columns_left), rows - rows_left, across=True)


def thin(tokens, grid, r, across):
    """Tokens of which r patches were taken out of every line of their `grid`. across: lines are its columns."""
    if r == 0:
        return tokens
    prefix, (rows, columns) = tokens.num_prefix, grid
    x = tokens.x[:, prefix:].unflatten(1, grid)
    left = (rows - r, columns) if across else (rows, columns - r)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        cosines = neighbour_cosines(x.transpose(1, 2) if across else x)
        # positions in lines -> in the sequence: those before of who stays and who goes, those after of who takes in
        kept, best, source, into = choose(cosines.flatten(0, 1), r)
        before, after = (line_starts(len(x), prefix, shape, across, x.device) for shape in (grid, left))
        step = columns if across else 1
        kept, best, source = (torch.add(before, index, alpha=step) for index in (kept, best, source))
        into = torch.add(after, into, alpha=step)

    def in_order(places):
        lines = places.unflatten(0, cosines.shape[:2])
        patches = (lines.transpose(1, 2) if across else lines).flatten(1)
        return torch.cat([positions(0, prefix, 1, x.device).expand(len(x), -1), patches], dim=1)

    kept, best = in_order(kept), in_order(best)
    source, into = (index.unflatten(0, cosines.shape[:2]).flatten(1) for index in (source, into))
    matching = Matching(kept, source, into)
    return tokens.merge(matching, x=larger(take(tokens.x, best), take(tokens.x, kept)))


def larger(source, target):
    """Channel by channel the value of the larger magnitude; of equal ones the target's."""
    return torch.where(source.abs() > target.abs(), source, target)


@remembered
def line_starts(batch, first, grid, across, device):
    """(B·L, 1) int64: where each line of each sample's grid begins, whose first patch stands at `first`."""
    rows, columns = grid
    step, lines = (1, columns) if across else (columns, rows)
    return first + (step * torch.arange(lines, device=device)).repeat(batch)[:, None]


def neighbour_cosines(lines):
    """(B, L, t, C) -> (B, L, t - 1) cosines of neighbours, added up in float32 at least."""
    unit = normalize(lines)
    return (unit[:, :, 1:] * unit[:, :, :-1]).sum(3, dtype=torch.promote_types(unit.dtype, torch.float32))


def choose(cosines, r):
    """Who goes where in each line, by (L, t - 1) cosines of neighbours; places within the lines.

    kept (L, t - r): who stays, ascending. best (L, t - r): whose value each of them is compared with, its own where
    nobody is merged into it. source (L, r): who goes. into (L, r): the place afterwards that it goes to.
    """
    lines, count = len(cosines), cosines.shape[1] + 1
    to_left, to_right = cosines[:, ::2], cosines[:, 1::2]
    sources, targets = count // 2, count - count // 2
    to_right = F.pad(to_right, (0, sources - to_right.shape[1]), value=-torch.inf)
    right = to_right > to_left
    first = best_first(torch.maximum(to_left, to_right))[:, :r]
    # when each of them is written, from 1; 0: it stays
    turn = torch.zeros_like(first[:, :1]).repeat(1, sources)
    turn = turn.scatter_(1, first, turns(r, cosines.device).expand(lines, -1))
    after = F.pad(turn.masked_fill(right, 0), (0, targets - sources))
    before = F.pad(turn.masked_fill(~right, 0), (1, 0))[:, :targets]
    place = positions(0, count, 1, cosines.device).expand(lines, -1)
    best = place.clone()
    best[:, ::2] += torch.sign(after - before)  # of the two that may go to an even place the one that is written later
    stays = torch.ones_like(best)
    stays[:, 1::2] = turn == 0
    moved = stays.cumsum(1) - 1
    # those that go are put into a place more, and cut off
    kept = torch.empty_like(best).scatter_(1, moved.masked_fill(stays == 0, count - 1), place)[:, : count - r]
    return kept, best.gather(1, kept), 2 * first + 1, moved.gather(1, 2 * (first + right.gather(1, first)))


@remembered
def turns(r, device):
    """(1, r) int64: when the source of each rank is written, from 1; even ranks first."""
    rank = torch.arange(r, device=device)[None]
    return 1 + rank // 2 + (rank % 2) * r
