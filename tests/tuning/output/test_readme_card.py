import copy
import re
from xml.etree import ElementTree

import pytest
import yaml

from tuning.output import drawing, readme

CARD = {
    "preset": "phi-3-mini-4k-instruct",
    "base_model": {"id": "microsoft/Phi-3-mini-4k-instruct", "revision": "abc123", "image": ""},
    "method": "qlora",
    "settings": {"lora": {"r": 8, "target_modules": ["o_proj"], "bias": None}, "arguments": {"learning_rate": 0.0002}},
    "steps": 40,
    "loss": 0.51234,
    "eval_loss": 0.75,
    "resumed_from": [12, 30],
    "seconds": 754.2,
    "device": "2 x NVIDIA A10",
    "computed": {"precision": "bfloat16"},
    "ended_early": True,
    "gpu_memory_gib": 7.94,
    "tokens": 123456,
    "supervised_tokens": 4321,
    "data": [{"name": "train|a.parquet", "bytes": 2048, "sha256": "0" * 64}],
    "rows": 1500,
    "rows_held_out": 20,
    "rows_dropped": 3,
    "versions": {"torch": "2.13.0", "peft": "0.21.2"},
}
SVG = "{http://www.w3.org/2000/svg}"


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_hugging_face_reads_its_front_matter():
    assert front(readme.text(CARD)) == {
        "base_model": "microsoft/Phi-3-mini-4k-instruct",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["qlora", "lora", "kaito", "kaito-hera"],
    }


@pytest.mark.parametrize(
    "told",
    [
        "`microsoft/Phi-3-mini-4k-instruct` @ `abc123`",
        "| steps | 40, resumed from 12, 30, ended early |",
        "| loss | 0.5123, over the last steps |",
        "| loss on rows held out | 0.7500 |",
        "| tokens | 123,456, 4,321 of them learned from |",
        "| trained for | 12 min 34 s |",
        "| on | 2 x NVIDIA A10, bfloat16 |",
        "| GPU memory | 7.9 GiB at most |",
        "| versions | torch 2.13.0, peft 0.21.2 |",
        "1,500 rows, 20 more held out, 3 left out because they could not be used.",
        f"| `train\\|a.parquet` | 2,048 | `sha256:{'0' * 64}` |",
        "| lora.r | `8` |",
        "| arguments.learning_rate | `0.0002` |",
        "![loss by optimizer step](loss.svg)",
    ],
)
def test_it_tells(told):
    assert told in readme.text(CARD)


def test_what_is_not_known_is_left_out():
    card = {
        key: value
        for key, value in CARD.items()
        if key not in {"eval_loss", "resumed_from", "seconds", "device", "computed"}
    }
    text = readme.text(card | {"gpu_memory_gib": None, "supervised_tokens": None})
    for word in ("held out |", "resumed", "trained for", "| on |", "GPU", "learned from.", "lora.bias"):
        assert word not in text


def test_samples_cannot_leave_their_fence():
    sample = "<|user|>\n````\n# no heading of ours\n⟦x⟧"
    text = readme.text(CARD, [sample, "y" * 5000])
    assert f"`````text\n{sample}\n`````" in text
    assert f"{'y' * 2000} ..." in text


def test_words_of_strangers_stay_in_their_place():
    card = copy.deepcopy(CARD)
    card["data"][0]["name"] = "a`\n# heading | <b>.csv"
    card["base_model"]["id"] = 'x"\nevil: true\n---\n'
    text = readme.text(card)
    assert front(text)["base_model"] == card["base_model"]["id"]
    assert "evil" not in front(text)
    assert "`a' # heading \\| <b>.csv`" in text


def test_the_picture_has_what_was_learned_and_where_it_went_on():
    losses = [(step, 4 / step) for step in range(1, 41)]
    drawn = ElementTree.fromstring(drawing.svg(losses, [(20, 0.5), (40, 0.4)], [12], "a < b & c"))
    points = [tuple(map(float, point.split(","))) for point in drawn.find(f"{SVG}polyline").get("points").split()]
    assert len(points) == 40
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[0][1] < points[-1][1]  # it fell
    assert len(drawn.findall(f"{SVG}circle")) == 2
    assert len([line for line in drawn.findall(f"{SVG}line") if line.get("stroke-dasharray")]) == 1
    texts = [text.text for text in drawn.findall(f"{SVG}text")]
    assert texts[0] == "a < b & c"
    width, height = (float(drawn.get(name)) for name in ("width", "height"))
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


@pytest.mark.parametrize("losses", [[], [(1, 2.0)], [(1, 0.0), (2, 0.0)], [(1, -1.0), (2, 5e-7)]])
def test_few_points_are_a_picture_too(losses):
    assert ElementTree.fromstring(drawing.svg(losses)).tag == f"{SVG}svg"


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0, 40, [0, 10, 20, 30, 40]), (0.1, 4, [0, 1, 2, 3, 4]), (2.0, 2.0, [2, 2.5]), (0, 7, [0, 2, 4, 6, 8])],
)
def test_ticks_are_round(low, high, found):
    assert drawing.ticks(low, high) == found


def test_one_run_is_the_same_bytes():
    assert readme.text(CARD, ["a"]) == readme.text(copy.deepcopy(CARD), ["a"])
    assert not re.search(r"20\d\d-\d\d", readme.text(CARD))
