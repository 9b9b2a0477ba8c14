import subprocess
import sys
import threading

import pytest

from tests import terminations
from tests.tuning import servers
from tests.tuning.conftest import ROOT, entry, write_secret
from tuning import check as check_
from tuning.config import INTENT, Exit, Failure, Result
from tuning.errors import DataUnreachable, RegistryUnavailable, VolumeRefused
from tuning.eviction import Eviction
from tuning.output import image, push
from tuning.output.patience import Patience
from tuning.places import Places

ROWS = b'{"text": "x"}\n'


@pytest.fixture
def check(tuning, auth):
    def go(config, secret=auth):
        return tuning(config, "validate", "--push-auth", str(secret))

    return go


def test_nothing_speaks_against_it(files, registry, config, check):
    files.files["/rows.jsonl"] = ROWS
    done = check(config(f"{registry.host}/team/a:1"))
    assert (done.code, done.left) == (Exit.DONE, Result())


def test_an_adapter_of_this_intent_is_found_and_its_data_is_not_needed_any_more(
    registry, config, check, auth, tmp_path
):
    target = f"{registry.host}/team/made:1"
    packed = image.write(tmp_path / "layout", {"w": auth}, {INTENT: "an-intent"})
    pushed = push.push(packed, target, "an-intent", auth, scratch=tmp_path, waits=Patience(Eviction(), seconds=60))
    done = check(config(target))
    assert (done.code, done.left) == (Exit.DONE, Result(adapter=pushed))
    assert pushed == f"{registry.host}/team/made@{packed.digest}"
    assert check(config(target, intent="another")).code == Exit.BAD_DATA


@pytest.fixture
def bad(files, registry, config, check, tmp_path):
    """A check of the URL that a table says, of the image it says."""

    def go(url="", target="", secret=None):
        files.files.setdefault("/rows.jsonl", ROWS)
        path = write_secret(tmp_path / "other.json", secret or {registry.host: entry()})
        urls = [url] if url else None
        return check(config(target or f"{registry.host}/team/a:1", urls=urls), path)

    return go


def test_bad_data_is_terminal_and_named(bad, files):
    done = bad(f"{files.url}/none.parquet")
    assert done.code == Exit.BAD_DATA
    assert done.left == Failure(
        reason="DataNotFound",
        message=f"tuning.input.urls[0] ({files.url}/none.parquet): the server answers 404 Not Found: "
        "there is no such file; correct the URL",
        retryable=False,
    )


def test_a_refused_address(bad):
    done = bad("http://169.254.169.254/latest")
    assert (done.code, done.left.reason) == (Exit.BAD_DATA, "DataRefused")


def test_a_server_that_is_down_is_worth_another_try(bad):
    done = bad(f"http://127.0.0.1:{servers.free_port()}/a")
    assert (done.code, done.left.reason, done.left.retryable) == (Exit.NETWORK, "DataUnreachable", True)


def test_a_wrong_password(bad, registry):
    done = bad(secret={registry.host: entry(password="wrong")})
    assert (done.code, done.left.reason, done.left.retryable) == (Exit.REGISTRY_AUTH, "PushUnauthorized", False)


def test_a_secret_for_another_registry(bad):
    done = bad(secret={"other.io": entry()})
    assert done.code == Exit.REGISTRY_AUTH
    assert "tuning.output.imagePushSecret" in done.left.message


def test_no_right_to_push(bad, tokens):
    tokens.uploads = (403, {"errors": [{"code": "DENIED"}]})
    done = bad(target=f"{tokens.host}/a:1", secret={tokens.host: entry()})
    assert (done.code, done.left.reason, done.left.retryable) == (Exit.REGISTRY_REFUSED, "PushForbidden", False)


def test_a_dead_registry(bad):
    done = bad(target=f"127.0.0.1:{servers.free_port()}/a:1")
    assert (done.code, done.left.reason, done.left.retryable) == (
        Exit.REGISTRY_UNAVAILABLE,
        "RegistryUnavailable",
        True,
    )


def test_a_bad_image_name(bad):
    done = bad(target="reg.io/Upper:1")
    assert (done.code, done.left.reason) == (Exit.BAD_CONFIG, "ConfigInvalid")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Invalid JSON"),
        ("{}", "workspace: Field required"),
    ],
)
def test_a_config_of_another_release(tuning, text, words):
    done = tuning(text, "validate")
    assert (done.code, done.left.reason) == (Exit.BAD_CONFIG, "ConfigInvalid")
    assert words in done.left.message


