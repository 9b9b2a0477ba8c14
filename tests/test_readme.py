"""The README's tree is the folders' truth."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREE = (ROOT / "README.md").read_text().split("## The tree")[1]


@pytest.mark.parametrize(
    "folder",
    [
        "workflows",
        "kaito_hera",
        "kaito_hera/nodes",
        "kaito_hera/admission",
        "tuning",
        "tuning/data",
        "tuning/training",
        "tuning/output",
        "tuning/tracking",
        "serving",
        "artifacts",
        "artifacts/weights",
    ],
)
def test_every_module_has_its_place_in_the_tree(folder):
    modules = {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py", "__main__.py"}
    assert modules <= set(re.findall(r"\w+\.py", TREE))


def test_every_module_of_the_operator_has_its_place_in_a_newcomer_s_way():
    told = (ROOT / "kaito_hera/README.md").read_text()
    modules = {path.name for folder in ("", "nodes") for path in (ROOT / "kaito_hera" / folder).glob("*.py")}
    assert modules - {"__init__.py"} <= set(re.findall(r"`(\w+\.py)`", told))


def test_the_tree_names_nothing_that_is_not_there():
    there = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    assert set(re.findall(r"\w+\.py", TREE)) <= there
