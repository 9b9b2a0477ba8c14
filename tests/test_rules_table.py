"""argo/RULES.md: every rule of KAITO's has its row, every row its tests, every case its row."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("| \n").split(" | ")]
    for line in (ROOT / "argo/RULES.md").read_text().splitlines()
    if re.match(r"\| [VUSA]\d+ \|", line)
]
CASES = [case["case"] for case in yaml.safe_load((ROOT / "tests/apiserver/rules.yaml").read_text())]
PLACES = {"schema", "rule", "policy", "preflight", "server"}


def named(row):
    return re.findall(r"`([^`]+)`", row[-1])


def functions(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_rule_has_its_row():
    numbered = {"V": 40, "U": 12, "S": 5, "A": 9}
    assert [row[0] for row in ROWS] == [f"{kind}{n}" for kind, last in numbered.items() for n in range(1, last + 1)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_says_where_and_names_tests_that_exist(row):
    assert len(row) == 5
    assert set(row[3].split(", ")) <= PLACES
    assert named(row)
    for name in named(row):
        file, _, function = name.partition("::")
        assert function in functions(ROOT / file) if function else name in CASES, name


def test_a_row_says_whether_it_is_as_in_kaito():
    for row in ROWS:
        if row[0].startswith(("V", "U")):
            assert row[2].startswith(("as KAITO", "difference")), row[0]


def test_every_case_has_its_row_and_its_own_name():
    assert sorted(CASES) == sorted(set(CASES))
    assert set(CASES) == {name for row in ROWS for name in named(row) if "::" not in name}
