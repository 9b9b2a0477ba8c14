"""Who may name a key for a server: what the pod gets of it, and where it would be asked for in vain."""

import datetime

import pytest

from kaito_hera import refusals
from kaito_hera.settings import Settings
from tests import making
from workflows.asks import keys

KEYED = {"kaito.sh/api-key-secret": " Keys "}


def own_pod():
    made = making.inference(annotations=KEYED)
    return {**made, "inference": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}


def about_keys(workspace):
    day = datetime.date(2026, 1, 2)
    return [one for one in refusals.findings(making.parsed(workspace), Settings(), day) if one.field == keys.FIELD]


@pytest.mark.parametrize("made", [making.inference(annotations=KEYED), making.tuning(annotations=KEYED)])
def test_a_server_gets_the_secret_that_is_named(made):
    workspace = making.parsed(made)
    (mount,) = keys.mounts(workspace)
    assert (mount.source["secret"]["secretName"], mount.read_only) == ("keys", True)
    assert keys.env(workspace) == ({"name": "API_KEY_FILE", "value": f"{mount.path}/API_KEY"},)
    assert about_keys(made) == []


def test_a_pod_of_ones_own_is_refused_since_it_would_be_open():
    (finding,) = about_keys(own_pod())
    assert finding.fatal
    assert "would be open all the same" in finding.problem


def test_where_nothing_is_served_a_key_is_a_warning():
    (finding,) = about_keys(making.tuning(annotations={**KEYED, "kaito.sh/serve": "false"}))
    assert (finding.fatal, finding.problem) == (False, "has no effect, since nothing is served")


@pytest.mark.parametrize("made", [making.inference(), own_pod()])
def test_else_nothing_is_asked_for(made):
    workspace = making.parsed(made)
    assert keys.mounts(workspace) == keys.env(workspace) == ()
    assert keys.first(workspace)(None) == ""
