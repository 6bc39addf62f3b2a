"""Batches of what many threads ask for: every answer at its place, none late, none lost."""

import threading
import time
from concurrent.futures import CancelledError, wait

import pytest

from bert_toolkit.serving.batching import Batcher, ClosedError, Limits, QueueFullError


class Recorder:
    """Work that doubles numbers, keeps its batches, and goes on only when it may."""

    def __init__(self, held=False):
        self.batches = []
        self.may_go = threading.Event()
        self.has_begun = threading.Event()
        if not held:
            self.may_go.set()

    def __call__(self, values, longest):
        self.batches.append(list(values))
        self.has_begun.set()
        self.may_go.wait(10)
        if "bad" in values:
            raise ValueError("a bad value")
        return [value * 2 for value in values]


def hold(batcher, work):
    """Has the thread busy with an item, so that what follows waits together."""
    future = batcher.submit([0], [1])
    assert work.has_begun.wait(10)
    return future


def test_threads_get_their_own_answers_in_order():
    found = {}
    work = Recorder()

    def ask(number):
        for turn in range(30):
            values = [number * 1000 + turn * 10 + place for place in range(number % 5 + 1)]
            lengths = [(number * 7 + turn + place) % 90 + 1 for place in range(len(values))]
            results = batcher.submit(values, lengths).result(10)
            found[number, turn] = results == [value * 2 for value in values]

    with Batcher(work, Limits(batch_tokens=200)) as batcher:
        threads = [threading.Thread(target=ask, args=[number]) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 16 * 30
    assert all(found.values())
    assert len(work.batches) < 16 * 30  # they were joined
    assert sum(map(len, work.batches)) == sum((n % 5 + 1) * 30 for n in range(16))


def test_a_batch_is_the_oldest_and_its_like():
    work = Recorder(held=True)
    with Batcher(work, Limits(batch_tokens=100)) as batcher:
        futures = [hold(batcher, work)]
        lengths = [10, 90, 11, 12, 50, 200, 9, 50]
        futures += [batcher.submit([n], [length]) for n, length in enumerate(lengths, 1)]
        work.may_go.set()
        wait(futures, 10)
    # The first takes those near to it, 5 * 12 <= 100; 90 is alone, the 50s go together, and 200,
    # which is more than a batch may have, by itself.
    assert [sorted(batch) for batch in work.batches] == [[0], [1, 3, 4, 7], [2], [5, 8], [6]]


def test_a_long_one_is_not_passed_over_for_ever():
    """Short ones that keep coming do not keep a long one from its turn."""
    work = Recorder(held=True)
    with Batcher(work, Limits(batch_tokens=100)) as batcher:
        hold(batcher, work)
        batcher.submit(["short"], [5])
        long = batcher.submit(["long"], [90])
        for _ in range(50):
            batcher.submit(["later"], [5])
        work.may_go.set()
        long.result(10)
    place = [number for number, batch in enumerate(work.batches) if "long" in batch]
    assert place == [2]


def test_one_request_may_be_several_batches():
    work = Recorder()
    with Batcher(work, Limits(batch_tokens=40)) as batcher:
        assert batcher.submit(range(20), [10] * 20).result(10) == list(range(0, 40, 2))
    assert [len(batch) for batch in work.batches] == [4] * 5


def test_a_full_queue_refuses_at_once():
    work = Recorder(held=True)
    with Batcher(work, Limits(queue=3)) as batcher:
        first = hold(batcher, work)
        second = batcher.submit([1, 2], [1, 1])
        with pytest.raises(QueueFullError):
            batcher.submit([3, 4], [1, 1])
        third = batcher.submit([5], [1])
        assert batcher.waiting() == 3
        work.may_go.set()
        assert [future.result(10) for future in (first, second, third)] == [[0], [2, 4], [10]]


def test_who_has_gone_is_not_computed():
    work = Recorder(held=True)
    with Batcher(work, Limits()) as batcher:
        hold(batcher, work)
        gone, stays = batcher.submit([1, 2], [1, 1]), batcher.submit([3], [1])
        assert gone.cancel()
        work.may_go.set()
        assert stays.result(10) == [6]
        with pytest.raises(CancelledError):
            gone.result(10)
    assert work.batches == [[0], [3]]


def test_an_error_is_that_of_the_item_which_has_it():
    work = Recorder(held=True)
    with Batcher(work, Limits()) as batcher:
        hold(batcher, work)
        good, bad = batcher.submit([1, 2], [1, 1]), batcher.submit([3, "bad"], [1, 1])
        work.may_go.set()
        assert good.result(10) == [2, 4]
        with pytest.raises(ValueError, match="a bad value"):
            bad.result(10)
        assert batcher.submit([5], [1]).result(10) == [10]  # and it goes on


def test_closing_computes_what_was_taken():
    work = Recorder(held=True)
    batcher = Batcher(work, Limits())
    hold(batcher, work)
    futures = [batcher.submit([n], [1]) for n in range(5)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    work.may_go.set()
    closing.join(10)
    assert [future.result(0) for future in futures] == [[0], [2], [4], [6], [8]]
    with pytest.raises(ClosedError):
        batcher.submit([1], [1])


def test_other_work_takes_over_between_two_batches():
    old = Recorder(held=True)
    with Batcher(old, Limits()) as batcher:
        before = hold(batcher, old)
        after = batcher.submit([1], [1])
        replacing = threading.Thread(target=batcher.replace, args=[lambda values, _: ["new"]])
        replacing.start()
        time.sleep(0.05)
        assert replacing.is_alive()  # the old one still works
        old.may_go.set()
        replacing.join(10)
        assert before.result(10) == [0]
        assert after.result(10) in ([2], ["new"])
        assert batcher.submit([1], [1]).result(10) == ["new"]


def test_those_who_came_together_are_waited_for():
    """With a long wait, so that a slow machine passes: they still come before it is over."""
    work = Recorder(held=True)
    with Batcher(work, Limits(wait=60)) as batcher:
        hold(batcher, work)
        together = [batcher.submit([n], [1]) for n in (1, 2)]
        work.may_go.set()
        wait(together, 10)
        first = batcher.submit([3], [1])
        time.sleep(0.05)
        assert not first.done()
        second = batcher.submit([4], [1])
        wait([first, second], 10)
    assert work.batches == [[0], [1, 2], [3, 4]]


def test_no_items():
    with Batcher(Recorder(), Limits()) as batcher:
        assert batcher.submit([], []).result(0) == []
