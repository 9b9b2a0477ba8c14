"""The list of verdicts: complete, and honest about what changed."""

import dataclasses

import pytest

from tests.conformance import verdicts

ADMITTED = verdicts.Verdict("aaa", "examples/a.yaml", "v0.1.0", "Workspace", "")
REFUSED = verdicts.Verdict("bbb", "examples/b.yaml", "v0.1.0..HEAD", "Workspace", "metadata.name: no", "refused")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "list.yaml"


def test_the_committed_list_judges_every_refusal():
    listed = verdicts.read()
    assert len(listed) > 100
    assert [one.path for one in listed.values() if one.says and not one.judged] == []


def test_a_list_that_was_just_written_differs_only_in_what_nobody_judged(file):
    verdicts.write([ADMITTED, REFUSED], file)
    (line,) = verdicts.differences([ADMITTED, REFUSED], verdicts.read(file))
    assert "examples/b.yaml" in line
    assert "nobody has judged" in line


def test_a_judgement_outlives_a_new_list_while_the_manifest_is_refused(file):
    verdicts.write([REFUSED], file)
    file.write_text(file.read_text().replace("judged: ''", "judged: as KAITO"))
    verdicts.write([dataclasses.replace(REFUSED, says="metadata.name: not this one")], file)
    assert verdicts.read(file)["bbb"].judged == "as KAITO"
    verdicts.write([dataclasses.replace(REFUSED, says="")], file)
    assert verdicts.read(file)["bbb"].judged == ""


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([], "listed but not in this clone"),
        ([ADMITTED, dataclasses.replace(ADMITTED, digest="ccc")], "is not listed"),
        ([dataclasses.replace(ADMITTED, says="x: no")], "now refused: x: no; listed admitted"),
        ([dataclasses.replace(ADMITTED, unreplaced="refused")], "unreplaced: now refused"),
    ],
)
def test_every_difference_is_told(found, told):
    (line,) = verdicts.differences(found, {"aaa": ADMITTED})
    assert told in line
