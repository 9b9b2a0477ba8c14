"""Moves the finished image to its registry, with skopeo; the training is paid for, so this does not give up soon."""

import re
import subprocess
import time
from pathlib import Path

import requests

from artifacts import docker
from tuning import credentials, image, registry
from tuning.errors import PushForbidden, RegistryUnavailable, TuningError
from tuning.eviction import Eviction
from tuning.report import log

BUDGET_SECONDS = 4 * 3600.0
"""The node is paid meanwhile, but to train again would cost more, and registries have been away for hours. The Job's
deadline holds too."""
_TRY_SECONDS = 1800.0
"""A copy that hangs is ended and begun anew; what the registry has taken by then is not sent again."""

_STATUS = re.compile(r"(?:HTTP|status)\D{0,25}(\d{3})\b", re.IGNORECASE)
"""skopeo's ways: `HTTP status: 502`, `StatusCode: 403`, `HTTP 413 response body`."""

_FINAL_STATUSES = frozenset({403, 413})
_FINAL = re.compile(
    r"""(?:^|:\ |\\n) (?:denied|(?:name|tag|manifest)\ invalid|unsupported) (?=[:"\\]|$)  # codes of the API's errors
        | \b quota \b""",
    re.VERBOSE | re.IGNORECASE,
)


def push(
    packed: image.Image,
    target: str,
    intent: str,
    secret: Path,
    *,
    scratch: Path,
    eviction: Eviction,
    budget: float = BUDGET_SECONDS,
    pause: float = 1.0,
) -> str:
    """Push the image and return it by digest; tries for `budget` seconds before it raises what was wrong last.

    `pause` seconds lie between tries at first, then more. The secret is read anew for each try: whoever mends it
    meanwhile saves the run.
    """
    end = time.monotonic() + budget
    while True:
        try:
            return _once(packed, registry.Registry(target, secret, pauses=()), intent, scratch, end)
        except TuningError as error:
            if time.monotonic() + pause > end:
                raise
            log.warning("push: %s; trying again in %.0f s", error, pause)
        eviction.sleep(pause)
        pause = min(2 * pause, 30)


def _once(packed: image.Image, to: registry.Registry, intent: str, scratch: Path, end: float) -> str:
    """One try: ask whether it may and whether it is there already, then copy."""
    if there := to.ask(intent):
        return f"{to.reference.name}@{there}"
    auth, digest = scratch / "push-auth.json", scratch / "push-digest"
    credentials.write(auth, to.reference.host, to.credential)
    command = ["skopeo", "--insecure-policy", "--tmpdir", str(scratch), "copy", "--preserve-digests"]
    command += ["--authfile", str(auth), "--digestfile", str(digest)]
    command += ["--dest-tls-verify=false"] if to.base.startswith("http:") else []
    command += [f"oci:{packed.layout}:{image.TAG}", f"docker://{to.reference}"]
    try:
        left = min(max(60.0, end - time.monotonic()), _TRY_SECONDS)
        done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise RegistryUnavailable(f"{credentials.IMAGE}: {to.reference} took no image within {left:.0f} s") from error
    finally:
        auth.unlink(missing_ok=True)
    if done.returncode:
        raise refusal(to.reference, done.stderr)
    if digest.read_text().strip() != packed.digest:
        raise PushForbidden(f"{credentials.IMAGE}: {to.reference} stored {digest.read_text()}, not {packed.digest}")
    return f"{to.reference.name}@{packed.digest}"


def refusal(target: docker.Reference, said: str) -> TuningError:
    """What skopeo's last words mean; that the registry let us in was asked just before.

    Only what the registry itself says is final. A proxy's error page is not, nor is a broken connection, even where
    the registry broke it off to refuse: the next try asks it.
    """
    words = said.strip().splitlines()[-1] if said.strip() else "skopeo said nothing"
    # addresses and names are the user's words: a repository may be called quota
    told = re.sub(r"\S*/\S*[^\s:]", "", words).replace(f"manifest {target.version} to", "")
    status = int(found[1]) if (found := _STATUS.search(told)) else 0
    busy = status == requests.codes.too_many_requests or status >= 500
    final = not busy and (status in _FINAL_STATUSES or _FINAL.search(told))
    kind = PushForbidden if final else RegistryUnavailable
    return kind(f"{credentials.IMAGE}: {target} does not take the image: {words[-400:]}")
