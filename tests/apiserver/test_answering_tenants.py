"""What answers in a roll-out may be anything: a tenant wrote it, and is shown what is said of it."""

# ruff: noqa: F811 - fixtures are imported and then asked for by name
import pytest

from tests.apiserver.conftest import until
from tests.apiserver.rolled import Served, answers, rolled, served  # noqa: F401


def nonsense(rolled, served, capsys, words, **more):
    """It waits for a better answer, and quotes nothing of this one."""
    rolled.pod()
    rolled.settle()
    waiting = rolled.wait(**more)
    until(lambda: words in (told := capsys.readouterr().out) and "s3cret" not in told, what=words, seconds=10)
    served.status, served.drips = 200, False
    served.load("loaded")
    waiting.result(timeout=10)


def test_a_redirect_is_not_followed(rolled, served, capsys):
    other = Served()
    with answers(other) as port:
        served.status, served.headers = 302, {"Location": f"http://127.0.0.1:{port}/v1/models"}
        served.body = b"s3cret"
        nonsense(rolled, served, capsys, "pod p: answers nonsense on /v1/models: status 302\n")
    assert other.asked == 0


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        pytest.param(200, b"s3cret", "no JSON of ours", id="text"),
        pytest.param(200, b"[" * 100_000, "no JSON of ours", id="deep"),
        pytest.param(200, b'{"ready": true, "adapters": []' + b" " * 2**21 + b"}", "no JSON of ours", id="long"),
        pytest.param(200, {"ready": "s3cret", "adapters": []}, "ready: Input should be a valid boolean", id="field"),
        pytest.param(500, b"s3cret", "status 500", id="status"),
    ],
)
def test_what_is_answered_is_not_quoted(rolled, served, capsys, status, body, told):
    served.status, served.body = status, body
    nonsense(rolled, served, capsys, f"pod p: answers nonsense on /v1/models: {told}")


def test_an_answer_that_never_ends_is_broken_off(rolled, served, capsys):
    served.drips = True
    nonsense(rolled, served, capsys, "pod p: does not answer /v1/models: TimeoutError", patience=0.5)


@pytest.mark.parametrize("owner", ["", "of-another"])
def test_a_pod_that_the_deployment_did_not_make_is_not_asked(rolled, served, owner):
    served.load("loaded")
    rolled.pod("forged", address="127.0.0.2", owner=owner)
    rolled.pod()
    rolled.settle()
    rolled.wait().result(timeout=10)
