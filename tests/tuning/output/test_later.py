"""An adapter that a run left on a volume is pushed later, by a process without a GPU: the same image, with patience."""

import gzip
import json
import subprocess
import sys
import tarfile

import pytest

from tests import terminations
from tests.tuning.conftest import CARD, ROOT, entry, tuning_config, write_secret
from tests.tuning.test_check import WITHOUT
from tuning.config import INTENT, Exit, Progress, Result
from tuning.eviction import Eviction
from tuning.output import carry, destination, volume
from tuning.output.patience import Patience
from tuning.output.registry import Registry
from tuning.places import Places


@pytest.fixture
def left(made, tmp_path):
    """The volume as a run leaves it."""
    files = made("w" * 5000)
    for name in volume.TOLD:
        files[name] = tmp_path / "saved" / name
        files[name].write_text(f"told in {name}")
    folder = tmp_path / "volume"
    (folder / "lost+found").mkdir(parents=True)
    volume.keep(files, CARD | {"files": sorted(files)}, folder, "an-intent")
    return files, folder


def layers(registry, tag):
    """The files in each layer, by name."""
    found = []
    for layer in registry.manifest("team/later", tag)["layers"]:
        blob = (
            registry.folder
            / "store/docker/registry/v2/blobs/sha256"
            / layer["digest"][7:9]
            / layer["digest"][7:]
            / "data"
        )
        with gzip.open(blob) as file, tarfile.open(fileobj=file) as tar:
            files = [member for member in tar.getmembers() if member.isreg()]
            found.append({each.name.removeprefix("data/"): tar.extractfile(each).read() for each in files})
    return found


def test_it_becomes_the_image_that_the_run_would_have_pushed(left, registry, auth, tmp_path):
    files, folder = left
    later = carry.push(folder, f"{registry.host}/team/later:1", auth=auth, waits=Patience(Eviction(), seconds=60))
    config = tuning_config(f"{registry.host}/team/later:2", [], input={"volume": "in"})
    places = Places(scratch=tmp_path / "scratch", push_auth=auth)
    (places.scratch / "adapter").mkdir(parents=True)
    destination.put(config, places, files, CARD, waits=Patience(Eviction(), seconds=0))
    one, other = (registry.manifest("team/later", tag) for tag in "12")
    assert one["annotations"] == other["annotations"]
    assert one["annotations"][INTENT] == "an-intent"
    assert one["layers"][0] == other["layers"][0]
    for tag in "12":
        assert [set(layer) for layer in layers(registry, tag)] == [set(volume.NAMES), {*volume.TOLD, volume.CARD}]
    assert later.endswith(Registry(f"{registry.host}/team/later:1", auth).ask("an-intent"))


def test_a_card_that_tells_of_another_adapter_marks_nothing(left, registry, auth):
    _, folder = left
    (folder / volume.NAMES[1]).write_bytes(b"others")
    carry.push(folder, f"{registry.host}/team/later:3", auth=auth, waits=Patience(Eviction(), seconds=60))
    assert registry.manifest("team/later", "3")["annotations"][INTENT] != "an-intent"


def test_what_was_trained_for_another_place_is_pushed_as_of_this_one(left, registry, auth):
    _, folder = left
    before = (folder / volume.CARD).read_bytes()
    for tag, renewed in (("6", ("an-intent", "another")), ("7", ("a-third", "another"))):
        target, waits = f"{registry.host}/team/later:{tag}", Patience(Eviction(), seconds=60)
        carry.push(folder, target, auth=auth, waits=waits, renewed=renewed)
    assert registry.manifest("team/later", "6")["annotations"][INTENT] == "another"
    assert registry.manifest("team/later", "7")["annotations"][INTENT] == "an-intent", "it is of other settings"
    cards = [json.loads(layers(registry, tag)[1][volume.CARD]) for tag in "67"]
    assert cards == [json.loads(before) | {"intent": "another"}, json.loads(before)]
    assert (folder / volume.CARD).read_bytes() == before


def test_a_password_is_waited_for_and_the_waiting_is_told(left, registry, tmp_path):
    _, folder = left
    secret = write_secret(tmp_path / "push.json", {registry.host: entry(password="expired")})
    command = [sys.executable, "-c", WITHOUT, "push", folder, f"{registry.host}/team/later:4"]
    command += ["--push-auth", secret, "--seconds", "300", "--progress"]
    environment = {"TERMINATION_LOG": str(tmp_path / "t"), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        [str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    ) as going:
        lines = []
        for line in going.stdout:
            lines.append(line.rstrip("\n"))
            told = Progress.parse(lines[-1])
            if told and "for its place" in told.message:
                assert "imagePushSecret" in told.message
                write_secret(secret, {registry.host: entry()})
    assert going.returncode == Exit.DONE
    assert lines[-1].startswith(f"{registry.host}/team/later@sha256:")
    assert terminations.of_tuning((tmp_path / "t").read_text()) == Result(adapter=lines[-1])


def test_what_is_refused_in_the_end_ends_with_its_code(left, registry, tmp_path):
    _, folder = left
    secret = write_secret(tmp_path / "push.json", {registry.host: entry(password="expired")})
    command = [sys.executable, "-c", WITHOUT, "push", folder, f"{registry.host}/team/later:5", "--push-auth", secret]
    environment = {"TERMINATION_LOG": str(tmp_path / "t"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*map(str, command), "--seconds", "0"], cwd=ROOT, capture_output=True, check=False, env=environment
    )
    assert done.returncode == Exit.REGISTRY_AUTH
    assert terminations.of_tuning((tmp_path / "t").read_text()).reason == "PushUnauthorized"
