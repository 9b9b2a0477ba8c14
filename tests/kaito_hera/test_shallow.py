"""Objects of any depth are read, and what is not too deep is read whole."""

import json

import pytest

from kaito_hera import shallow


def deep(levels, inner="1"):
    return '{"a":' * levels + inner + "}" * levels


def depth(value):
    levels = 0
    while isinstance(value, dict):
        value, levels = value["a"], levels + 1
    return levels, value


def test_what_fits_is_read_as_it_is():
    text = '{"a": [1, "]}\\"{[", {"b": null}]}'
    assert shallow.loads(text) == json.loads(text)
    assert depth(shallow.loads(deep(200))) == (200, 1)


@pytest.mark.parametrize("levels", [2_000, 9_000])
@pytest.mark.parametrize("inner", ["1", '"}}}\\\\\\"]"', "[[]]", '{"a": {}, "b": [{}, {}]}'])
def test_what_is_too_deep_is_cut_off_and_its_neighbours_are_not(levels, inner):
    read = shallow.loads(f'[{deep(levels, inner)}, "x", {deep(levels, inner)}, {{"kind": "b"}}]')
    assert read[1::2] == ["x", {"kind": "b"}]
    assert depth(read[0]) == depth(read[2]) == (shallow.DEEPEST - 1, "...")


def test_what_is_no_json_is_an_error():
    with pytest.raises(ValueError, match="Expecting"):
        shallow.loads('{"a":' * 5_000)
