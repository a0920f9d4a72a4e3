"""Numbers on their way from a device, and what waits for them."""

import time

import numpy as np
import torch

from stratoscope.observe import coming
from stratoscope.observe.coming import Coming, InOrder


class Late(Coming):
    """A number that arrives when it is told to."""

    def __init__(self, value):
        super().__init__(value, float)
        self.here, self.waited = False, False

    def arrived(self):
        return self.here

    def get(self):
        self.waited = not self.here
        return super().get()


def test_what_is_there_is_there():
    assert Coming(2.5, float).get() == 2.5
    assert Coming(torch.tensor(2.5, dtype=torch.bfloat16), float).get() == 2.5
    rows = Coming(torch.ones(2, 3, requires_grad=True), np.sum)
    assert rows.arrived()
    assert rows.get() == rows.get() == 6


def test_things_are_done_in_order_as_their_numbers_arrive():
    late, there, done, queue = Late(1.0), Coming(2.0, float), [], InOrder()
    queue.add([there], lambda: done.append("first"))
    queue.add([late, there], lambda: done.append(late.get()))
    queue.add([], lambda: done.append("last"))
    queue.settle()
    assert done == ["first"]
    late.here = True
    queue.settle()
    assert done == ["first", 1.0, "last"]
    assert not late.waited


def test_nothing_waits_for_longer_than_it_may(monkeypatch):
    late, done, queue = Late(1.0), [], InOrder()
    queue.add([late], lambda: done.append(late.get()))
    monkeypatch.setattr(coming, "LONGEST", 0.01)
    time.sleep(0.02)
    queue.settle()
    assert done == [1.0]
    assert late.waited


def test_all_of_it_can_be_waited_for():
    late, done, queue = Late(1.0), [], InOrder()
    queue.add([late], lambda: done.append(late.get()))
    queue.settle(wait=True)
    assert done == [1.0]
    queue.settle(wait=True)
    assert done == [1.0]
