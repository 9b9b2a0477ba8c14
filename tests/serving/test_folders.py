"""Adapters on volumes: found at the top, told apart by content, refused with what is there instead."""

import asyncio
import json
import subprocess

import pydantic
import pytest

from serving import check, errors, folders
from serving.config import Adapter, AdapterStatus, Exit, Served
from serving.images import Images
from tests import terminations
from tests.serving import fakes

FILES = {"adapter_config.json": "{}", "adapter_model.safetensors": "weights"}
VOLUME = "persistentVolumeClaim/adapters"


def volume(tmp_path, files=FILES):
    folder = tmp_path / "volume"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def adapter(folder, *, volume=VOLUME, name="poet"):
    return Adapter(name=name, volume=volume, folder=str(folder))


def test_the_digest_is_what_a_shell_says(tmp_path):
    folder = volume(tmp_path, FILES | {"chat_template.jinja": "{{ x }}", "README.md": "of no account"})
    names = "adapter_config.json adapter_model.safetensors chat_template.jinja"
    said = subprocess.run(
        f"sha256sum {names} | sha256sum", shell=True, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert folders.read(adapter(folder)) == folders.Pulled(f"sha256:{said}", folder)


def test_another_content_is_another_digest(tmp_path):
    folder = volume(tmp_path)
    before = folders.read(adapter(folder)).digest
    (folder / "adapter_model.safetensors").write_text("Weights")
    assert folders.read(adapter(folder)).digest != before


def test_a_pinned_adapter_is_that_one_or_none(tmp_path):
    folder = volume(tmp_path)
    pinned = adapter(folder, volume=f"{VOLUME}@{folders.read(adapter(folder)).digest}")
    assert folders.read(pinned).folder == folder
    (folder / "adapter_model.safetensors").write_text("another run's")
    with pytest.raises(errors.NotAnAdapter, match=r"now holds another adapter, sha256:.*a volume of its own"):
        folders.read(pinned)


def test_links_within_the_volume_are_followed_as_in_one_of_a_config_map(tmp_path):
    folder = volume(tmp_path, {})
    (folder / "..now").mkdir()
    for name, text in FILES.items():
        (folder / "..now" / name).write_text(text)
        (folder / name).symlink_to(f"..now/{name}")
    assert folders.read(adapter(folder)).folder == folder


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, f"{VOLUME} has no adapter_config.json and no adapter_model.safetensors at its top, it has nothing; put"),
        ({"adapter_config.json": "{}", "lost": ""}, "has no adapter_model.safetensors at its top, it has adapter_conf"),
        ({str(number): "" for number in range(12)}, "it has 0, 1, 10, 11, 2, 3, 4, 5, 6, 7 and 2 more; put"),
    ],
)
def test_a_volume_without_an_adapter_says_what_it_has_and_may_get_one(tmp_path, files, words):
    with pytest.raises(errors.AdapterFilesMissing) as error:
        folders.read(adapter(volume(tmp_path, files)))
    assert words in str(error.value)
    assert error.value.retryable


def test_a_volume_that_is_not_mounted_is_said_so(tmp_path):
    with pytest.raises(errors.VolumeNotMounted, match="is not mounted at"):
        folders.read(adapter(tmp_path / "none"))
    folder = volume(tmp_path, {"adapter_config.json": "{}"})
    (folder / "adapter_model.safetensors").symlink_to("nowhere")
    with pytest.raises(errors.AdapterFilesMissing, match="has no file behind"):
        folders.read(adapter(folder))


