"""Real servers on loopback: a file server with bad habits, a model hub, Debian's registry, a registry with tokens."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import requests

COMMIT = "0123456789abcdef0123456789abcdef01234567"
USER, PASSWORD = "pusher", "correct horse"
HTPASSWD = "pusher:$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n"  # of that password


class Server:
    """An HTTP server whose `answer(request)` a subclass writes; counts what it is asked."""

    def __init__(self, *, tls=None, address="127.0.0.1"):
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_any(self):
                owner.asked.append((self.command, self.path, dict(self.headers)))
                with contextlib.suppress(ConnectionError):
                    self.content = owner.body(self)  # first: answered earlier, a client may meet a broken pipe
                    owner.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        self.asked = []
        self.http = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.http.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.port = self.http.server_address[1]
        self.host = f"{address}:{self.port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def answer(self, request):
        raise NotImplementedError

    @staticmethod
    def body(request):
        whole = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if request.headers.get("Transfer-Encoding") == "chunked":
            while size := int(request.rfile.readline(), 16):
                whole += request.rfile.read(size)
                request.rfile.readline()
            request.rfile.readline()
        return whole

    @staticmethod
    def reply(request, status, body=b"", headers=None):
        request.send_response(status)
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


def in_pieces(request, *pieces):
    """Answer in chunks that arrive one by one."""
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    for piece in [*pieces, b""]:
        request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))


class Files(Server):
    """Serves `files` by path; a value may be a function of the request instead of bytes."""

    def __init__(self, **options):
        super().__init__(**options)
        self.files = {}

    def answer(self, request):
        content = self.files.get(unquote(urlsplit(request.path).path))
        if content is None:
            self.reply(request, 404, b"no such file")
        elif callable(content):
            content(request)
        else:
            self.send(request, content)

    def send(self, request, content, *, cut_after=None, etag=True):
        """The file or the asked range of it; with `cut_after` the connection breaks after so many bytes."""
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if etag else {}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        same = request.headers.get("If-Range") in (None, headers.get("ETag"))
        status, start, body = 200, 0, content
        if wanted and same:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            if start >= len(content):
                self.reply(request, 416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            status, body = 206, content[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        if cut_after is None:
            self.reply(request, status, body, headers)
            return
        self.reply(request, status, body[:cut_after], headers | {"Content-Length": str(len(body))})
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)


class Hub(Server):
    """The routes of a model hub that huggingface_hub asks for, over folders `<root>/<org>/<name>`."""

    def __init__(self, root):
        super().__init__()
        self.root = Path(root)

    def answer(self, request):
        parts = [unquote(part) for part in urlsplit(request.path).path.split("/") if part]
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        folder = self.root.joinpath(*parts[:2])
        if len(parts) < 2 or not folder.is_dir():
            self.reply(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif api:
            self.list(request, folder, tree="tree" in parts)
        else:
            self.send(request, folder.joinpath(*parts[4:]))

    def list(self, request, folder, *, tree):
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        body = (
            [{"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": COMMIT} for name in files]
            if tree
            else {"id": folder.name, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        )
        self.reply(request, 200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def send(self, request, path):
        if not path.is_file():
            self.reply(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        body = path.read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        self.reply(request, 200, body, {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})


class Registry:
    """Debian's registry on loopback, without a password unless asked, with TLS if given a certificate and key."""

    def __init__(self, folder, *, password=False, tls=None, port=None, deletes=False):
        self.folder = Path(folder)
        self.port = port or free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.tls = tls
        config = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "store")},
                "delete": {"enabled": deletes},
            },
            "http": {"addr": self.host, "secret": "test"},
        }
        if password:
            (self.folder / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self.folder / "htpasswd")}}
        if tls:
            config["http"]["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
        self.config = self.folder / "registry.json"  # JSON is YAML
        self.config.write_text(json.dumps(config))
        self.process = None
        self.start()

    def start(self):
        command = [shutil.which("docker-registry"), "serve", str(self.config)]
        assert command[0], "these tests need Debian's packages docker-registry and skopeo"
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError("the registry does not start")

    def close(self):
        self.process.terminate()
        self.process.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def manifest(self, name, tag):
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        answer = requests.get(
            f"http://{self.host}/v2/{name}/manifests/{tag}", headers=accept, auth=(USER, PASSWORD), timeout=5
        )
        return answer.json() if answer.ok else None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TokenRegistry(Server):
    """A registry whose `statuses` decide what it answers to uploads, with its own token server beside the API."""

    def __init__(self, **options):
        super().__init__(**options)
        self.realm = f"{self.url}/token"
        self.uploads = (202, {})
        self.passwords = {f"{USER}:{PASSWORD}"}
        self.refresh_tokens = {"a-refresh-token"}
        self.manifests = {}

    def answer(self, request):
        if urlsplit(request.path).path == "/token":
            self.token(request)
        elif request.headers.get("Authorization") not in ("Bearer good", "Bearer anonymous"):
            challenge = f'Bearer realm="{self.realm}",service="here",scope="repository:x:pull"'
            self.reply(request, 401, b"", {"WWW-Authenticate": challenge})
        elif request.command == "POST":
            self.upload(request)
        elif request.command == "GET":
            manifest = self.manifests.get(request.path.rpartition("/")[2])
            self.reply(request, 200 if manifest else 404, json.dumps(manifest or {}).encode())
        else:
            self.reply(request, 204)

    def upload(self, request):
        status, body = self.uploads
        if request.headers["Authorization"] == "Bearer anonymous":
            status, body = 401, {"errors": [{"code": "UNAUTHORIZED", "message": "log in"}]}
        self.reply(request, status, json.dumps(body).encode(), {"Location": "/v2/x/blobs/uploads/one?state=1"})

    def token(self, request):
        form = parse_qs(request.content.decode())
        basic = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        if form.get("refresh_token", [""])[0] in self.refresh_tokens or basic in self.passwords:
            self.reply(request, 200, b'{"access_token": "good"}')
        elif not basic and not form:
            self.reply(request, 200, b'{"token": "anonymous"}')
        else:
            self.reply(request, 401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}')


def forward(registry, request):
    """The registry's answer to the same request; it names itself as it was called."""
    return requests.request(
        request.command,
        f"http://{registry.host}{request.path}",
        headers=dict(request.headers),
        data=request.content,
        allow_redirects=False,
        timeout=10,
    )
