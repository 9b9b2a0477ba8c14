import io
import logging
import os
import re

import pytest

from tuning import bar
from tuning.config import Progress

STEP = Progress(phase="train", percent=50, step=12, max_steps=24, loss=1.5, eta_seconds=90, eval_loss=1.25)


@pytest.fixture
def terminal():
    """A real one, and what was drawn on it; asked once, since it ends the drawing."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as stream:

        def seen() -> str:
            stream.write("\f")
            stream.flush()
            text = b""
            while not text.endswith(b"\f"):  # a terminal gives what is written in pieces, and later
                text += os.read(ours, 65536)
            return text.decode()

        yield stream, seen
    os.close(ours)


def test_a_bar_is_drawn_on_a_terminal(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    stream, seen = terminal
    with bar.drawn(stream) as shown:
        shown(STEP)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen())
    assert "train" in text
    assert " 50 %  step 12 of 24, 1 min left, loss 1.5000, 1.2500 on rows held out" in text
    assert "━" in text


def test_log_lines_go_above_it(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    stream, seen = terminal
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        with bar.drawn(stream) as shown:
            shown(STEP)
            logging.getLogger("tuning").warning("[bold]words[/bold]")
        assert handler.stream is stream
    finally:
        logging.getLogger().removeHandler(handler)
    assert "[bold]words[/bold]\r\n" in seen()


def test_there_is_none_where_nobody_looks():
    with bar.drawn(io.StringIO()) as shown:
        assert shown is None


def test_a_message_comes_first():
    assert bar.words(Progress(phase="load", percent=4, message="the model's [files]")) == "the model's (files]"
