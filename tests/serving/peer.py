"""Somebody on the pod's network who knows no token: what the pod's ports let him do."""

import contextlib
import http.client
import pickle

import grpc

CALLS = ("HandleRequest", "HandleRequestWithRejection")
STREAMS = ("HandleRequestStreaming", "HandleRequestWithRejectionStreaming")


class Reach:
    """What makes a file where it is unpickled."""

    def __reduce__(self):
        return open, ("/tmp/reached", "w")


def refuses(host, port):
    """Whether nothing comes of a connection, of a request in HTTP, nor of one that would be unpickled."""
    try:
        answer = _status(host, port)
    except OSError:
        return True
    return answer in (None, 401, 403) and calls(host, port) == {grpc.StatusCode.UNAUTHENTICATED}


def calls(host, port, *, token=None):
    """How each way into a replica ends."""
    pickled = pickle.dumps(Reach())
    sent = b"\x0a" + bytes([len(pickled)]) + pickled  # ASGIRequest.pickled_request_metadata
    known = [("authorization", f"Bearer {token}")] if token else []
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    ended = set()
    with grpc.insecure_channel(address) as channel:
        ways = [(channel.unary_unary, name) for name in CALLS] + [(channel.unary_stream, name) for name in STREAMS]
        for kind, name in ways:
            try:
                answer = kind(f"/ray.serve.ASGIService/{name}")(sent, timeout=10, metadata=known)
                if name in STREAMS:
                    list(answer)
                ended.add(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                ended.add(error.code())
    return ended


def _status(host, port):
    """Of a GET; None where what listens there speaks no HTTP."""
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
        connection.connect()
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
