"""Blocks of work handed to workers: everything is done once, whoever is slow, dies, or fails."""

from __future__ import annotations

import random
from collections import Counter
from itertools import count

import pytest

from suite.sweep.executors.ray.units import KILLS, MOST, Pair, Schedule

IN_FLIGHT = 4


class Batches:
    """The batches 0, 1, ... of a plan, every one for all cells."""

    def __init__(self, batches: int, keys: str) -> None:
        self.rest, self.keys = list(range(batches)), keys

    @property
    def left(self) -> int:
        return len(self.rest)

    def take(self):
        return (self.rest.pop(0), tuple(self.keys)) if self.rest else None


class Pool:
    """Workers that run what a schedule gives them, one pair a step, in random order of workers.

    dies: asked before a worker runs a pair. fails: cells that have no outcome from a batch on.
    """

    def __init__(self, schedule, workers, seed=0, dies=lambda pair, alone: False, fails=(), silent=0):
        self.schedule, self.draw, self.dies, self.fails = schedule, random.Random(seed), dies, dict(fails)
        self.names, self.inbox, self.ran, self.recorded, self.deaths = count(), {}, Counter(), Counter(), 0
        self.reasons, self.silent = {}, silent
        for _ in range(workers):
            self.start()

    def start(self):
        worker = next(self.names)
        self.inbox[worker], self.unsaid = [], {**getattr(self, "unsaid", {}), worker: []}
        self.schedule.join(worker)

    def run(self, most=100_000):
        for _ in range(most):
            if self.schedule.finished:
                return self
            for worker in list(self.inbox):
                given = [pair for piece in self.schedule.give(worker) for pair in piece.pairs()]
                dropped = self.schedule.drops(worker)
                self.inbox[worker] = [pair for pair in self.inbox[worker] if pair not in dropped] + given
            self.step(self.draw.choice(list(self.inbox)))
        raise AssertionError("never finished")

    def step(self, worker):
        """Run one pair; what is not yet reported waits, and is reported when there is nothing to run."""
        if self.inbox[worker]:
            pair = self.inbox[worker].pop(0)
            self.ran[pair] += 1
            if self.dies(pair, self.schedule.held[worker].alone):
                return self.die(worker)
            self.unsaid[worker].append(pair)
        while len(self.unsaid[worker]) > (self.silent if self.inbox[worker] else 0):
            self.report(worker, self.unsaid[worker].pop(0))
        return None

    def report(self, worker, pair):
        if not self.schedule.done(worker, pair):
            return
        if pair.number >= self.fails.get((pair.lane, pair.key), pair.number + 1):
            if self.schedule.fail(pair.lane, pair.key, pair.number):
                self.reasons[pair.lane, pair.key] = pair.number
        else:
            self.recorded[pair] += 1

    def die(self, worker):
        self.deaths += 1
        del self.inbox[worker]
        for pair in self.schedule.lost(worker, {0, 1}):
            self.schedule.fail(pair.lane, pair.key)
            self.reasons[pair.lane, pair.key] = pair
        self.start()


def all_pairs(*lanes):
    return {Pair(lane, n, key) for lane, (batches, keys) in enumerate(lanes) for n in range(batches) for key in keys}


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("lanes", [[(1, "a")], [(200, "abc")], [(3, "abcdefgh"), (40, "xy"), (0, "z")]])
def test_every_pair_is_run_once_and_recorded_once_whatever_the_workers(workers, lanes):
    pool = Pool(Schedule([Batches(*lane) for lane in lanes], IN_FLIGHT), workers).run()
    assert set(pool.recorded) == all_pairs(*lanes)
    assert set(pool.recorded.values()) == {1}
    assert sum(pool.ran.values()) <= sum(pool.recorded.values()) * 1.1 + 3 * workers


def test_blocks_get_smaller_towards_the_end():
    schedule = Schedule([Batches(400, "ab")], IN_FLIGHT)
    for worker in range(4):
        schedule.join(worker)
    first = len(schedule.give(0))
    given = [first]
    while given[-1]:
        for piece in list(schedule.held[0].pieces):
            for key in "ab":
                schedule.done(0, Pair(*piece, key))
        given.append(len(schedule.give(0)))
    assert first == MOST
    assert given[:-1] == sorted(given[:-1], reverse=True)
    assert given[-2] <= 2


