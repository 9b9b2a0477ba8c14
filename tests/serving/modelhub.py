"""A model hub on loopback: as much of Hugging Face's HTTP API as downloading one repository needs."""

import contextlib
import hashlib
import http.server
import json
import threading


@contextlib.contextmanager
def running(repositories):
    """`repositories`: id to (revision, folder). Yields the hub and its address; `hub.asked` lists the paths.

    While `hub.flows` is not set, weights are asked for and do not come; `hub.waiting` tells that it happens.
    """
    hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.repositories, hub.asked, hub.refuse = repositories, [], 0
    hub.flows, hub.waiting = threading.Event(), threading.Event()
    hub.flows.set()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{hub.server_address[1]}"
    finally:
        hub.flows.set()
        hub.shutdown()
        hub.server_close()
        thread.join(5)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.server.refuse:
            return self.answer(self.server.refuse, b"{}", {})
        parts = self.path.split("?")[0].strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        name, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
        if name not in self.server.repositories:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        revision, folder = self.server.repositories[name]
        if rest[1:2] != [revision]:
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if api:
            files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
            info = {"id": name, "modelId": name, "sha": revision, "siblings": files, "private": False, "tags": []}
            if rest[0] == "tree":
                info = [
                    {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f.name} for f in folder.iterdir()
                ]
            return self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        if self.command == "GET" and rest[2].endswith(".safetensors") and not self.server.flows.is_set():
            self.server.waiting.set()
            self.server.flows.wait()
        content = (folder / rest[2]).read_bytes()
        return self.answer(200, content, {"ETag": hashlib.sha256(content).hexdigest(), "X-Repo-Commit": revision})

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass
