"""A collector of a few lines that keeps what it took, with scripted faults; for tests of senders."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
import time
from collections import deque
from contextlib import contextmanager

from clicktide.parse import Parser, Rejection
from clicktide.settings import Settings


class FakeCollector(http.server.ThreadingHTTPServer):
    """`faults`: what the next requests meet: a status, `lost` (taken, then no answer) or `reset` (not taken), or what
    such a function of the request's lines answers: status, document, headers."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.faults: deque = deque()
        self.taken: list[bytes] = []
        self.seen: list[tuple[str, dict[str, str]]] = []  # paths and headers
        self.requests = 0
        self.compressed = 0
        self.lock = threading.Lock()
        self.parser = Parser(Settings({}))

    def events(self) -> list[dict]:
        return [json.loads(value) for value in list(self.taken)]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeCollector

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        with server.lock:
            fault = server.faults.popleft() if server.faults else None
            server.requests += 1
            server.seen.append((self.path, dict(self.headers)))
        if self.headers.get("Content-Encoding") == "gzip":
            server.compressed += 1
            body = gzip.decompress(body)
        if isinstance(fault, int):
            self._answer(fault, {"title": "scripted"}, {"Retry-After": "0"})
            return
        if fault == "reset":
            self._drop()
            return
        if callable(fault):
            self._answer(*fault(body.rstrip(b"\n").split(b"\n")))
            return
        results = []
        for i, line in enumerate(body.rstrip(b"\n").split(b"\n")):
            refused = server.parser.check(line, int(time.time() * 1000))
            if isinstance(refused, Rejection):
                results.append({"index": i, "status": "rejected", "code": refused.code, "detail": ""})
            else:
                results.append({"index": i, "status": "accepted", "code": None})
                with server.lock:
                    server.taken.append(line)
        if fault == "lost":
            self._drop()
            return
        good = sum(r["status"] == "accepted" for r in results)
        status = 202 if good == len(results) else 207 if good else 400
        self._answer(status, {"accepted": good} | ({} if status == 202 else {"results": results}))

    def _drop(self):
        self.close_connection = True
        self.connection.close()

    def _answer(self, status, value, headers=()):
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in dict(headers).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def fake_collector(port: int = 0):
    """A running one."""
    server = FakeCollector(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
