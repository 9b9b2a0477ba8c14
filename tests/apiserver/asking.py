"""What a user's kubectl asks of the API server, without a process for each: fields are strict, warnings are kept."""

import json
import re
from typing import NamedTuple

_WARNING = re.compile(r'299 - "(.*)"', re.DOTALL)


class Said(NamedTuple):
    """An answer; `refused` is the request's own fault."""

    status: int
    message: str
    warnings: tuple[str, ...]

    @property
    def taken(self):
        return self.status < 300

    @property
    def refused(self):
        return 400 <= self.status < 500


def create(cluster, workspace, namespace, *, keep=False, user=""):
    """Create it, as the administrator or as a user of this name; without `keep` it is only judged."""
    return _ask(cluster, "POST", _place(workspace, namespace), workspace, keep=keep, user=user)


def edit(cluster, workspace, namespace, change, *, user=""):
    """A merge patch to one that stands, in the version of `workspace`."""
    address = f"{_place(workspace, namespace)}/{workspace['metadata']['name']}"
    return _ask(cluster, "PATCH", address, change, form="merge-patch+json", user=user)


def _place(workspace, namespace):
    return f"/apis/{workspace['apiVersion']}/namespaces/{namespace}/workspaces"


def _ask(cluster, method, address, body, *, form="json", keep=True, user=""):
    query = {"fieldValidation": "Strict", "dryRun": "" if keep else "All"}
    headers = {"Content-Type": f"application/{form}", **({"Impersonate-User": user} if user else {})}
    answer = cluster._request(method, address, query, body=json.dumps(body).encode(), headers=headers, timeout=30)
    warnings = answer.headers.getlist("Warning")
    return Said(answer.status, str(json.loads(answer.data).get("message", "")), tuple(map(_text, warnings)))


def _text(warning):
    """As it was written: a header is read as Latin-1, and quotes in it are escaped."""
    return re.sub(r'\\(["\\])', r"\1", _WARNING.fullmatch(warning)[1].encode("latin-1").decode())
