"""How much has come, in words that the operator finds again in a log."""

import time

import pytest

from artifacts.weights import pace

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            pace.coming("weights", int(3.1 * GIB), int(7.1 * GIB), 205 * MIB),
            "fetching weights: 3.1 of 7.1 GiB, 205.0 MiB/s, 20 s left",
        ),
        (pace.coming("weights", 0, 7 * GIB, 0.0), "fetching weights: 0.0 of 7.0 GiB, 0.0 MiB/s"),
        (
            pace.coming("weights", 40 * MIB, 90 * MIB, MIB / 60),
            "fetching weights: 40.0 of 90.0 MiB, 0.0 MiB/s, 50 min left",
        ),
        (pace.coming("weights", 8 * GIB, 7 * GIB, 5 * MIB), "fetching weights: 7.0 of 7.0 GiB, 5.0 MiB/s"),
        (pace.coming("weights", 1, 999 * GIB, 1e-9), "fetching weights: 0.0 of 999.0 GiB, 0.0 MiB/s, 1000000 h left"),
        (pace.coming("data", 30 * MIB, 0, 2.5 * MIB), "fetching data: 30.0 MiB so far, 2.5 MiB/s"),
        (pace.come("weights", 7 * GIB, 35.0), "fetched weights: 7.0 GiB in 35 s, 204.8 MiB/s"),
        (pace.come("data", 10, 0.0), "fetched data: 0.0 MiB in 1 s, 0.0 MiB/s"),
    ],
)
def test_what_is_said_is_found_again(said, words):
    assert said == words
    assert pace.heard(f"INFO {said}\nINFO Ray is up after 3.0 s\n") == words


def test_the_last_words_count():
    first, last = (pace.coming("weights", there, 0, 1.0) for there in (MIB, 2 * MIB))
    assert pace.heard(f"INFO {first}\nINFO {last}\n") == last


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fetching weights: soon",
        "fetching weights: 1 of your business, 1.0 MiB/s",
        f"fetching weights: {'9' * 400}.0 GiB so far, 1.0 MiB/s",
        "fetching weights: ٣.0 GiB so far, 1.0 MiB/s",
        "fetching weights: 1.0 GiB so\nfar, 1.0 MiB/s",
    ],
)
def test_other_words_are_not_heard(text):
    assert pace.heard(text) == ""


def test_what_stands_around_the_words_is_not_heard():
    text = "\x1b[2J<b>fetching weights: 1.0 GiB so far, 1.0 MiB/s, 9 s left</b>, send money"
    assert pace.heard(text) == "fetching weights: 1.0 GiB so far, 1.0 MiB/s, 9 s left"
    assert len(pace.heard(f"{text} " * 9999)) < 99


class Told:
    """Everything that was told, and waiting for it."""

    def __init__(self):
        self.words = []

    def await_beginning(self, words):
        until = time.monotonic() + 60
        while not any(each.startswith(words) for each in self.words):
            assert time.monotonic() < until, self.words
            time.sleep(0.02)


@pytest.fixture
def told():
    return Told()


def test_it_is_told_how_much_has_come_while_it_comes(tmp_path, told):
    with pace.telling(tmp_path, told.words.append, every=0.05):
        (tmp_path / "blob").write_bytes(b"x" * 3 * MIB)
        told.await_beginning("fetching weights: 3.0 MiB so far, ")
    assert told.words[-1].startswith("fetched weights: 3.0 MiB in ")


def test_what_an_earlier_run_has_fetched_is_part_of_the_whole_and_not_of_the_rate(tmp_path, told):
    (tmp_path / "blob").write_bytes(b"x" * 3 * MIB)
    with pace.telling(tmp_path, told.words.append, whole=lambda: 4 * MIB, every=0.05):
        told.await_beginning("fetching weights: 3.0 of 4.0 MiB, 0.0 MiB/s")
    assert told.words[-1] == f"found in {tmp_path}, nothing was fetched"


def test_what_comes_at_once_is_told_once_and_nobody_is_asked_how_much_it_is(tmp_path, told):
    with pace.telling(tmp_path, told.words.append, "data", whole=pytest.fail):
        (tmp_path / "blob").write_bytes(b"x" * MIB)
    [words] = told.words
    assert words.startswith("fetched data: 1.0 MiB in ")


def test_a_fetch_that_fails_is_not_told_as_done(tmp_path, told):
    with pytest.raises(OSError, match="cut"), pace.telling(tmp_path, told.words.append):
        raise OSError("cut")
    assert told.words == []
