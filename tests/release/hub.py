"""A model hub on this machine: as much of its HTTP interface as an upload of small files uses."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_only_for_tests"


class Hub(BaseHTTPRequestHandler):
    repos: dict[str, dict[str, bytes]]
    private: dict[str, bool]

    def do_GET(self):
        self._say(200, {"sha": "0" * 40, "id": self.path, "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say(401, {"error": "who are you?"})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            known = name in self.repos
            self.repos.setdefault(name, {})
            self.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            self._say(409 if known else 200, {"url": f"http://{self.headers['Host']}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._say(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._say(200, {"files": files})
        elif "/commit/" in self.path:
            name = self.path.removeprefix("/api/models/").split("/commit/")[0]
            for line in body.decode().splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    self.repos[name][row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            url = f"http://{self.headers['Host']}/{name}/commit/1"
            self._say(200, {"success": True, "commitOid": "1" * 40, "commitUrl": url, "hookOutput": ""})
        else:
            self._say(404, {"error": self.path})

    def _say(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def hub():
    kind = type("Hub", (Hub,), {"repos": {}, "private": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kind
    finally:
        server.shutdown()
        server.server_close()
