"""What a worker is to do: pieces in order, of which some are taken back before they are begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from threading import Condition

from suite.sweep.executors.ray.messages import TimeOrder
from suite.sweep.executors.ray.units import Pair, Piece


class Inbox:
    """Filled by one thread and emptied by another. A piece waits, is decoded, and is run cell by cell."""

    def __init__(self) -> None:
        self._waiting: deque[Piece | TimeOrder] = deque()
        self._decoded: deque[Piece] = deque()
        self._changed = Condition()

    def put(self, orders: Sequence[Piece | TimeOrder], dropped: Sequence[Pair]) -> None:
        with self._changed:
            for pieces in (self._waiting, self._decoded):
                for place, piece in enumerate(pieces):
                    if isinstance(piece, Piece) and not set(dropped).isdisjoint(piece.pairs()):
                        kept = tuple(pair.key for pair in piece.pairs() if pair not in dropped)
                        pieces[place] = piece._replace(keys=kept)
            self._waiting.extend(orders)
            self._changed.notify_all()

    def first(self) -> Piece | TimeOrder:
        """What is next, which stays; waits until there is something."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            return self._waiting[0]

    def drop_first(self) -> None:
        with self._changed:
            self._waiting.popleft()

    def numbers(self, lane: int) -> Iterator[int]:
        """The batches that are next, as long as there are any of this plan; they are decoded from now on."""
        while True:
            with self._changed:
                if not self._waiting or not isinstance(piece := self._waiting[0], Piece) or piece.lane != lane:
                    return
                self._waiting.popleft()
                if not piece.keys:
                    continue
                self._decoded.append(piece)
            yield piece.number

    def cells(self) -> Iterator[str]:
        """Of the first batch that is decoded, the cells that are still to be run, each when it is its turn."""
        while True:
            with self._changed:
                piece = self._decoded[0]
                if not piece.keys:
                    self._decoded.popleft()
                    return
                self._decoded[0] = piece._replace(keys=piece.keys[1:])
            yield piece.keys[0]
