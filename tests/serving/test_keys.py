"""Keys in a mounted file: asked for as the file is now, and never by nobody."""

import pytest
import requests

from serving import errors, settings
from serving.config import keys_in
from serving.keys import Keys
from tests.serving import fakes


def put(file, content):
    """As the kubelet does it: another file in the place of the one before."""
    new = file.with_name("new")
    new.write_bytes(content)
    new.replace(file)


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "secret"
    folder.mkdir()
    put(folder / "API_KEY", b"one\n")
    return folder / "API_KEY"


def test_another_key_in_the_secret_counts_without_a_restart(tmp_path, file):
    with fakes.server(tmp_path, limits={"api_key_file": file, "api_keys": ("fixed",)}) as client:

        def status(key):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return requests.get(client.url + "/v1/models", headers=headers, timeout=60).status_code

        assert [status(key) for key in ("one", "two", "fixed", "")] == [200, 401, 200, 401]
        put(file, b"two, three")
        assert [status(key) for key in ("one", "two", "three")] == [401, 200, 200]


@pytest.mark.parametrize("content", [b"", b" \n,", b"two words", b"\xff\xfe"])
def test_a_file_that_gives_no_key_changes_none(file, content, caplog):
    asked = Keys((), file)
    assert asked() == ("one",)
    put(file, content)
    assert asked() == asked() == ("one",)
    assert len([each for each in caplog.records if "until then the keys of before are asked for" in each.message]) == 1
    put(file, b"two")
    assert asked() == ("two",)


def test_with_the_secret_deleted_none_of_its_keys_is_taken(tmp_path, file, caplog):
    with fakes.server(tmp_path, limits={"api_key_file": file}) as client:

        def status(key):
            return requests.get(client.url + "/v1/models", headers={"X-Api-Key": key}, timeout=60).status_code

        assert status("one") == 200
        file.unlink()
        assert [status("one"), status("")] == [401, 401]
        assert "until then none of its keys is taken" in caplog.text
        put(file, b"two")
        assert [status("one"), status("two")] == [401, 200]
    file.unlink()
    assert Keys(("fixed",), file)() == ("fixed",)


def test_a_file_that_never_gave_a_key_lets_nobody_in(tmp_path):
    (tmp_path / "s").mkdir()
    with fakes.server(tmp_path / "s", limits={"api_key_file": tmp_path / "missing"}) as client:
        assert requests.get(client.url + "/v1/models", timeout=60).status_code == 401
        assert client.get("/health").status_code == 200


def test_a_server_does_not_start_without_the_keys_that_it_is_to_ask_for(file):
    assert settings.read({"API_KEY_FILE": str(file)}).limits.api_key_file == file
    put(file, b"secret word")
    with pytest.raises(errors.BadConfig, match="letters that no header carries") as refused:
        settings.read({"API_KEY_FILE": str(file)})
    assert "word" not in str(refused.value)
    file.unlink()
    with pytest.raises(errors.BadConfig, match=r"API_KEY: no such file or directory; put the keys .* into its Secret"):
        settings.read({"API_KEY_FILE": str(file)})


def test_keys_are_divided_by_commas_or_lines():
    assert keys_in(b"a, b\nc\r\n") == ("a", "b", "c")
