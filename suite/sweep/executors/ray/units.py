"""Which worker does what: batches handed out in blocks that get smaller, work taken over from slow workers at the end,
and what becomes of the work of a worker that dies.

Pure bookkeeping: nothing here knows of Ray, models or files.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple, Protocol

MOST, LEAST = 32, 2  # batches that a worker holds: so many that it reads ahead, so few that they can be taken back
RUNNING = 2  # pairs that a worker is at, or as good as
KILLS = 3  # workers that a cell's batch may kill by itself before the cell has failed


class Pair(NamedTuple):
    """A batch that a cell is put through; `lane` is the place of the cell's plan."""

    lane: int
    number: int
    key: str


class Piece(NamedTuple):
    """A batch and the cells that it is put through, in this order."""

    lane: int
    number: int
    keys: tuple[str, ...]

    def pairs(self) -> list[Pair]:
        return [Pair(self.lane, self.number, key) for key in self.keys]


class Supply(Protocol):
    """The batches of a plan that nobody was given yet."""

    @property
    def left(self) -> int:
        """How many there are, at most."""

    def take(self) -> tuple[int, Sequence[str]] | None:
        """The next batch and the cells that are to see it; None if there is none."""


@dataclass
class _Held:
    """What a worker was given and has not reported, in order. alone: the pair that it runs by itself."""

    lane: int = -1
    pieces: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    alone: Pair | None = None

    def pairs(self) -> Iterator[Pair]:
        return (Pair(*batch, key) for batch, keys in self.pieces.items() for key in keys)

    def remove(self, pair: Pair) -> None:
        keys = self.pieces[batch := (pair.lane, pair.number)]
        keys.remove(pair.key)
        if not keys:
            del self.pieces[batch]
        if self.alone == pair:
            self.alone = None


