"""Schedules of faults: at every point where the gateway touches the outside it dies, waits or fails, in the middle of a
story, and comes back. What was approved is done at most once and nothing is done unseen.

PORTCULLIS_FAULTS_RUN=HOW_MANY:SEED says how many schedules and their seed (60 of one seed, else a new one); a failure prints the line that plays it again:
PORTCULLIS_FAULTS_PLAY='STORY SEED ORDERS // ORDERS'.
"""

import collections
import os
import random
import threading
import time
import traceback

import pytest
from fault_stories import STORIES, Story
from faults import BIN, Counter, World, may_fail, only_dies, points

HOW_MANY, _, SEED = os.environ.get("PORTCULLIS_FAULTS_RUN", "60:2026").partition(":")
FIRST = int(SEED or random.randrange(1 << 32))
PLAY = os.environ.get("PORTCULLIS_FAULTS_PLAY")
WORKERS = int(os.environ.get("PORTCULLIS_FAULTS_WORKERS", "4"))
EACH = int(os.environ.get("PORTCULLIS_FAULTS_EACH", "0"))
LIVES = 60  # stories of one data directory

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not BIN.exists(), reason="cargo build -p gateway --bin portcullis-faults --features faults")]
# Passed only where the story says so: when these are the aim, other stories are of no use.
SQL = "sql:"


@pytest.fixture
def counter():
    one = Counter()
    yield one
    one.close()


def orders_of(text: str) -> list:
    return [order.strip().split("\t" if "\t" in order else None) for order in text.split(";") if order.strip()]


def told(orders: list) -> str:
    return ";".join("\t".join(map(str, order)) for order in orders)


class Rehearsal:
    """What is known of points: which story passes them how often, and how often each has fired."""

    def __init__(self):
        self.lock = threading.Lock()
        self.passed = collections.defaultdict(collections.Counter)  # story and life → point → times
        self.fired: collections.Counter = collections.Counter()
        self.failing, self.dying = may_fail(), only_dies()

    def saw(self, name: str, life: int, passed, fired) -> None:
        with self.lock:
            known = self.passed[name, life]
            for point, times in passed.items():
                known[point] = max(known[point], min(times, 6))
            self.fired += fired

    def choose(self, dice) -> tuple:
        """A story, its orders, and those of the life after."""
        with self.lock:
            known = {}
            for (name, life), passed in self.passed.items():
                for point, times in passed.items():
                    known.setdefault(point, []).append((name, life, times))
            # One in six is a statement: there are many, and the points around them say more.
            statements = dice.random() < 1 / 6
            likely = {point for point in known if point.startswith(SQL) == statements} or set(known)
            few = min(self.fired[point] for point in likely)
            aims = sorted(point for point in likely if self.fired[point] <= few + 1)
            aim = dice.choice(aims)
            name, life, times = dice.choice(sorted(known[aim]))
            first, second = [], []
            # What comes first in a story is met first: a point of the second life needs a death before it.
            if life == 2:
                deaths = sorted(self.passed[name, 1])
                first.append(self.order(dice, dice.choice(deaths), 1, "kill"))
                second.append(self.order(dice, aim, times))
            else:
                first.append(self.order(dice, aim, times))
                if dice.random() < 0.3 and self.passed[name, 2]:
                    second.append(self.order(dice, dice.choice(sorted(self.passed[name, 2])), 1))
            if dice.random() < 0.4 and life == 1:
                waits = [point for point in sorted(self.passed[name, 1]) if point not in self.dying and not point.startswith(SQL)]
                if waits:
                    first.append(["delay", dice.choice(waits), 1, dice.choice((1, 20, 150))])
        return name, first, second

    def order(self, dice, point: str, times: int, verb: str | None = None) -> list:
        can_fail = point in self.failing
        verb = verb or ("fail" if can_fail and dice.random() < 0.4 else "kill")
        return [verb, point, 1 if dice.random() < 0.6 else dice.randint(1, max(1, min(times, 3)))]


