"""`artifacts.registry` with the push secret: may it push there, is the adapter there already? In the fields' words."""

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from artifacts import errors, strangers
from artifacts import registry as registries
from tuning.config import INTENT
from tuning.errors import NodeTrouble, PushForbidden, PushUnauthorized, RegistryUnavailable
from tuning.output import credentials
from tuning.output.credentials import IMAGE, SECRET
from tuning.report import log

READ_SECONDS = 8.0
PAUSES = (0.5, 2.0)
"""Between tries: a registry that restarts is back in seconds, and the user waits for an answer."""


class Registry:
    """One image's registry, spoken to with the secret's entry for it."""

    def __init__(self, image: str, secret: Path, *, pauses: Sequence[float] = PAUSES) -> None:
        self.reference = credentials.parse(image)
        self.credential = credentials.find(secret, self.reference)
        self.plain = False
        """Whether it speaks no TLS, which only one on this machine may."""
        self._secret = secret
        self._pauses = pauses

    def ask(self, intent: str) -> str:
        """The digest of the tag's image if this intent made it, else empty; raises unless a push would be let in.

        An empty intent is that of an image without one, as KAITO pushes it.
        """
        for pause in self._pauses:
            try:
                return self._ask(intent)
            except RegistryUnavailable as error:
                log.warning("%s; asking again in %.1f s", error, pause)
                time.sleep(pause)
        return self._ask(intent)

    def _ask(self, intent: str) -> str:
        asked = registries.Registry(self.reference, self.credential, push=True, silence=READ_SECONDS)
        with self.explained(), asked:
            asked.may_push()
            self.plain = asked.base.startswith("http:")
            try:
                body = asked.manifest()
            except (errors.NotFound, errors.Denied):
                return ""
        try:
            made_by = strangers.parsed(body).get("annotations", {}).get(INTENT, "")  # without: of KAITO's
        except (ValueError, AttributeError):
            return ""
        return f"sha256:{hashlib.sha256(body).hexdigest()}" if made_by == intent else ""

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Errors within are about the image, or about the secret for it."""
        host = self.reference.host
        entries = ", ".join(credentials.hosts(self._secret)) or "none"
        way_in = (
            "make the secret anew with a password that is valid now"
            if self.credential
            else f"the secret has no entry for it (entries: {entries}); add one for {host}"
        )
        with (
            errors.translated(_KINDS, f"{IMAGE}: ", {errors.Denied: _WAY_IN}),
            errors.translated({errors.Unauthorized: PushUnauthorized}, f"{SECRET}: ", {errors.Unauthorized: way_in}),
        ):
            yield


_KINDS: errors.Table = {
    errors.ArtifactError: PushForbidden,
    errors.Away: RegistryUnavailable,
    errors.MachineTrouble: NodeTrouble,
}
_WAY_IN = "grant the right to push (on ACR: AcrPush), free its quota or correct the name"
