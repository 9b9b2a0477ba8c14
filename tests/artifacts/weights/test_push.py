"""`kaito-hera model push` to a real registry, and the image fetched again as the serving image fetches it."""

import contextlib
import io
import re
import subprocess
import sys

import pytest
import requests

from artifacts.weights import check, errors, image, push
from artifacts.weights.config import Found
from tests.artifacts.weights.conftest import WEIGHTS
from tests.tuning import servers
from tests.tuning.conftest import ROOT


@pytest.fixture
def pushed(model, files, auth):
    return push.push(model, model.image, folder=files, auth=auth, out=io.StringIO())


def test_what_is_pushed_comes_back_file_by_file(pushed, model, files, auth, tmp_path):
    folder = image.fetch(model.model_copy(update={"image": pushed.image}), tmp_path / "scratch", auth)
    names = sorted(path.name for path in folder.iterdir())
    wanted = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "tokenizer.json"]
    assert names == wanted
    for name in names:
        assert (folder / name).read_bytes() == (files / name).read_bytes()
    assert not list((tmp_path / "scratch").rglob("blob-*")), "the disk does not hold the model twice"


def test_the_same_files_are_the_same_image_and_are_sent_once(pushed, model, files, auth):
    told = io.StringIO()
    again = push.push(model, model.image.replace(":1", ":2"), folder=files, auth=auth, out=told)
    assert (again.image, again.sent) == (pushed.image, 0)
    assert pushed.sent == pushed.bytes - 4 * 1024 - sum(-size % 512 + 512 for size in sizes(files))
    assert told.getvalue().count("there already") == 4


def sizes(files):
    return [path.stat().st_size for path in image.local(files).values()]


def test_what_lacks_is_sent_and_no_more(pushed, model, files, auth):
    (files / "tokenizer.json").write_text('{"new": 1}')
    again = push.push(model, model.image, folder=files, auth=auth, out=io.StringIO())
    assert again.sent == len('{"new": 1}')
    assert again.image != pushed.image


def test_the_image_says_what_it_is(pushed, registry, files):
    manifest = registry.manifest("team/tiny", "1")
    assert manifest["annotations"] == {image.MODEL: "acme/tiny"}
    assert [layer["annotations"][image.FILE] for layer in manifest["layers"]] == sorted(image.local(files))
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}


def test_a_check_reads_digest_size_and_numbers_of_it(pushed, model, auth):
    found = check.check(model.model_copy(update={"known": False}), auth)
    assert found.pinned == pushed.image.partition("@")[2]
    assert found.bytes == len(WEIGHTS) + 1000 + 2 * 1536 + -1000 % 512
    assert (found.preset.hub_id, found.preset.architecture) == ("acme/tiny", "Phi3ForCausalLM")
    assert Found.model_validate_json(found.model_dump_json()) == found
    assert check.check(model, auth).preset is None, "presets/ has the numbers"


def test_other_tools_take_the_image(pushed, registry, tmp_path):
    command = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"--src-creds={servers.USER}:"]
    command[-1] += servers.PASSWORD
    subprocess.run([*command, f"docker://{pushed.image}", f"oci:{tmp_path / 'layout'}:x"], check=True)


@pytest.mark.parametrize(
    ("target", "kind", "words"),
    [
        ("reg.io/Upper:1", errors.ModelNotFound, "IMAGE: 'reg.io/Upper:1' is no image reference"),
        (f"reg.io/a@sha256:{1:064x}", errors.ModelNotFound, "a push gives a tag"),
    ],
)
def test_a_target_that_cannot_be(target, kind, words, model, files):
    with pytest.raises(kind, match=words):
        push.push(model, target, folder=files)


def test_a_model_that_nobody_knows_is_told_with_its_remedy_once():
    with pytest.raises(errors.ModelNotFound) as refused:
        push.model("foo", None)
    assert str(refused.value) == (
        "ID: 'foo' is not known; name one of `kaito-hera presets`, or a model of the hub as organisation/model"
    )


def test_a_path_is_no_id():
    with pytest.raises(errors.ModelNotFound, match=r"ID \./tiny: is a path; .* --folder"):
        push.model("./tiny", None)


def test_files_that_are_no_model_are_not_pushed(model, tmp_path, auth):
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.ModelUnusable, match=r"--folder .*empty.*no config.json"):
        push.push(model, model.image, folder=tmp_path / "empty", auth=auth)
    with pytest.raises(errors.ModelNotFound, match="is no folder"):
        push.push(model, model.image, folder=tmp_path / "none", auth=auth)


def test_a_registry_that_wants_another_password(model, files, tmp_path):
    with pytest.raises(errors.ImageForbidden, match=r"IMAGE: registry .* asks for a password .*log in"):
        push.push(model, model.image, folder=files, auth=tmp_path / "none")


class Cutting(servers.Server):
    """A registry behind a wire that breaks in the middle of each upload's first try."""

    def __init__(self, behind):
        super().__init__()
        self.behind, self.cut = behind, set()

    def answer(self, request):
        digest = re.search("digest=(.*)", request.path)
        if request.command == "PUT" and digest and digest[1] not in self.cut:
            self.cut.add(digest[1])
            self.reply(request, 502, b"cut")
            return
        request.headers.replace_header("Host", self.host)
        answer = servers.forward(self.behind, request)
        headers = {name: value for name, value in answer.headers.items() if name in {"Location", "WWW-Authenticate"}}
        self.reply(request, answer.status_code, answer.content, headers)


def test_an_upload_that_was_cut_is_tried_again(model, files, tmp_path):
    (tmp_path / "open").mkdir()
    with servers.Registry(tmp_path / "open") as behind, contextlib.closing(Cutting(behind)) as wire:
        pushed = push.push(model, f"{wire.host}/team/tiny:1", folder=files, auth=tmp_path / "none", out=io.StringIO())
        assert len(wire.cut) == 5, "four files and the image's config"
        assert requests.head(f"{behind_url(behind)}/manifests/1", headers=OCI, timeout=5).ok
    assert pushed.image.startswith(wire.host)


OCI = {"Accept": "application/vnd.oci.image.manifest.v1+json"}


def behind_url(registry):
    return f"http://{registry.host}/v2/team/tiny"


def test_the_command_line_pushes_a_folder(registry, files, auth, tmp_path):
    target = f"{registry.host}/team/cli:1"
    command = [sys.executable, "-m", "workflows", "model", "push", "acme/tiny", target, "--folder", str(files)]
    environment = {"PATH": "/usr/bin", "REGISTRY_AUTH_FILE": str(auth), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=True)
    assert re.fullmatch(rf"{registry.host}/team/cli@sha256:[0-9a-f]{{64}}\n", done.stdout)
    assert "model-00001-of-00002.safetensors: sent" in done.stderr
