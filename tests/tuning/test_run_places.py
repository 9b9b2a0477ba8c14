"""Real runs of the tiny model from a volume to a volume, and from an image: the same data makes the same adapter."""

import json

import pytest

from tests.serving import registry as images
from tests.tuning import servers, words
from tuning.config import INTENT, Exit
from tuning.eviction import Eviction
from tuning.output import carry, volume
from tuning.output.patience import Patience

FEW = {"arguments": {"max_steps": 2, "per_device_train_batch_size": 4}}
ROWS = "".join(json.dumps({"messages": words.conversation(each, words.B)}) + "\n" for each in words.QUESTIONS)


@pytest.fixture
def run(tuning, auth, models, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", models.url)
    for name in ("data", "results"):
        (tmp_path / name).mkdir()
    options = ["--push-auth", str(auth), "--pull-auth", str(auth)]
    options += ["--data", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    return lambda config: tuning(config, *options)


@pytest.mark.torch
def test_from_a_volume_to_a_volume_and_not_twice_and_later_into_a_registry(run, config, registry, auth, tmp_path):
    (tmp_path / "data" / "part").mkdir()
    (tmp_path / "data" / "part" / "train.jsonl").write_text(ROWS)
    (tmp_path / "data" / "README.txt").write_text("forty questions")
    places = {"input": {"volume": "persistentVolumeClaim/in"}, "output": {"volume": "persistentVolumeClaim/out"}}
    done = run(config("", training=FEW, **places))
    assert done.code == Exit.DONE, done.text
    results = tmp_path / "results"
    assert done.left.adapter == f"persistentVolumeClaim/out@{volume.digest(results)}"
    assert sorted(path.name for path in results.iterdir()) == sorted([*volume.NAMES, *volume.TOLD, volume.CARD])
    card = json.loads((results / volume.CARD).read_text())
    assert (card["intent"], card["rows"], card["steps"]) == ("an-intent", 40, 2)
    assert [file["name"] for file in card["data"]] == ["part/train.jsonl"]
    (tmp_path / "data" / "part" / "train.jsonl").unlink()  # nobody asks for it any more
    again = run(config("", training=FEW, **places))
    assert (again.code, again.left.adapter, again.left.loss) == (Exit.DONE, done.left.adapter, None)
    other = run(config("", training=FEW, intent="another", **places))
    assert (other.code, other.left.reason) == (Exit.BAD_DATA, "DataInvalid")
    carry.push(results, f"{registry.host}/team/later:1", auth=auth, waits=Patience(Eviction(), seconds=60))
    notes = registry.manifest("team/later", "1")["annotations"]
    assert (notes[INTENT], notes["sh.kaito.hera.method"], notes["sh.kaito.hera.loss"]) == (
        "an-intent",
        card["method"],
        str(card["loss"]),
    )


@pytest.mark.torch
def test_data_in_an_image_makes_the_adapter_that_the_same_data_on_a_volume_makes(
    run, config, registry, tmp_path, monkeypatch
):
    for name, value in images.plain_http(tmp_path, registry.host).items():
        monkeypatch.setenv(name, value)
    image = f"{registry.host}/team/data:1"
    made = images.kaito_image({"train.jsonl": ROWS.encode()})
    images.push(tmp_path, made, image, credentials=f"{servers.USER}:{servers.PASSWORD}")
    (tmp_path / "data" / "train.jsonl").write_text(ROWS)
    digests = []
    for number, source in enumerate(({"image": image}, {"volume": "persistentVolumeClaim/in"})):
        asked = config("", training=FEW, intent=str(number), input=source, output={"volume": "nfs"})
        done = run(asked)
        assert done.code == Exit.DONE, done.text
        digests.append(done.left.adapter)
    assert digests[0] == digests[1]
    assert volume.find(tmp_path / "results", "1") == digests[1].removeprefix("nfs@")
    assert (tmp_path / "results" / "replaced-by-1").is_dir()
