"""A payment scheme of x402 without a chain: the real package, a simulated ledger behind its facilitator.

The ledger counts what it is asked to do and can be told to fail. Its payers sign with our keys; a payload
that is not signed by its payer is invalid, as on a chain.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from x402.extensions.payment_identifier import PAYMENT_IDENTIFIER
from x402.facilitator import x402Facilitator
from x402.http.middleware.fastapi import payment_middleware
from x402.http.utils import encode_payment_signature_header
from x402.interfaces import PaymentFlowConfig
from x402.schemas import AssetAmount, PaymentPayload, PaymentRequirements, SettleResponse, VerifyResponse
from x402.server import x402ResourceServer

from judging import BUYER, PRICE, VERIFIER
from proofhold.canonical import encode
from proofhold.decision import Decision
from proofhold.escrow.escrow import HoldRecord
from proofhold.exchange import Bundle
from proofhold.integrations.terms import EXTENSION, model_digest
from proofhold.integrations.x402_server import Answered, ServerGate, declaration
from proofhold.keys import SigningKey, is_signature
from proofhold.settlement import ModeName, settle
from settling import Hall, accepted

NETWORK = "simulated:ledger"
ASSET = "simulated-usdc"
PAY_TO = "0xPayeeOfTheProvider"
PATH = "/infer"


class SimulatedLedger:
    """The facilitator's side of the scheme: what settled, and how the next settlements are to go.

    `script` holds one word a settlement: "ok", "timeout" (raises, and has paid), "lost" (raises, and has
    not), "pending" (x402's word: paid, its end not seen), or a reason to fail for. Past it all is well.
    """

    scheme = "exact"
    caip_family = "simulated:*"

    def __init__(self) -> None:
        self.script: list[str] = []
        self.calls = 0
        self.settled: dict[str, int] = {}
        self.deposits: list[str] = []
        self.refunds: list[str] = []

    def get_extra(self, network: str) -> dict[str, Any] | None:
        return None

    def get_signers(self, network: str) -> list[str]:
        return []

    def verify(self, payload: Any, requirements: Any, context: Any = None) -> VerifyResponse:
        signed = payload.payload["authorization"]
        good = is_signature(signed["from"], bytes.fromhex(payload.payload["signature"]), encode(signed))
        reason = None if good else "invalid_exact_evm_payload_signature"
        return VerifyResponse(is_valid=good, invalid_reason=reason, payer=signed["from"])

    def settle(self, payload: Any, requirements: Any, context: Any = None) -> SettleResponse:
        self.calls += 1
        word = self.script.pop(0) if self.script else "ok"
        nonce = payload.payload["authorization"]["nonce"]
        transaction = "0x" + hashlib.sha256(nonce.encode()).hexdigest()
        if word == "lost":
            raise ConnectionError("postgres://settler:hunter2@10.0.0.7/money refused the connection")
        if word not in ("ok", "timeout", "pending"):
            return SettleResponse(
                success=False, error_reason=word, transaction="", network=requirements.network
            )
        kind = requirements.extra.get("kind", "payment")
        if kind == "deposit":
            self.deposits.append(nonce)
        elif kind == "refund":
            self.refunds.append(nonce)
        else:
            self.settled[nonce] = int(requirements.amount)  # a nonce settles once, as on a chain
        if word == "timeout":
            raise TimeoutError("no answer from postgres://settler:hunter2@10.0.0.7/money")
        if word == "pending":
            return SettleResponse(
                success=False,
                error_reason="settlement_pending",
                transaction=transaction,
                network=requirements.network,
            )
        payer = payload.payload["authorization"]["from"]
        return SettleResponse(
            success=True, transaction=transaction, network=requirements.network, payer=payer
        )


class SimulatedScheme:
    """The server's side of the scheme: prices are atomic already."""

    scheme = "exact"
    default_asset_transfer_method = "default"
    payment_flows: Mapping[str, PaymentFlowConfig] = {
        "default": {"supported": ("authorization", "escrow", "upfront"), "default": "authorization"}
    }

    def parse_price(self, price: Any, network: str) -> AssetAmount:
        return AssetAmount.model_validate(price)

    def enhance_payment_requirements(self, requirements: Any, kind: Any, extensions: Any) -> Any:
        return requirements

    def enrich_settlement_payload(self, context: Any) -> None:
        # The facilitator of the simulation tells deposits, captures and refunds apart by this note.
        if context.phase == "before-handler":
            context.requirements.extra["kind"] = "deposit"
        else:
            context.requirements.extra.pop("kind", None)

    def settle_on_cancel(self, context: Any) -> PaymentRequirements:
        requirements: PaymentRequirements = context.requirements.model_copy(deep=True)
        requirements.amount = "0"
        return requirements


class InProcessFacilitator:
    """Calls a facilitator of the same process, as the HTTP client calls one far away."""

    def __init__(self, facilitator: x402Facilitator) -> None:
        self._facilitator = facilitator

    async def verify(self, payload: Any, requirements: Any) -> Any:
        return await self._facilitator.verify(payload, requirements)

    async def settle(self, payload: Any, requirements: Any) -> Any:
        return await self._facilitator.settle(payload, requirements)

    def get_supported(self) -> Any:
        return self._facilitator.get_supported()


@dataclass
class Shop:
    """A provider that is paid by x402 for answers that proofhold judges, and one buyer of its."""

    hall: Hall
    ledger: SimulatedLedger = field(default_factory=SimulatedLedger)
    flow: str = "authorization"
    handled: int = 0
    verdict: Callable[[HoldRecord], Any] = accepted
    seen: list[Answered] = field(default_factory=list)
    slow_s: float = 0.0
    mode: ModeName = "live"
    handler: Callable[[Request], Awaitable[Response]] | None = None

    def __post_init__(self) -> None:
        self.facilitator = x402Facilitator()
        self.facilitator.register([NETWORK], self.ledger)
        self.server = x402ResourceServer(InProcessFacilitator(self.facilitator))
        self.server.register(NETWORK, SimulatedScheme())
        self.gate = ServerGate(
            self.hall.escrow,
            self.judge,
            mode=self.mode,
            clock=self.hall.clock,
        )

    def hire(self, **changes: Any) -> HoldRecord:
        """Fund a job whose payee is the one that x402 pays."""
        return self.hall.fund(**({"payee": PAY_TO} | changes))

    async def judge(self, answered: Answered) -> Decision:
        """Record the claim that was answered, and settle its hold by a verdict made up for the test."""
        self.seen.append(answered)
        bundle = Bundle.decode(answered.body)
        hall, exchange = self.hall, bundle.exchange
        hall.escrow.record_claim(exchange.claim, exchange.output, now=hall.now)
        hold = hall.escrow.hold(exchange.job.digest)
        return settle(hold.id, self.verdict(hold), escrow=hall.escrow, key=VERIFIER, clock=hall.clock)

    def requirements(self, amount: int = PRICE) -> PaymentRequirements:
        extra = {} if self.flow == "authorization" else {"paymentFlow": self.flow}
        return PaymentRequirements(
            scheme="exact",
            network=NETWORK,
            asset=ASSET,
            amount=str(amount),
            pay_to=PAY_TO,
            max_timeout_seconds=300,
            extra=extra,
        )

    def pay(
        self, hold: HoldRecord, *, payment: str = "", key: SigningKey = BUYER, **named: str
    ) -> PaymentPayload:
        """What the buyer's x402 client sends for a job."""
        job = hold.job.document
        about = {"job": hold.id, "model": model_digest(job.model), "input": job.input} | named
        authorization = {"from": key.public, "to": PAY_TO, "value": str(PRICE), "nonce": hold.id}
        payload = {"authorization": authorization, "signature": key.sign(encode(authorization)).hex()}
        declared = json.loads(json.dumps(declaration()))
        declared[PAYMENT_IDENTIFIER]["info"]["id"] = payment or f"pay_{hold.id}"
        declared[EXTENSION]["info"] |= about
        return PaymentPayload(payload=payload, accepted=self.requirements(), extensions=declared)

    def app(self, *, gated: bool = True, outside: bool = True) -> FastAPI:
        """The server: gate inside, x402's middleware, gate outside."""
        app = FastAPI()

        @app.post(PATH)
        async def infer(request: Request) -> Response:
            self.handled += 1
            await asyncio.sleep(self.slow_s)
            if self.handler is not None:
                return await self.handler(request)
            hold = self.hall.escrow.hold((await request.json())["job"])
            body = self.hall.bundle(hold).encode()
            return Response(body, media_type="application/json")

        extra = {} if self.flow == "authorization" else {"paymentFlow": self.flow}
        accepts = {
            "scheme": "exact",
            "payTo": PAY_TO,
            "price": {"amount": str(PRICE), "asset": ASSET, "extra": extra},
            "network": NETWORK,
            "extra": extra,
        }
        routes: Any = {f"POST {PATH}": {"accepts": accepts, "extensions": declaration()}}
        if gated:
            app.add_middleware(self.gate.inside)
        app.middleware("http")(payment_middleware(routes, self.server))
        if gated and outside:
            app.add_middleware(self.gate.outside)
        return app

    async def ask(self, app: FastAPI, payload: PaymentPayload, job: str = "") -> httpx.Response:
        """Send the paid request."""
        headers = {"PAYMENT-SIGNATURE": encode_payment_signature_header(payload)}
        job = job or str(payload.extensions[EXTENSION]["info"]["job"])  # type: ignore[index]
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://simulated") as client:
            return await client.post(PATH, json={"job": job}, headers=headers)