def test_links_out_of_the_volume_and_large_configs_are_refused(tmp_path):
    folder = volume(tmp_path, {"adapter_config.json": "{}"})
    (tmp_path / "secret").write_text("weights")
    (folder / "adapter_model.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(errors.NotAnAdapter, match="not a regular file of the volume's"):
        folders.read(adapter(folder))
    (folder / "adapter_config.json").write_bytes(bytes(2 << 20))
    with pytest.raises(errors.NotAnAdapter, match="1048576 are allowed"):
        folders.read(adapter(folder))


def test_an_adapter_comes_from_one_place(tmp_path):
    for wrong in ({}, {"image": "r/a:1", "volume": "v", "folder": "/f"}, {"volume": "v"}, {"folder": "/f"}):
        with pytest.raises(pydantic.ValidationError, match="an image, or a volume and the folder"):
            Adapter(name="a", **wrong)


def everywhere(tmp_path):
    return folders.Sources(Images(tmp_path / "images", authfile=tmp_path / "none"))


def test_a_server_reads_a_volume_and_its_status_names_it(tmp_path):
    folder = volume(tmp_path, FILES | {"chat_template.jinja": fakes.OTHER_TEMPLATE})
    wanted = adapter(folder)
    listing = f"[{wanted.model_dump_json()}]"
    with fakes.server(tmp_path, source=everywhere(tmp_path), adapters=listing) as client:
        client.eventually(lambda: client.get("/health").status_code == 200)
        answer = client.get("/v1/models").json()
        served = Served.model_validate(answer)
        assert not served.lacks((wanted,))
        assert served.lacks((adapter(folder, volume="persistentVolumeClaim/other"),)).endswith(
            "not read this change yet"
        )
        assert (served.adapters[0].volume, served.adapters[0].image) == (VOLUME, "")
        assert served.adapters[0].digest == folders.read(wanted).digest
        assert next(each for each in answer["data"] if each["id"] == "poet")["volume"] == VOLUME


@pytest.mark.parametrize(
    ("mounted", "waits", "reason"), [(True, False, "has no adapter_config.json"), (False, True, "is not mounted at")]
)
def test_a_volume_to_come_is_waited_for_and_files_to_come_are_not(tmp_path, mounted, waits, reason):
    folder = volume(tmp_path, {}) if mounted else tmp_path / "none"
    with fakes.server(
        tmp_path, source=everywhere(tmp_path), adapters=f"[{adapter(folder).model_dump_json()}]"
    ) as client:
        client.eventually(lambda: client.get("/v1/models").json()["adapters"][0:])
        client.eventually(lambda: client.get("/v1/models").json()["adapters"][0]["state"] == "failed")
        status = Served.model_validate(client.get("/v1/models").json()).adapters[0]
        assert status.retryable is waits, "GPUs are paid for meanwhile"
        assert status.reason.startswith(f"{VOLUME} {reason}")


def test_refusals_know_volumes_apart(tmp_path):
    mine = adapter(tmp_path)
    failed = AdapterStatus(**mine.model_dump(), state="failed", reason="DoRA", retryable=False, failures=1)
    answer = Served(ready=False, adapters=(failed,))
    assert answer.refused((mine,)) == {0: failed}
    assert not answer.refused((adapter(tmp_path, volume=f"{VOLUME}@sha256:{'a' * 64}"),))


@pytest.mark.parametrize("files", [FILES, {}, None])
def test_the_check_looks_into_a_volume_where_it_is_mounted(tmp_path, monkeypatch, files):
    mounted = tmp_path / "none" if files is None else volume(tmp_path, files)
    model = {"id": "acme/tiny", "revision": "1"}
    (tmp_path / "serving.json").write_text(json.dumps({"workspace": "ns/w", "name": "tiny", "model": model}))
    (tmp_path / "adapters.json").write_text(f"[{adapter(mounted).model_dump_json()}]")
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "termination"))
    code = check.check(tmp_path / "serving.json")
    if files == {}:
        left = terminations.of_serving((tmp_path / "termination").read_text())
        assert (code, left.reason, left.retryable) == (Exit.BAD_ADAPTER, "AdapterFilesMissing", True)
        assert left.message.startswith(f"inference.adapters[0].source.volumeSource: {VOLUME} has no adapter_config")
    else:
        assert code == Exit.DONE


def test_pull_of_an_image_goes_to_the_images(tmp_path):
    with pytest.raises(errors.RegistryUnavailable):
        asyncio.run(everywhere(tmp_path).pull(Adapter(name="a", image="127.0.0.1:1/x:1")))
