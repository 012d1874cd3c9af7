"""A server on this machine that speaks the part of the Hugging Face Hub's protocol by which a folder is uploaded."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """What was uploaded: `files` by name, of the repository `name`. A wrong token is refused, as the Hub refuses it."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.token, self.name, self.private, self.message = token, "", False, ""
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Requests(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.server.name = f"{asked['organization']}/{asked['name']}"
            self.server.private = asked.get("private") or asked.get("visibility") == "private"  # before and since 1.0
            return self._answer(200, {"url": f"{self.server.url}/{self.server.name}"})
        if self.path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if self.path == f"/api/models/{self.server.name}/preupload/main":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if self.path == f"/api/models/{self.server.name}/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "header":
                    self.server.message = line["value"]["summary"]
                else:
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self._answer(200, {"commitUrl": f"{self.server.url}/{self.server.name}/commit/1", "commitOid": "1"})
        self._answer(404, {"error": f"{self.path}: not here"})

    def do_GET(self) -> None:
        self._answer(404, {"error": f"{self.path}: not here"})

    def _answer(self, status: int, content: dict) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextmanager
def hub(token: str) -> Iterator[Hub]:
    """The server, while the block runs."""
    server = Hub(token)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