class Player:
    """Plays schedules, on a data directory that many of them share."""

    def __init__(self, counter: Counter, rehearsal: Rehearsal):
        self.counter, self.rehearsal = counter, rehearsal
        self.worlds: dict = {}

    def world(self, story) -> World:
        kind = "fresh" if getattr(story, "fresh", False) else "short" if getattr(story, "short", False) else "long"
        world = self.worlds.get(kind)
        if world and (kind == "fresh" or world.told >= LIVES):
            world.close()
            world = None
        if world is None:
            world = self.worlds[kind] = World(self.counter, "1s" if kind == "short" else "12h")
            world.told = 0
        world.told += 1
        return world

    def play(self, name: str, seed: int, first: list, second: list) -> None:
        kind = STORIES[name]
        world = self.world(kind)
        if not world.is_up() and not getattr(kind, "fresh", False):
            world.arm([])
            world.up()
        world.look()
        world.arm(first)
        if not world.is_up():
            world.up()  # a first start, which may be the last
        story: Story = kind(world, random.Random(seed))
        story.play()
        if any(order[0] == "kill" for order in first):
            world.ends(0.15)
        self.rehearsal.saw(name, 1, *world.look())
        if not world.is_up():
            story.meanwhile()
            world.arm(second)
            world.up()
            if world.is_up():
                story.again()
            if any(order[0] == "kill" for order in second):
                world.ends(0.15)
            self.rehearsal.saw(name, 2, *world.look())
        world.arm([])
        if not world.is_up():
            world.up()
        try:
            story.settle()
            story.check()
        except AssertionError:
            world.process.kill()
            world.process.wait()
            print("--- the gateway's log\n" + world.logged()[-6000:])
            raise

    def close(self) -> None:
        for world in self.worlds.values():
            world.close()


def test_every_point_is_a_way_to_die_and_nothing_is_doubled_or_lost(counter):
    rehearsal = Rehearsal()
    if PLAY:
        player = Player(counter, rehearsal)
        name, seed, rest = PLAY.split(None, 2) if PLAY.count(" ") > 1 else (*PLAY.split(), "")
        first, _, second = rest.partition("//")
        try:
            player.play(name, int(seed), orders_of(first), orders_of(second))
        finally:
            player.close()
        return
    begun, failures, count = time.monotonic(), [], int(HOW_MANY)
    numbers = iter(range(count))
    lock = threading.Lock()
    every = points()

    def play(player, dice, name, first, second) -> None:
        seed = dice.randrange(1 << 32)
        line = "%s %d %s // %s" % (name, seed, told(first), told(second))
        try:
            player.play(name, seed, first, second)
        except Exception:
            failures.append("PORTCULLIS_FAULTS_PLAY='%s'\n%s" % (line, traceback.format_exc()))
            print(failures[-1], flush=True)
            player.close()
            player.worlds.clear()

    def work(worker: int) -> None:
        player, dice = Player(counter, rehearsal), random.Random(FIRST * 1000 + worker)
        try:
            # Each story to its end, and once with a death in the middle: which points does it pass?
            for name in list(STORIES)[worker::WORKERS]:
                play(player, dice, name, [], [])
                play(player, dice, name, [["kill", "answer.ready", 1]], [])
            ready.wait(300)
            while not failures or count > 100 and len(failures) < 10:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                if number % 100 == 0:
                    named = [rehearsal.fired[point] for point in every]
                    print("%d schedules, %.0f s, %d faults, each at least %d times" % (
                        number, time.monotonic() - begun, sum(rehearsal.fired.values()), min(named)
                    ), flush=True)  # fmt: skip
                play(player, dice, *rehearsal.choose(dice))
        finally:
            player.close()

    ready = threading.Barrier(WORKERS)
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begun
    print("\nseed %d: %d schedules in %.0f s; %d points, and %d statements" % (
        FIRST, count, took, len(every), sum(1 for point in rehearsal.fired if point.startswith(SQL))
    ))  # fmt: skip
    for point in sorted(every | set(rehearsal.fired)):
        print("  %4d  %s" % (rehearsal.fired[point], point))
    assert not failures, "seed %d\n%s" % (FIRST, "\n\n".join(failures))
    few = {point: rehearsal.fired[point] for point in every if rehearsal.fired[point] < EACH}
    assert not few, "fired too rarely: %s" % few