class Schedule:
    """What is left to do, and who has what of it.

    A worker is given as many batches as it can hold of what is left, `MOST` at first and less towards the end; one that
    has nothing to do takes half of what another has not begun. Of a worker that dies, what it may have been at is run
    again by itself, pair by pair, and until then nobody is given more of these cells; what kills `KILLS` workers so is
    not run again. Every pair is `done` once, whoever has run it.
    """

    def __init__(self, supplies: Sequence[Supply], in_flight: int) -> None:
        """in_flight: pairs that a worker may have begun beyond those that it has reported."""
        self.supplies, self.in_flight = supplies, in_flight
        self.held: dict[int, _Held] = {}
        self.failed_at: dict[tuple[int, str], int] = {}
        self._holder: dict[Pair, int] = {}
        self._returned: dict[int, deque[Piece]] = defaultdict(deque)
        self._withheld: dict[int, list[Piece]] = defaultdict(list)
        self._alone: deque[Pair] = deque()
        self._suspected: Counter[tuple[int, str]] = Counter()
        self._kills: Counter[Pair] = Counter()
        self._drops: dict[int, list[Pair]] = defaultdict(list)

    @property
    def finished(self) -> bool:
        left = chain(self._returned.values(), self._withheld.values(), [self._holder, self._alone])
        return not any(left) and not any(supply.left for supply in self.supplies)

    def join(self, worker: int) -> None:
        """A worker that has nothing yet."""
        self.held[worker] = _Held()

    def give(self, worker: int) -> list[Piece]:
        """What a worker is to be sent now, after what it has."""
        held = self.held[worker]
        if held.alone:
            return []
        if not held.pieces and self._alone:
            held.alone = pair = self._alone.popleft()
            return [self._hold(worker, Piece(pair.lane, pair.number, (pair.key,)))]
        given = []
        while (lane := self._lane_for(held)) is not None and len(held.pieces) < self._most(lane):
            piece = self._next(lane)
            if piece is not None:
                given.append(self._hold(worker, piece))
        if not held.pieces:
            given = [self._hold(worker, piece) for piece in self._steal()]
        return given

    def drops(self, worker: int) -> list[Pair]:
        """The pairs that a worker need not run any more; told once."""
        return self._drops.pop(worker, [])

    def done(self, worker: int, pair: Pair) -> bool:
        """A worker has run a pair. False if that was done already, or is nobody's."""
        holder = self._holder.pop(pair, None)
        if holder is None:
            return False
        self._take_from(holder, pair)
        if holder != worker:
            self._drops[holder].append(pair)
        return True

    def fail(self, lane: int, key: str, number: int = -1) -> bool:
        """A cell has failed at a batch: later ones are not run. False if it has at an earlier one.

        Those before are, so that it is always the first that is told. -1: none are run.
        """
        if number >= self.failed_at.get((lane, key), number + 1):
            return False
        self.failed_at[lane, key] = number
        for pair in [pair for pair in self._holder if self._is_out(pair)]:
            holder = self._holder.pop(pair)
            self._take_from(holder, pair)
            self._drops[holder].append(pair)
        for pair in [pair for pair in self._alone if self._is_out(pair)]:
            self._alone.remove(pair)
            self._clear(pair)
        return True

    def lost(self, worker: int, opened: Collection[int]) -> list[Pair]:
        """A worker is dead. Returns what has killed too many, whose cell is to `fail`.

        opened: the plans that it had made; else nothing that it was given can have killed it.
        """
        self._drops.pop(worker, None)
        held = self.held.pop(worker)
        pairs = list(held.pairs())
        begun = bool(pairs) and pairs[0].lane in opened
        for pair in pairs:
            del self._holder[pair]
        if held.alone is not None:
            self._kills[held.alone] += begun
            self._alone.append(held.alone)
            return [held.alone] if self._kills[held.alone] >= KILLS else []
        suspects = list(islice(pairs, self.in_flight if begun else 0))
        self._alone.extend(suspects)
        self._suspected.update((pair.lane, pair.key) for pair in suspects)
        for pair in suspects:
            held.remove(pair)
        for (lane, number), keys in reversed(held.pieces.items()):
            self._returned[lane].appendleft(Piece(lane, number, tuple(keys)))
        return []

    def _hold(self, worker: int, piece: Piece) -> Piece:
        self.held[worker].lane = piece.lane
        self.held[worker].pieces.setdefault((piece.lane, piece.number), []).extend(piece.keys)
        self._holder.update(dict.fromkeys(piece.pairs(), worker))
        return piece

    def _take_from(self, holder: int, pair: Pair) -> None:
        if self.held[holder].alone == pair:
            self._clear(pair)
        self.held[holder].remove(pair)

    def _left(self, lane: int) -> int:
        return self.supplies[lane].left + len(self._returned[lane])

    def _most(self, lane: int) -> int:
        """Batches that a worker holds: half of its share of what is left, so that all come to their end together."""
        return min(MOST, max(LEAST, -(-self._left(lane) // (2 * len(self.held)))))

    def _lane_for(self, held: _Held) -> int | None:
        """The worker's own, as long as there is something left of it: to change it takes loading a model."""
        if held.lane >= 0 and self._left(held.lane):
            return held.lane
        at = Counter(other.lane for other in self.held.values())
        open_ = [lane for lane in range(len(self.supplies)) if self._left(lane)]
        return max(open_, key=lambda lane: self._left(lane) / (1 + at[lane]), default=None)

    def _next(self, lane: int) -> Piece | None:
        """A batch that nobody has, without cells that may have killed a worker; None if nothing of it may be run."""
        if self._returned[lane]:
            piece = self._returned[lane].popleft()
        else:
            taken = self.supplies[lane].take()
            if taken is None:
                return None
            piece = Piece(lane, taken[0], tuple(taken[1]))
        piece = self._without_failed(piece)
        kept = tuple(key for key in piece.keys if not self._suspected[lane, key])
        if len(kept) < len(piece.keys):
            self._withheld[lane].append(piece._replace(keys=tuple(k for k in piece.keys if k not in kept)))
        return piece._replace(keys=kept) if kept else None

    def _steal(self) -> list[Piece]:
        """The later half of what the worker that has most of all has hardly begun."""
        others = {worker: held for worker, held in self.held.items() if held.pieces and not held.alone}
        if not others:
            return []
        counts = {worker: sum(map(len, held.pieces.values())) for worker, held in others.items()}
        victim = max(counts, key=counts.__getitem__)
        wanted = -(-(counts[victim] - RUNNING) // 2)
        if wanted <= 0:
            return []
        pieces, stolen = others[victim].pieces, deque[Piece]()
        for (lane, number), keys in reversed(list(pieces.items())):
            part = keys[-wanted:] if wanted < len(keys) else list(keys)
            stolen.appendleft(Piece(lane, number, tuple(part)))
            wanted -= len(part)
            if wanted <= 0:
                break
        for pair in chain.from_iterable(piece.pairs() for piece in stolen):
            self.held[victim].remove(pair)
            self._drops[victim].append(pair)
        return list(stolen)

    def _clear(self, pair: Pair) -> None:
        """A pair has run by itself, or is not run at all: there is one reason less to hold its cell back."""
        self._suspected[pair.lane, pair.key] -= 1
        if not self._suspected[pair.lane, pair.key]:
            self._returned[pair.lane].extend(self._withheld.pop(pair.lane, []))

    def _is_out(self, pair: Pair) -> bool:
        return pair.number > self.failed_at.get((pair.lane, pair.key), pair.number)

    def _without_failed(self, piece: Piece) -> Piece:
        return piece._replace(keys=tuple(pair.key for pair in piece.pairs() if not self._is_out(pair)))
