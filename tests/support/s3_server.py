"""A real S3 server of this process, moto's, that can be made to fail as Amazon's does."""

import contextlib
import os
import re
import threading
import urllib.request
from unittest import mock

import pytest

_ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>"""

SLOW_DOWN = 503, "SlowDown", "Please reduce your request rate."
INTERNAL = 500, "InternalError", "We encountered an internal error. Please try again."
EXPIRED = 400, "ExpiredToken", "The provided token has expired."


class Server:
    """moto's application, with faults before and behind it.

    Attributes:
      url: where it is.
      requests: (method, path with query) of those it was asked, those that failed too.
      fault: called with the method and the path of a request; what it returns is answered
        in place of it: (status, code, message). None lets it pass.
      lost: as `fault`; the request is done, and then this is answered.
    """

    def __init__(self, app):
        self.url, self.requests, self._app = "", [], app
        self.quiet()

    def quiet(self):
        """No faults any more, and no request that it remembers."""
        self.fault = self.lost = lambda method, path: None
        self.requests.clear()

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        query = environ.get("QUERY_STRING", "")
        self.requests.append((method, f"{path}?{query}" if query else path))
        if told := self.fault(method, path):
            _drain(environ)
            return _answer(environ, start_response, *told)
        answered = self._app(environ, start_response)
        if told := self.lost(method, path):
            b"".join(answered)
            return _answer(environ, start_response, *told)
        return answered

    def count(self, method, pattern):
        """How many requests there were of a method, whose path and query match."""
        return sum(m == method and bool(re.search(pattern, path)) for m, path in self.requests)


def _drain(environ):
    """What is sent is taken, so that the connection goes on."""
    left = int(environ.get("CONTENT_LENGTH") or 0)
    if environ.get("wsgi.input_terminated"):
        environ["wsgi.input"].read()
    elif left:
        environ["wsgi.input"].read(left)


def _answer(environ, start_response, status, code, message):
    body = _ERROR.format(code=code, message=message).encode()
    if environ["REQUEST_METHOD"] == "HEAD":
        body = b""
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    start_response(f"{status} {code}", headers)
    return [body]


def times(count, told, matches=lambda method, path: True):
    """A fault of the first `count` requests that match."""
    left, lock = [count], threading.Lock()

    def fault(method, path):
        with lock:
            if not matches(method, path) or left[0] <= 0:
                return None
            left[0] -= 1
        return told

    return fault


@contextlib.contextmanager
def serving():
    """A `Server`, with a bucket `bucket`, and the environment of those that are to use it."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install '.[dev]'")
    pytest.importorskip("moto.server", reason="moto is not installed: pip install '.[dev]'")
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = Server(DomainDispatcherApplication(create_backend_app))
    http = make_server("127.0.0.1", 0, server, threaded=True)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    environment = {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        # Its own tries take half a minute; s3fs and the job have theirs.
        "AWS_MAX_ATTEMPTS": "1",
    }
    try:
        with mock.patch.dict(os.environ, environment):
            import s3fs

            # moto keeps buckets for the whole process, whose other modules may have had a server.
            urllib.request.urlopen(f"{server.url}/moto-api/reset", data=b"").close()
            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem().mkdir("bucket")
            server.quiet()
            yield server
            s3fs.S3FileSystem.clear_instance_cache()
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
