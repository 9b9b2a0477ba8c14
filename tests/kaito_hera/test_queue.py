import threading
import time

from kaito_hera.queue import Queue


def test_a_key_added_often_is_worked_on_once():
    queue = Queue()
    for _ in range(10):
        queue.add("a")
    queue.add("b")
    assert [queue.take(), queue.take()] == ["a", "b"]


def test_a_key_that_changes_while_it_is_in_hand_comes_again_but_never_in_two_hands():
    queue = Queue()
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    queue.add("b")
    assert queue.take() == "b"
    queue.done("a")
    assert queue.take() == "a"


def test_later_is_later_but_an_event_comes_first():
    queue = Queue()
    began = time.monotonic()
    queue.add_after("late", 0.2)
    queue.add("now")
    assert queue.take() == "now"
    assert queue.take() == "late"
    assert time.monotonic() - began >= 0.2


def test_a_key_is_due_once_at_the_earliest_of_its_times():
    queue = Queue()
    for seconds in (0.4, 0.2, 0.3):
        queue.add_after("a", seconds)
    assert queue.take() == "a"
    queue.done("a")
    queue.add_after("end", 0.5)
    assert queue.take() == "end", "the later times of a are void"


def test_a_look_on_an_event_takes_the_place_of_the_one_that_was_due():
    queue = Queue()
    for _ in range(5):  # each event would begin another chain of looks
        queue.add_after("a", 0.2)
        queue.add("a")
        assert queue.take() == "a"
        queue.done("a")
    queue.add_after("end", 0.4)
    assert queue.take() == "end"


def test_a_key_that_is_due_while_it_is_in_hand_comes_again():
    queue = Queue()
    queue.add("a")
    queue.take()
    queue.add_after("a", 0.0)
    queue.add("b")
    assert queue.take() == "b"
    queue.done("a")
    assert queue.take() == "a"


def test_a_failing_key_waits_longer_each_time_and_is_forgiven_once_it_works():
    queue = Queue()
    assert [queue.failed("a") for _ in range(4)] == [1, 2, 4, 8]
    queue.done("a")
    assert queue.failed("a") == 1


def test_many_hands_never_hold_the_same_key():
    queue = Queue()
    held, clashes, worked = set(), [], []
    lock = threading.Lock()

    def work():
        while True:
            key = queue.take()
            if key is None:
                return
            with lock:
                if key in held:
                    clashes.append(key)
                held.add(key)
            time.sleep(0.001)
            with lock:
                held.discard(key)
                worked.append(key)
            queue.done(key)

    hands = [threading.Thread(target=work) for _ in range(8)]
    for hand in hands:
        hand.start()
    for turn in range(300):
        queue.add(turn % 7)
        time.sleep(0.0005)
    time.sleep(0.2)
    assert clashes == []
    assert set(worked) == set(range(7))
    for _ in hands:  # None ends one hand; it is never handed back, so each hand needs its own
        queue.add(None)
        time.sleep(0.01)
        queue.done(None)
    for hand in hands:
        hand.join(timeout=2)
