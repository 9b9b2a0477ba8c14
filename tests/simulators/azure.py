"""A simulated Azure on loopback with a real SDK client, on machines of paper."""

import contextlib
import json
import time

from azure.core.credentials import AccessToken
from azure.mgmt.containerservice import ContainerServiceClient

from tests.cluster.simulators import web
from tests.cluster.simulators.azure.account import Account
from tests.cluster.simulators.azure.cloud import Cloud
from tests.cluster.simulators.azure.entra import Tokens
from tests.simulators import paper

ACCOUNT = Account()
WHERE = ACCOUNT.resource_group, ACCOUNT.aks
V100, A100 = "Standard_NC6s_v3", "Standard_NC24ads_A100_v4"


class Unasked:
    """A verifier for tests in which nobody logs in."""

    def verify(self, assertion, audience):
        raise NotImplementedError


class Simulated:
    """One cloud, its machines and its files."""

    def __init__(self, machines, state, url, client):
        self.machines, self.state, self.url = machines, state, url
        self.client, self.pools = client, client.agent_pools

    def put(self, name, *, count=1, size=V100, **more):
        conditions = {key: more.pop(key) for key in ("match_condition", "etag") if key in more}
        body = {"properties": {"count": count, "vmSize": size, **more}}
        return self.pools.begin_create_or_update(*WHERE, name, body, polling=False, **conditions).result()

    def get(self, name):
        return self.pools.get(*WHERE, name)

    def delete(self, name, **more):
        self.pools.begin_delete(*WHERE, name, polling=False, **more)

    def state_of(self, name):
        return next((p.provisioning_state for p in self.pools.list(*WHERE) if p.name == name), "gone")

    def until(self, name, state):
        paper.until(lambda: self.state_of(name) == state, f"{name} to be {state}, it is {self.state_of(name)}")

    def scenario(self, name, **content):
        (self.state / "scenarios" / f"{name}.json").write_text(json.dumps(content))

    def limits(self, **content):
        (self.state / "limits.json").write_text(json.dumps(content))

    def requests(self):
        return [json.loads(line) for line in (self.state / "requests.jsonl").read_text().splitlines()]


class Bearer:
    """A credential that has a good token already."""

    def __init__(self, state, *, seconds=3600):
        self._tokens = Tokens(state / "token-secret", seconds)

    def get_token(self, *_, **__):
        return AccessToken(self._tokens.issue(ACCOUNT), int(time.time() + self._tokens.lifetime))


@contextlib.contextmanager
def simulated(tls, folder, *, verifier=None, credential=None, answering=None, **more):
    """The cloud of a folder; entered again, it is the next process on the same state.

    `answering` is told of each request after it was done and before anything is sent.
    """
    machines, state = paper.Machines(folder / "machines"), folder / "state"
    cloud = Cloud(state, ACCOUNT, machines, verifier=verifier or Unasked(), subjects={paper.SUBJECT}, **more)

    def log(request, status, seconds):
        cloud.log(request, status, seconds)
        if answering:
            answering(request)

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(web.serving(("127.0.0.1", 0), tls.cert, tls.key, handle=cloud.handle, log=log))
        stack.callback(cloud.stop)
        stack.callback(machines.gate.set)
        cloud.start()
        login = stack.enter_context(credential(server)) if credential else None
        client = client_of(tls, state, server.port, credential=login)
        yield Simulated(machines, state, f"https://127.0.0.1:{server.port}", stack.enter_context(client))


def client_of(tls, state, port, *, credential=None):
    return ContainerServiceClient(
        credential or Bearer(state),
        ACCOUNT.subscription,
        base_url=f"https://127.0.0.1:{port}",
        connection_verify=str(tls.ca),
        polling_interval=0.05,
        retry_backoff_factor=0.01,
    )
