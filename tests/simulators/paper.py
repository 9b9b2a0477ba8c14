"""Machines on paper, and a cluster's token issuer: what the Azure simulator needs besides itself."""

import json
import threading
import time
from contextlib import contextmanager

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.cluster import pki
from tests.cluster.simulators import web
from tests.cluster.simulators.azure.entra import EXCHANGE

ISSUER = "https://kubernetes.default.svc"
SUBJECT = "system:serviceaccount:kaito-hera:kaito-hera-steps"


class Machines:
    """A file per machine that is on, so that they outlive whoever switched them on."""

    def __init__(self, folder):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.calls = []
        self.gate = threading.Event()  # boot waits for it
        self.gate.set()
        self.joining = threading.Event()  # machines join only while it is set
        self.joining.set()
        self.broken = {}  # verb: exception

    def on(self):
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def about(self, name):
        return json.loads((self.folder / f"{name}.json").read_text())

    def boot(self, machine):
        self._called("boot", machine.name)
        (self.folder / f"{machine.name}.json").write_text(json.dumps(machine._asdict()))
        self.gate.wait(20)

    def joined(self, name):
        if "joined" in self.broken:
            raise self.broken["joined"]
        return self.joining.is_set() and name in self.on()

    def relabel(self, name, labels):
        self._called("relabel", name)
        about = self.about(name)
        about["labels"] = {key: value for key, value in (about["labels"] | labels).items() if value is not None}
        (self.folder / f"{name}.json").write_text(json.dumps(about))

    def remove(self, name):
        self._called("remove", name)
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def _called(self, verb, name):
        self.calls.append((verb, name))
        if verb in self.broken:
            raise self.broken[verb]


class Issuer:
    """The API server's keys, and tokens signed with them."""

    def __init__(self, kind="ec"):
        self.algorithm = {"ec": "ES256", "rsa": "RS256"}[kind]
        self.key = (
            ec.generate_private_key(ec.SECP256R1())
            if kind == "ec"
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )

    def token(self, *, kid="key-1", **claims):
        now = time.time()
        told = {"iss": ISSUER, "sub": SUBJECT, "aud": [EXCHANGE], "iat": now, "exp": now + 600} | claims
        return jwt.encode(told, self.key, self.algorithm, headers={"kid": kid})

    def handle(self, request):
        if request.segments == (".well-known", "openid-configuration"):
            return web.json_answer(200, {"issuer": ISSUER, "jwks_uri": "https://elsewhere/openid/v1/jwks"})
        assert request.segments == ("openid", "v1", "jwks")
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        jwk = algorithm.to_jwk(self.key.public_key(), as_dict=True) | {"kid": "key-1", "alg": self.algorithm}
        document = json.dumps({"keys": [jwk]}).encode()
        return web.Answer(200, document, {"Content-Type": "application/jwk-set+json"})

    @contextmanager
    def api_server(self, tls, kubeconfig):
        """Answers for the keys as the API server does; `kubeconfig` leads to it."""
        with web.serving(("127.0.0.1", 0), tls.cert, tls.key, handle=self.handle, log=lambda *_: None) as server:
            pki.kubeconfig(tls.folder, "server", kubeconfig, f"https://127.0.0.1:{server.port}")
            yield


def until(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)
