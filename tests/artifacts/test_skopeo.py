"""What skopeo's words mean; what it does is tested where images are pulled and pushed."""

import pytest

from artifacts import errors, skopeo

UPLOADS = "/v2/quota-forecast/denied/blobs/uploads/"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (f"initiating layer upload to {UPLOADS} in r.io: received unexpected HTTP status: 503 x", errors.Away),
        ("writing blob: error parsing HTTP 502 response body: invalid character '<' looking for", errors.Away),
        ("uploading layer chunked: StatusCode: 429, <html><title>denied: quota", errors.Away),
        (f"uploading layer to http://r.io{UPLOADS}1?digest=sha256%3A1: toomanyrequests", errors.Away),
        (f'Patch "http://r.io{UPLOADS}1": write tcp 127.0.0.1:1->127.0.0.1:2: write: broken pipe', errors.Away),
        ("uploading manifest quota to r.io/quota-forecast/denied: blob upload invalid", errors.Away),
        ("creating a temporary file: permission denied", errors.Away),
        ("", errors.Away),
        ("uploading layer chunked: StatusCode: 403, <html>", errors.Denied),
        ("uploading layer chunked: StatusCode: 413, <html>", errors.Denied),
        ("uploading layer chunked: denied", errors.Denied),
        ("in registry-1.docker.io: errors:\\ndenied: requested access\\nunauthorized: log in\\n", errors.Denied),
        ("uploading layer chunked: unknown: the quota of 10 GiB is used up", errors.Denied),
        (f"uploading layer to http://r.io{UPLOADS}1: name invalid: no such project", errors.Denied),
        ("uploading manifest 1 to r.io/team/a: manifest invalid: no config", errors.Denied),
        ("uploading manifest 1 to r.io/team/a: tag invalid: it is immutable", errors.Denied),
        ("uploading manifest 1 to r.io/team/a: unsupported", errors.Denied),
        ("Head https://r.io/v2/: tls: failed to verify certificate: x509: unknown authority", errors.HostRefused),
        (
            "Get https://r.io/v2/: http: server gave HTTP response to HTTPS client",
            errors.HostRefused,
        ),
        ("reading manifest 1 in r.io/team/unauthorized: unauthorized: authentication required", errors.Unauthorized),
        ("reading manifest 1 in r.io/team/unauthorized: connection refused", errors.Away),
        ("reading manifest 1 in ghcr.io/team/a: denied", errors.Denied),
        ("unable to retrieve auth token: invalid username/password", errors.Unauthorized),
        ("requesting bearer token: invalid status code from registry 403 (Forbidden)", errors.Denied),
        ("requesting bearer token: invalid status code from registry 404 (Not Found)", errors.NotFound),
        ("reading manifest 9 in r.io/team/a: manifest unknown", errors.NotFound),
        ('Invalid image name \\"docker://r.io/Upper:1\\": invalid reference format', errors.NotFound),
        ("writing blob: write /tmp/x: no space left on device", errors.MachineTrouble),
    ],
)
def test_what_skopeo_says_is_final_where_the_registry_says_so(words, kind):
    said = f'Getting image\ntime="2026-11-21T13:12:37Z" level=fatal msg="writing blob: {words}"\n' if words else ""
    assert skopeo._kind(said) is kind