def test_a_worker_stays_with_its_model_and_others_go_to_where_most_is_left():
    schedule = Schedule([Batches(100, "a"), Batches(60, "b")], IN_FLIGHT)
    for worker in range(2):
        schedule.join(worker)
    assert {piece.lane for piece in schedule.give(0)} == {0}
    assert {piece.lane for piece in schedule.give(1)} == {1}
    for piece in list(schedule.held[1].pieces)[:20]:
        schedule.done(1, Pair(*piece, "b"))
    assert {piece.lane for piece in schedule.give(1)} <= {1}


def test_a_worker_with_nothing_to_do_takes_the_later_half_of_another_ones_work():
    schedule = Schedule([Batches(2, "abcdefgh")], IN_FLIGHT)
    schedule.join(0)
    assert len(schedule.give(0)) == 2
    schedule.join(1)
    stolen = [pair for piece in schedule.give(1) for pair in piece.pairs()]
    assert stolen == [Pair(0, 1, key) for key in "bcdefgh"]
    assert set(schedule.drops(0)) == set(stolen)
    schedule.join(2)
    assert [(piece.number, "".join(piece.keys)) for piece in schedule.give(2)] == [(0, "fgh"), (1, "a")]


def test_what_two_workers_have_run_is_recorded_of_the_first():
    schedule = Schedule([Batches(1, "abcdef")], IN_FLIGHT)
    schedule.join(0)
    schedule.give(0)
    schedule.join(1)
    [piece] = schedule.give(1)
    twice = piece.pairs()[0]
    assert schedule.done(0, twice)
    assert not schedule.done(1, twice)
    assert twice in schedule.drops(1)


@pytest.mark.parametrize("seed", range(8))
def test_workers_that_die_at_random_lose_nothing_and_fail_nothing(seed):
    draw = random.Random(seed)
    lanes = [(60, "abc"), (25, "de")]
    schedule = Schedule([Batches(*lane) for lane in lanes], IN_FLIGHT)
    pool = Pool(schedule, 5, seed, dies=lambda pair, alone: not alone and draw.random() < 0.05, silent=2).run()
    assert pool.deaths > 3
    assert set(pool.recorded) == all_pairs(*lanes)
    assert set(pool.recorded.values()) == {1}
    assert not pool.reasons


@pytest.mark.parametrize("seed", range(8))
def test_a_cell_that_kills_its_workers_fails_and_the_others_finish(seed):
    schedule = Schedule([Batches(30, "abcd")], IN_FLIGHT)
    pool = Pool(schedule, 3, seed, dies=lambda pair, alone: pair.key == "c" and pair.number >= 11, silent=2).run()
    assert list(pool.reasons) == [(0, "c")]
    assert pool.reasons[0, "c"].number >= 11
    assert all_pairs((30, "abd")) <= set(pool.recorded)
    assert pool.deaths <= 3 * KILLS + 3  # the three that were at it, and what was tried alone
    assert set(pool.recorded.values()) == {1}


@pytest.mark.parametrize("seed", range(8))
def test_of_a_cell_that_fails_the_first_batch_is_told_whoever_comes_to_it_first(seed):
    schedule = Schedule([Batches(50, "abc")], IN_FLIGHT)
    pool = Pool(schedule, 4, seed, fails={(0, "b"): 17}, silent=2).run()
    assert pool.reasons == {(0, "b"): 17}
    assert {pair for pair in pool.recorded if pair.key != "b"} == all_pairs((50, "ac"))
    assert {pair.number for pair in pool.recorded if pair.key == "b"} == set(range(17))


def test_a_worker_that_dies_before_it_begins_makes_nothing_suspicious():
    schedule = Schedule([Batches(4, "ab")], IN_FLIGHT)
    schedule.join(0)
    given = schedule.give(0)
    assert schedule.lost(0, opened=()) == []
    schedule.join(1)
    assert schedule.give(1) == given
