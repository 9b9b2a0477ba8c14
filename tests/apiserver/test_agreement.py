"""Whatever a Workspace says, the API server and Python give the same verdict, policies even in the same words.

3,000 objects and each rule at least 20 times: `make agreement`. A test run takes some of them.
"""

import collections
import json
import os
import re

import hypothesis
import pydantic
import pytest

from kaito_hera import admission, api
from kaito_hera import cluster as clusters
from kaito_hera.admission import policy
from kaito_hera.settings import Azure, Settings
from tests.apiserver.conftest import until
from tests.apiserver.generating import workspaces
from tests.cluster import testing

EXAMPLES = int(os.environ.get("KAITO_HERA_AGREEMENT", "500"))
ALL = 3000
AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
SETTINGS = Settings(node_provider="aks", azure=AZURE, retired_sizes="refuse")
HITS = collections.Counter()
DENIED = "denied request: "
TOLD = re.compile(
    r"299 - \"Validation failed for ValidatingAdmissionPolicy '([^']*)' with binding '[^']*': (.*)\"", re.DOTALL
)
BINDING = clusters.Kind(
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    "v1",
    "admissionregistration.k8s.io",
    namespaced=False,
)


@pytest.fixture(scope="module")
def ask():
    """What an API server with these settings says to a create: status code, its message, its warnings."""
    patch = pytest.MonkeyPatch()
    with testing.apiserver() as path:
        testing.install(path)
        patch.setenv("KUBECONFIG", str(path))
        cluster = clusters.Cluster.connect()
        data = {"nodeProvider": "aks", "retiredSizes": "refuse"}
        cluster.patch(clusters.CONFIG_MAP, "kaito-hera-settings", "kaito-hera", {"data": data})

        def asked(body):
            address = f"/apis/{body['apiVersion']}/namespaces/default/workspaces"
            query = {"fieldValidation": "Strict", "dryRun": "All"}
            content = json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            answer = cluster._request("POST", address, query, body=content, headers=headers, timeout=30)
            said = json.loads(answer.data)
            return answer.status, str(said.get("message", "")), answer.headers.getlist("Warning")

        _tell_all(cluster)
        unsized = {"resource": {"labelSelector": {}}, "inference": {"preset": {"name": "no-such-preset"}}}
        body = {"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "metadata": {"name": "w"}, **unsized}
        until(
            lambda: {TOLD.match(line)[1] for line in asked(body)[2]} == {policy.TABLE, policy.SETTINGS}, what="policies"
        )
        yield asked
    patch.undo()


def _tell_all(cluster):
    """Bind each policy again, to warn: of several that deny, the API server shows one."""
    for binding in cluster.items(BINDING):
        spec = binding["spec"]
        if spec["validationActions"] == ["Deny"] and spec.get("paramRef", {}).get("parameterNotFoundAction") != "Deny":
            metadata = {"name": f"told-{binding['metadata']['name']}"}
            cluster.apply(BINDING, {"metadata": metadata, "spec": {**spec, "validationActions": ["Warn"]}})


def judge(body):
    """Python's verdict: the Workspace's problems, or the rules of the schema that it breaks."""
    try:
        workspace = api.Workspace.parse(body)
    except pydantic.ValidationError as refused:
        return None, list(_broken(refused))
    return admission.problems(workspace, SETTINGS), []


def _broken(refused):
    for error in refused.errors():
        cause = error.get("ctx", {}).get("error")
        yield from getattr(cause, "messages", [error["msg"]])


def _unescaped(warning):
    warning = warning.encode("latin-1").decode()
    return warning.replace('\\"', '"').replace("\\\\", "\\")


@hypothesis.settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(body=workspaces())
def test_api_server_and_python_agree(ask, body):
    status, message, warned = ask(body)
    problems, broken = judge(body)
    errors = [problem for problem in problems or () if problem.severity == "error"]
    seen = f"{status}: {message}\nPython: {broken or [problem.message for problem in errors]}"
    HITS["objects"] += 1
    if problems is None:
        assert status in {400, 422}, seen
        assert DENIED not in message, seen
        HITS.update(set(broken))
        return
    if errors:
        assert status == 422, seen
        assert DENIED in message, seen
    else:
        assert status == 201, seen
        HITS["sound"] += 1
    assert sorted(_unescaped(TOLD.match(line)[2]) for line in warned) == sorted(_expected(problems)), seen
    HITS.update({problem.rule.name for problem in problems})


def _expected(problems):
    """What the API server says: all that a policy refuses at once, each warning by itself."""
    by_message = collections.defaultdict(list)
    for problem in problems:
        key = policy.of(problem.rule) if problem.severity == "error" else problem.rule.name
        by_message[key].append(problem.message)
    return [policy.told(messages) for messages in by_message.values()]


def test_half_of_them_were_sound_and_each_rule_spoke():
    """After the test above: of all objects each rule twenty times, of fewer once."""
    assert HITS["objects"] >= EXAMPLES
    assert 0.4 <= HITS["sound"] / HITS["objects"] <= 0.6
    named = [rule.name for rule in admission.RULES if rule.found]
    models = (getattr(api, name) for name in api.__all__)
    named += [
        rule.message
        for model in models
        if isinstance(model, type) and issubclass(model, api.Model)
        for rule in model.rules
        if rule.holds
    ]
    assert {name: HITS[name] for name in named if HITS[name] < (20 if EXAMPLES >= ALL else 1)} == {}
