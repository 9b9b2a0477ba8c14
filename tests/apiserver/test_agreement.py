"""Whatever a Workspace says, the API server and Python give the same verdict, policies even in the same words.

3,000 objects and each rule at least 20 times: `make agreement`. A test run takes some of them.
"""

import collections
import os
import re

import hypothesis
import pydantic
import pytest

from kaito_hera import admission, api
from kaito_hera import cluster as clusters
from kaito_hera.admission import policy
from kaito_hera.settings import Azure, Settings
from tests.apiserver import asking
from tests.apiserver.conftest import connected, until
from tests.apiserver.generating import workspaces
from tests.cluster import testing

EXAMPLES = int(os.environ.get("KAITO_HERA_AGREEMENT", "500"))
ALL = 3000
AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
CHOSEN = {"nodeProvider": "aks", "retiredSizes": "refuse"}
SETTINGS = Settings(node_provider="aks", azure=AZURE, retired_sizes="refuse")
DENIED = "denied request: "
TOLD = re.compile(r"Validation failed for ValidatingAdmissionPolicy '([^']*)' with binding '[^']*': (.*)", re.DOTALL)
CUT = 256
"""Characters to which an API server cuts each warning of an answer when all together have more than 4,096."""
BINDING = clusters.Kind(
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    "v1",
    "admissionregistration.k8s.io",
    namespaced=False,
)


@pytest.fixture(scope="module")
def ask(spare):
    """What an API server with these settings says to a create in which every policy speaks."""
    testing.install(spare)
    cluster = connected(spare)
    cluster.patch(clusters.CONFIG_MAP, "kaito-hera-settings", "kaito-hera", {"data": CHOSEN})

    def asked(body):
        return asking.create(cluster, body, "default")

    told = list(_tell_all(cluster))
    unsized = {"resource": {"labelSelector": {}}, "inference": {"preset": {"name": "no-such-preset"}}}
    body = {"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "metadata": {"name": "w"}, **unsized}
    until(
        lambda: {TOLD.match(line)[1] for line in asked(body).warnings} == {policy.TABLE, policy.SETTINGS},
        what="policies",
    )
    yield asked
    for binding in told:
        cluster.delete(BINDING, binding["metadata"]["name"])
    as_before = {"nodeProvider": "byo", "retiredSizes": None}
    cluster.patch(clusters.CONFIG_MAP, "kaito-hera-settings", "kaito-hera", {"data": as_before})


def _tell_all(cluster):
    """Bind each policy again, to warn: of several that deny, the API server shows one."""
    for binding in cluster.items(BINDING):
        spec = binding["spec"]
        if spec["validationActions"] == ["Deny"] and spec.get("paramRef", {}).get("parameterNotFoundAction") != "Deny":
            metadata = {"name": f"told-{binding['metadata']['name']}"}
            yield cluster.apply(BINDING, {"metadata": metadata, "spec": {**spec, "validationActions": ["Warn"]}})


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


def each(number):
    """Decorates a test of so many Workspaces, the same in every run."""
    settings = hypothesis.settings(
        max_examples=number, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    return lambda test: hypothesis.seed(3)(settings(hypothesis.given(body=workspaces())(test)))


@each(EXAMPLES)
def test_api_server_and_python_agree(ask, body):
    status, message, warnings = ask(body)
    problems, broken = judge(body)
    errors = [problem for problem in problems or () if problem.severity == "error"]
    seen = f"{status}: {message}\nPython: {broken or [problem.message for problem in errors]}"
    if problems is None:
        assert status in {400, 422}, seen
        assert DENIED not in message, seen
        return
    if errors:
        assert status == 422, seen
        assert DENIED in message, seen
    else:
        assert status == 201, seen
    told = sorted((TOLD.match(line)[2], len(line) == CUT) for line in warnings)
    wanted = sorted(_expected(problems))
    assert len(told) == len(wanted), seen
    for (text, cut), whole in zip(told, wanted, strict=True):
        assert text == (whole[: len(text)] if cut else whole), seen


def _expected(problems):
    """What the API server says: all that a policy refuses at once, each warning by itself."""
    by_message = collections.defaultdict(list)
    for problem in problems:
        key = policy.of(problem.rule) if problem.severity == "error" else problem.rule.name
        by_message[key].append(problem.message)
    return [policy.told(messages) for messages in by_message.values()]


def test_half_of_them_are_sound_and_each_rule_speaks():
    """Of all objects each rule twenty times, of half of them once; if both agree, it is enough to ask Python."""
    hits = collections.Counter()

    @each(max(EXAMPLES, ALL // 2))
    def count(body):
        problems, broken = judge(body)
        sound = problems is not None and all(problem.severity != "error" for problem in problems)
        hits.update(["objects", *(["sound"] if sound else []), *set(broken)])
        hits.update({problem.rule.name for problem in problems or ()})

    count()
    assert 0.4 <= hits["sound"] / hits["objects"] <= 0.6
    assert {name: hits[name] for name in _rules() if hits[name] < (20 if EXAMPLES >= ALL else 1)} == {}


def _rules():
    """Every rule by the name or the words in which it speaks."""
    models = (getattr(api, name) for name in api.__all__)
    models = [model for model in models if isinstance(model, type) and issubclass(model, api.Model)]
    return [
        *(rule.name for rule in admission.RULES if rule.found),
        *(rule.message for model in models for rule in model.rules if rule.holds),
    ]
