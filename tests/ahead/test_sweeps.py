"""Sweeps that are recorded, kept and replayed, on a CPU by a tape that is as strict as a graph."""

import threading

import pytest
import torch

from tensorfast.ahead import Kept, Shelf, Sweeps, forget, shelf
from tests.ahead.standins import Recorder, Tape


class Counting:
    """A cycle of three sweeps over one number: add 1, double it, add what was carried over."""

    def __init__(self, number=0.0):
        self.number = torch.tensor(number, dtype=torch.float64)
        self.made = 0

    def begin(self):
        """Begin a cycle."""

        def steps():
            while True:
                self.number.add_(1)
                yield
                carried = self.number * 3
                self.number.mul_(2)
                yield
                self.number.add_(carried)
                yield

        cycle = steps()

        def sweep():
            self.made += 1
            next(cycle)

        return sweep

    def run(self, sweeps, many=12):
        """Return the numbers after so many sweeps, one by one."""
        found = []
        for _ in range(many):
            sweeps.launch()
            found.append(float(self.number))
        return found


def directly(number=0.0):
    counting = Counting(number)
    return counting.run(Sweeps(counting.begin, 3))


@pytest.mark.parametrize("capture", [Tape, Recorder()], ids=["tape", "recorder"])
def test_replays_go_on_where_the_first_cycle_left_off(capture):
    counting = Counting()
    sweeps = Sweeps(counting.begin, 3, capture)
    assert counting.run(sweeps) == directly()
    assert sweeps.complete


def test_what_was_recorded_serves_another_fit_from_its_first_sweep_on():
    counting = Counting()
    sweeps = Sweeps(counting.begin, 3, Tape)
    counting.run(sweeps)
    assert counting.made == 6
    counting.number.fill_(5)
    again = Sweeps(counting.begin, 3, Tape, sweeps.recorded)
    assert counting.run(again) == directly(5.0)
    assert counting.made == 6


def test_a_number_cannot_be_read_while_something_is_recorded():
    counting = Counting()

    def begin():
        sweep = counting.begin()

        def reading():
            sweep()
            return bool(counting.number > 3)

        return reading

    sweeps = Sweeps(begin, 3, Tape)
    assert counting.run(sweeps)[:3] == directly()[:3]
    assert sweeps.trouble == "operation not permitted when stream is capturing"
    assert not sweeps.recorded


def test_an_error_without_words_is_told_by_its_name():
    def refused(step):
        raise RuntimeError

    counting = Counting()
    sweeps = Sweeps(counting.begin, 3, refused)
    assert counting.run(sweeps) == directly()
    assert sweeps.trouble == "RuntimeError"


def kept(nbytes=10):
    return Kept(object(), (), nbytes)


def test_who_takes_a_fit_is_alone_with_it():
    shelf, one = Shelf(most=4, nbytes=100), kept()
    shelf.put("a", one)
    assert shelf.take("b") is None
    assert shelf.take("a") is one
    assert shelf.take("a") is None
    shelf.put("a", one)
    assert shelf.take("a") is one


@pytest.mark.parametrize(("most", "nbytes"), [(2, 100), (9, 25)])
def test_a_shelf_is_bounded_and_gives_up_what_was_not_used_for_long(most, nbytes):
    shelf = Shelf(most, nbytes)
    fits = {name: kept(6 if nbytes == 25 else 20) for name in "abcde"}
    bound = min(most, nbytes // fits["a"].nbytes)
    for name in "abcde":
        shelf.put(name, fits[name])
        # In use all the time.
        assert shelf.take("a") is fits["a"]
        shelf.put("a", fits["a"])
        assert len(shelf) <= bound
    assert shelf.take("e") is fits["e"]
    assert shelf.take("b") is None
    shelf.clear()
    assert len(shelf) == 0
    assert shelf.take("a") is None


def test_what_is_too_large_is_not_kept():
    shelf = Shelf(most=4, nbytes=100)
    assert shelf.holds(25)
    assert not shelf.holds(26)
    shelf.put("a", kept(26))
    assert shelf.take("a") is None
    assert not Shelf(most=0, nbytes=100).holds(0)


def test_all_shelves_can_be_cleared(monkeypatch):
    monkeypatch.setattr(shelf, "_SHELVES", [])
    shelves = [Shelf(most=4, nbytes=100) for _ in range(2)]
    for one in shelves:
        one.put("a", kept())
    forget()
    assert [len(one) for one in shelves] == [0, 0]


def test_threads_share_a_shelf():
    shelf, in_use, failed = Shelf(most=3, nbytes=100), set(), []

    def work(number):
        for step in range(300):
            key = (number + step) % 5
            found = shelf.take(key) or kept()
            if id(found) in in_use:
                failed.append(key)
            in_use.add(id(found))
            in_use.discard(id(found))
            shelf.put(key, found)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(shelf) == 3
