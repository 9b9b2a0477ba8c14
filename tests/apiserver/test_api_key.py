"""A Workspace whose server asks for a key: the Secret in preflight, in the pod, and presented by the roll-out."""

# ruff: noqa: F811 - fixtures are imported and then asked for by name

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.rolled import pending, rolled_out, served  # noqa: F401
from workflows import asks

FIELD = r"metadata.annotations\[kaito.sh/api-key-secret\]"


def keyed():
    return making.inference(annotations={"kaito.sh/api-key-secret": "keys"})


@pytest.fixture
def secret(cluster, namespace):
    def put(value):
        found = cluster.get(clusters.SECRET, "keys", namespace)
        body = {"metadata": {"name": "keys", "namespace": namespace}, "stringData": {"API_KEY": value}}
        if found:
            cluster.patch(clusters.SECRET, "keys", namespace, {"stringData": body["stringData"]})
        else:
            cluster.create(clusters.SECRET, body)

    return put


def test_the_secret_must_be_there_with_a_key_that_can_be_sent(cluster, apply, settings, secret, namespace):
    run = Run(cluster, Workspace.parse(apply(keyed())), settings, None)
    with pytest.raises(errors.SecretNotFoundError, match=rf"{FIELD}: Secret {namespace}/keys is missing; make it"):
        asks.keys.pass_secret(run)
    secret("two words")
    with pytest.raises(
        errors.SecretInvalidError, match=rf"{FIELD}: Secret {namespace}/keys, API_KEY: has letters"
    ) as no:
        asks.keys.pass_secret(run)
    assert "two words" not in str(no.value)
    secret("one")
    asks.keys.pass_secret(run)


def test_the_server_gets_the_secret_as_a_file_and_no_step_s_pod_its_content(cluster, apply, settings, served, secret):
    secret("one")
    with rolled_out(cluster, apply(keyed()), settings, served) as rolled:
        spec = rolled.apply()["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert {"name": "API_KEY_FILE", "value": "/etc/kaito/api-key/API_KEY"} in container["env"]
    assert {"name": "api-key", "mountPath": "/etc/kaito/api-key", "readOnly": True} in container["volumeMounts"]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "api-key"]
    assert volume["secret"]["secretName"] == "keys"


def test_the_roll_out_asks_with_the_key_as_it_is_now(cluster, apply, settings, served, secret, capsys):
    secret("one,old")
    served.key = "two"
    with rolled_out(cluster, apply(keyed()), settings, served) as rolled:
        rolled.pod()
        rolled.settle()
        waiting = rolled.wait()
        pending(waiting, capsys, "pod p: does not know the API key yet")
        secret("two")
        assert waiting.result(timeout=20) is None


def test_a_secret_that_goes_during_a_roll_out_is_told(cluster, apply, settings, served, secret, namespace):
    secret("one")
    with rolled_out(cluster, apply(keyed()), settings, served) as rolled:
        rolled.pod()
        cluster.delete(clusters.SECRET, "keys", namespace)
        assert isinstance(rolled.wait().exception(timeout=20), errors.SecretNotFoundError)