def test_all_urls_are_asked_at_once_and_the_first_bad_one_is_named(files, registry, config, check):
    together = threading.Barrier(6)

    def meet(request):
        together.wait(20)
        files.send(request, ROWS)

    files.files["/meet"] = meet
    urls = [f"{files.url}/meet"] * 6
    assert check(config(f"{registry.host}/team/a:1", urls=urls)).code == Exit.DONE
    done = check(config(f"{registry.host}/team/a:1", urls=[*urls, f"{files.url}/none", f"{files.url}/nor-this"]))
    assert "urls[6]" in done.left.message


def test_a_server_that_says_nothing_is_not_waited_for(files, tokens, config, tmp_path):
    never = threading.Event()
    files.files["/rows.jsonl"] = lambda _request: never.wait(60)
    secret = write_secret(tmp_path / "push.json", {tokens.host: entry()})
    with pytest.raises(DataUnreachable, match=r"urls\[0\].*: gives no answer within 3 s"):
        check_.check(
            config(f"{tokens.host}/team/a:1"), Places(push_auth=secret), seconds=3
        )  # in which this registry answers four times
    never.set()


def test_a_registry_that_says_nothing_is_not_waited_for(files, config, tmp_path):
    never = threading.Event()
    files.answer = lambda _request: never.wait(60)
    with pytest.raises(RegistryUnavailable, match="gives no answer within 1 s"):
        check_.check(config(f"{files.host}/team/a:1"), Places(push_auth=tmp_path / "none"), seconds=1)
    never.set()


def test_a_volume_that_says_nothing_is_called_by_its_field(config):
    late = check_._late(config("", output={"volume": "team/out"}), "gives no answer within 45 s")
    assert str(late).startswith("tuning.output.volumeSource: team/out gives no answer within 45 s")
    assert str(check_._late(config("reg.io/a:1"), "is late")).startswith("tuning.output.image: reg.io/a:1 is late")


def test_a_volume_without_room_for_the_adapter_is_told(config, small, tmp_path):
    asked = {"preset": "phi-3-mini-4k-instruct", "output": {"volume": "team/out"}}
    with pytest.raises(VolumeRefused, match=r"team/out has 0\.00 GB free, of 0\.03 GB for an adapter of rank 8;"):
        check_.see_room(config("", **asked), Places(results=small), None)
    with pytest.raises(
        VolumeRefused, match=r"of 0\.57 GB .* and its checkpoints; .* or say tuning.checkpoint.destination: None"
    ):
        check_.see_room(config("", checkpoint_seconds=300, **asked), Places(results=small), None)
    best = {"arguments": {"load_best_model_at_end": True, "eval_strategy": "steps"}}
    with pytest.raises(VolumeRefused, match=r"of 0\.75 GB .* and its checkpoints"):
        check_.see_room(config("", checkpoint_seconds=300, training=best, **asked), Places(results=small), None)
    check_.see_room(config("", **asked), Places(results=tmp_path), None)
    unknown = asked | {"preset": "nobody/knows"}
    check_.see_room(config("", **unknown), Places(results=small), None)


def test_wrong_usage():
    done = subprocess.run([sys.executable, "-m", "tuning"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.USAGE
    assert "COMMAND" in done.stderr


def test_a_missing_config_file(tmp_path):
    command = [sys.executable, "-m", "tuning", "validate", "nowhere.json"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={"TERMINATION_LOG": str(tmp_path / "t")}
    )
    assert done.returncode == Exit.BAD_CONFIG
    assert terminations.of_tuning((tmp_path / "t").read_text()).reason == "ConfigInvalid"


HEAVY = [
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "numpy",
    "huggingface_hub",
    "accelerate",
]
WITHOUT = f"""
import sys
for name in {HEAVY}:
    sys.modules[name] = None  # an import of it fails, as in the operator's image
from tuning.__main__ import main
sys.exit(main())
"""


def test_a_check_needs_nothing_heavy(files, registry, config, auth, tmp_path):
    files.files["/rows.jsonl"] = ROWS
    path = tmp_path / "config.json"
    path.write_text(config(f"{registry.host}/team/a:1").model_dump_json())
    command = [sys.executable, "-c", WITHOUT, "validate", str(path), "--push-auth", str(auth)]
    environment = {"TERMINATION_LOG": str(tmp_path / "t"), "PATH": "/usr/bin"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == Exit.DONE, done.stderr
    assert terminations.of_tuning((tmp_path / "t").read_text()) == Result()
    assert done.stdout == ""


@pytest.mark.parametrize("module", ["tuning.config", "tuning.training_config"])
def test_what_the_operator_imports_is_light(module):
    unwanted = [*HEAVY, "requests", "pyarrow", "tokenizers", "jinja2"]
    code = f"import sys, {module}; print(*(set({unwanted}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_ranges_are_ranges(config):
    with pytest.raises(ValueError, match="allowed_private_cidrs"):
        config("reg.io/a:1", allowed_private_cidrs=["10.0.0.0/99"])
