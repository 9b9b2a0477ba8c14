import ssl
from types import SimpleNamespace

import pytest

from tests.cluster import pki


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """An authority, and a certificate of it for everything on loopback."""
    folder = tmp_path_factory.mktemp("pki")
    pki.authority(folder, "simulators")
    public = ["DNS:management.azure.com", "DNS:login.microsoftonline.com"]
    government = ["DNS:management.usgovcloudapi.net", "DNS:login.microsoftonline.us"]
    names = ["IP:127.0.0.1", "DNS:localhost", *public, *government]
    pki.issue(folder, "server", "/CN=server", names)
    return SimpleNamespace(
        folder=folder,
        ca=folder / "ca.crt",
        cert=folder / "server.crt",
        key=folder / "server.key",
        context=ssl.create_default_context(cafile=folder / "ca.crt"),
    )
