import io

import pytest

from kaito_hera.paper import Paper, bar

HEAD = ["NAME", "NUMBER", "NOTE"]
ROWS = [["a", "1", "first"], ["longer", "23", ""]]


def table(width=None, **options):
    return Paper(width).table(HEAD, ROWS, right=["NUMBER"], **options)


def test_columns_are_aligned_and_lines_end_with_text():
    assert table(indent="  ") == [
        "  NAME    NUMBER  NOTE",
        "  a            1  first",
        "  longer      23",
    ]


def test_columns_go_in_the_order_that_is_named_until_the_line_is_short_enough():
    assert table(18, drop=["NOTE", "NUMBER"])[1] == "a            1"
    assert table(9, drop=["NOTE", "NUMBER"])[1] == "a"
    assert table(21, drop=["NOTE"])[1] == "a            1  first"


def test_what_is_too_long_all_the_same_is_cut_with_a_mark():
    assert table(18) == ["NAME    NUMBER  N…", "a            1  f…", "longer      23"]


def test_a_sentence_is_one_line_where_lines_have_no_end():
    text = "a sentence of some words"
    assert Paper().wrap(text, first="- ", indent="  ") == [f"- {text}"]
    assert Paper(20).wrap(text, first="- ", indent="  ") == ["- a sentence of some", "  words"]


def test_an_address_is_not_broken():
    address = "https://example.com/a-very-long/address-with-hyphens"
    assert address in Paper(40).wrap(f"see {address}", indent="  ")[1]


def test_there_is_colour_only_where_it_is_asked_for():
    assert Paper(colour=True).paint("x", "red") == "\033[31mx\033[0m"
    assert Paper().paint("x", "red") == "x"
    assert Paper(colour=True).table(HEAD, ROWS, styles=["red", ""])[1:] == [
        "\033[31ma       1       first\033[0m",
        "longer  23",
    ]


def test_nothing_that_a_user_wrote_moves_the_cursor():
    told = "a\x1b[2Jb\u202ec\nd"
    assert Paper().wrap(told) == [r"a\x1b[2Jb\u202ec\nd"]
    assert Paper().table(["X"], [[told]])[1] == r"a\x1b[2Jb\u202ec\nd"


def test_a_file_has_neither_width_nor_colour():
    assert Paper.of(io.StringIO()) == Paper(None, colour=False)


@pytest.mark.parametrize(
    ("start", "end", "drawn"),
    [
        (0, 0.5, "█████"),
        (0.5, 1, "     █████"),
        (0.5, 0.51, "     ▏"),
        (0.8, 1.2, "        ██▶"),
        (1.2, 1.5, ""),
        (0, 5, "██████████▶"),
    ],
)
def test_a_bar_begins_where_the_last_one_ended(start, end, drawn):
    assert bar(start, end, 10) == drawn
