"""The service account issuer of a cluster, asked through a kubeconfig; a real cluster's Entra asks by itself."""

import json
from pathlib import Path
from typing import Any

import jwt


class Issuer:
    """Verifies projected service account tokens by the keys that the API server publishes."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._name = ""
        self._keys: dict[str, jwt.PyJWK] = {}

    def verify(self, assertion: str, audience: str) -> dict[str, Any]:
        """The claims of a good token; a jwt.PyJWTError says what is wrong with another."""
        number = jwt.get_unverified_header(assertion).get("kid", "")
        if number not in self._keys:
            self._fetch()  # the cluster may have been made anew, with other keys
        if number not in self._keys:
            raise jwt.InvalidSignatureError(f"no key {number!r} among the cluster's {sorted(self._keys)}")
        key = self._keys[number]
        return dict(
            jwt.decode(
                assertion,
                key.key,
                algorithms=[key.algorithm_name],
                audience=audience,
                issuer=self._name,
                options={"require": ["exp", "iss", "sub", "aud"]},
            )
        )

    def _fetch(self) -> None:
        import kubernetes  # the simulator starts much faster without it

        with kubernetes.config.new_client_from_config(config_file=str(self._kubeconfig)) as client:
            about, published = (
                json.loads(client.call_api("GET", client.configuration.host + path).read())
                for path in ("/.well-known/openid-configuration", "/openid/v1/jwks")
            )
            client.rest_client.pool_manager.clear()  # the client's own end leaves its connections open
        self._name = about["issuer"]
        self._keys = {key.key_id or "": key for key in jwt.PyJWKSet.from_dict(published).keys}
