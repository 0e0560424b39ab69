"""A card processor of our own on a local port: simulated, and as its documented API behaves.

Payment intents with manual capture, as their public documentation describes them: form fields in, JSON out,
a key that makes a POST happen once (and refuses other fields under it), capture in part with the remainder
released, cancelation, an authorization that ends after seven days, errors with type and code. Whatever a bad
day brings is in `script`: one word a request, "ok", "lost" (nothing done, 500), "late" (done, and the
connection breaks), "busy" (429).
"""

from __future__ import annotations

import base64
import contextlib
import copy
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

SECRET_KEY = "sk_simulated"  # noqa: S105
AUTHORIZATION_S = 7 * 86_400


@dataclass
class SimulatedProcessor:
    """The processor's side: its intents, the keys it remembers, and its clock."""

    now: int
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, tuple[Any, int, dict[str, Any]]] = field(default_factory=dict)
    captures: list[tuple[str, int]] = field(default_factory=list)
    script: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def answer(self, method: str, path: str, form: dict[str, str], key: str) -> tuple[int, dict[str, Any]]:
        """Answer one request, once a key."""
        asked = (method, path, form)
        if key and key in self.keys:
            first, status, content = self.keys[key]
            if first != asked:
                return _error(400, "idempotency_error", "idempotency_key_reused")
            return status, content
        status, content = self._handle(method, path, form)
        content = copy.deepcopy(content)
        if key and status < 500:
            self.keys[key] = (asked, status, content)
        return status, content

    def _handle(self, method: str, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        for intent in self.intents.values():
            if intent["status"] == "requires_capture" and self.now >= intent["created"] + AUTHORIZATION_S:
                intent |= {"status": "canceled", "cancellation_reason": "automatic", "amount_capturable": 0}
        parts = path.strip("/").split("/")[2:]
        if method == "POST" and not parts:
            return self._create(form)
        if parts[0] not in self.intents:
            return _error(404, "invalid_request_error", "resource_missing")
        intent = self.intents[parts[0]]
        if method == "GET":
            return 200, intent
        if intent["status"] != "requires_capture":
            return _error(400, "invalid_request_error", "payment_intent_unexpected_state")
        if parts[1] == "cancel":
            intent |= {"status": "canceled", "amount_capturable": 0} | form
            return 200, intent
        amount = int(form.get("amount_to_capture", intent["amount"]))
        if not 0 < amount <= intent["amount"]:
            return _error(400, "invalid_request_error", "amount_too_large")
        intent |= {"status": "succeeded", "amount_received": amount, "amount_capturable": 0}
        self.captures.append((intent["id"], amount))
        return 200, intent

    def _create(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if form.get("payment_method") == "pm_declined":
            return _error(402, "card_error", "card_declined")
        amount = int(form["amount"])
        intent = {
            "amount": amount,
            "amount_capturable": amount,
            "amount_received": 0,
            "capture_method": form.get("capture_method", "automatic"),
            "created": self.now,
            "currency": form["currency"],
            "id": f"pi_{next(self.numbers)}",
            "metadata": {k[9:-1]: v for k, v in form.items() if k.startswith("metadata[")},
            "object": "payment_intent",
            "status": "requires_capture",
        }
        self.intents[str(intent["id"])] = intent
        return 200, intent


def _error(status: int, kind: str, code: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": code, "message": f"simulated: {code}", "type": kind}}


def _app(processor: SimulatedProcessor) -> FastAPI:
    app = FastAPI()

    @app.api_route("/v1/payment_intents{rest:path}", methods=["GET", "POST"])
    async def serve(request: Request) -> Response:
        credentials = base64.b64encode(f"{SECRET_KEY}:".encode()).decode()
        if request.headers.get("authorization") != f"Basic {credentials}":
            status, content = _error(401, "invalid_request_error", "unauthorized")
            return JSONResponse(content, status)
        word = processor.script.pop(0) if processor.script else "ok"
        processor.requests.append(f"{request.method} {request.url.path}")
        if word == "busy":
            status, content = _error(429, "rate_limit_error", "rate_limit")
            return JSONResponse(content, status)
        if word == "lost":
            return Response(b"upstream failed", 500)
        form = dict(parse_qsl((await request.body()).decode()))
        key = request.headers.get("idempotency-key", "")
        status, content = processor.answer(request.method, request.url.path, form, key)
        if word == "late":
            raise ConnectionResetError("simulated: the answer is lost")
        return JSONResponse(content, status)

    return app


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application on a local port, over real HTTP; gives its address."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@contextlib.contextmanager
def processing(now: int) -> Iterator[tuple[SimulatedProcessor, str]]:
    """Serve a processor; gives it and its address."""
    processor = SimulatedProcessor(now)
    with serving(_app(processor)) as address:
        yield processor, address
