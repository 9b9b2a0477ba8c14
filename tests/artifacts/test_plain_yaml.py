"""YAML of strangers ends, whatever it unfolds to, and loses nothing that is written."""

import pytest

from artifacts import plain_yaml

MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10))
ALIASES = "a0: &a0 [v]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(MERGES, "unfold to more than 500,000 values", id="merges"),
        pytest.param(ALIASES, "unfolds to more than 500,000 values", id="aliases"),
        pytest.param("&a [*a]", "more than 100 levels", id="itself"),
        pytest.param("[" * 20_000, "no YAML that can be read", id="deep"),
        pytest.param("{a: 1, b: {c: 1, c: 2}}", "c is written twice", id="twice"),
        pytest.param("a: {<<: {x: 1}, x: 2, x: 3}", "x is written twice", id="twice beside a merge"),
        pytest.param("9" * 5000, "no YAML that can be read", id="number"),
        pytest.param("a: !!python/object:os.system x", "no YAML that can be read", id="object"),
    ],
)
def test_what_has_no_end_or_two_meanings_is_refused(text, words):
    with pytest.raises(ValueError, match="this is no YAML that can be read") as refused:
        plain_yaml.config(text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_aliases_and_merges_of_sane_size_are_followed_in_any_order():
    text = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, z: 3}\nd: [*a, *b]\n"
    expected = {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 2, "z": 3}, "d": [{"x": 1}, {"x": 2}]}
    assert plain_yaml.config(text) == expected
