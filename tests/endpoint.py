"""An OpenAI-compatible endpoint on loopback that answers well or badly as the line itself asks it to."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = '{"emotion": "happy", "reason": "She says she won."}'


class Endpoint(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint. A line such as "429 twice" says how it is answered; others are answered well."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.busy = 0
        self.busiest = 0
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """A client that has given up is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        line = json.loads(body["messages"][-1]["content"])["line"]
        with self.server.lock:
            self.server.seen[line] += 1
            self.server.bodies.append(body)
            self.server.busy += 1
            self.server.busiest = max(self.server.busiest, self.server.busy)
        try:
            self._answer(line, self.server.seen[line], body)
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def _answer(self, line: str, times: int, body: dict[str, Any]) -> None:
        if line == "429 twice" and times <= 2:
            self._send(429, {"error": {"message": "slow down"}}, {"retry-after": "0.05"})
        elif line == "500 always":
            self._send(500, {"error": {"message": "broken"}})
        elif line == "too slow":
            time.sleep(4.0)
            self._send(200, _completion(GOOD))
        elif line == "garbled":
            self._send(200, {"hello": "world"})
        elif line == "refuse":
            self._send(200, _completion(None, refusal="I cannot judge feelings."))
        elif line == "junk":
            self._send(200, _completion("They are happy, I guess!"))
        elif line == "other label":
            self._send(200, _completion('{"emotion": "hangry", "reason": "no lunch"}'))
        elif line == "no schema" and "response_format" in body:
            self._send(400, {"error": {"message": "Unsupported parameter: response_format"}})
        elif line == "wrong key":
            self._send(401, {"error": {"message": "no such key"}})
        else:
            time.sleep(0.02)
            self._send(200, _completion(GOOD))

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _completion(content: str | None, refusal: str | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
