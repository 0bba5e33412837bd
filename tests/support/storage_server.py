"""A server of this process that answers as Google's storage does."""

import base64
import hashlib
import http.server
import threading

import pytest

DATA = bytes(range(256)) * 20_000


class Storage(http.server.BaseHTTPRequestHandler):
    """Answers as Google's storage does, and can hang up before the end."""

    data, etag, md5, hang_up, ranges = DATA, '"1"', None, [], []

    def do_GET(self):
        kind = type(self)
        asked = self.headers.get("Range")
        start = 0
        if asked and self.headers.get("If-Range") == self.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        kind.ranges.append(start)
        if start > len(self.data):
            self.send_error(416)
            return
        body = self.data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if self.etag:
            self.send_header("ETag", self.etag)
        self.send_header("x-goog-hash", "crc32c=AAAAAA==")
        if self.md5:
            self.send_header("x-goog-hash", f"md5={self.md5}")
        self.end_headers()
        self.wfile.write(body[: kind.hang_up.pop(0)] if kind.hang_up else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def storage():
    """(the handler's class, its address)."""
    md5 = base64.b64encode(hashlib.md5(DATA).digest()).decode()
    kind = type("Here", (Storage,), {"md5": md5, "hang_up": [], "ranges": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kind, f"http://127.0.0.1:{server.server_port}/model.npz"
    server.shutdown()
    server.server_close()
