"""Above a price, a capture takes the receipts of several verifiers (PROTOCOL P13): which, and what came in.

An escrow knows nothing of receipts: here they are bytes with a signer and an outcome. That a receipt is about
the capture, and good, is for whoever hands it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proofhold.canonical import Digest
from proofhold.errors import Misuse
from proofhold.escrow.escrow import Ruling
from proofhold.escrow.ledger import require_storable
from proofhold.escrow.refusals import Refused
from proofhold.escrow.store import Store
from proofhold.keys import Key, TrustStore
from proofhold.money import Currency

MAX_NEED = 16


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many verifiers must agree before money of a currency moves, and whose word counts."""

    currency: str
    above: int
    """Atomic units: a price of more takes them."""
    need: int
    trust: TrustStore
    """Verifiers are told apart by the names in it: two keys of one name are one verifier."""


class QuorumBook:
    """The quorums of one escrow."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def set(self, currency: Currency, *, above: int, need: int, trust: TrustStore, now: int) -> Quorum:
        """Ask for several receipts in a currency from now on, also for holds that are funded already.

        Raises:
            Misuse: none or more than sixteen, or more than the trust store has names.
            Refused: ``escrow.currency``, nothing of it was ever deposited here; ``escrow.amount``.

        """
        names = {trusted.name for trusted in trust.keys}
        if not 1 <= need <= MAX_NEED or need > len(names):
            raise Misuse(f"need: got {need}, expected 1 to {MAX_NEED}, of {len(names)} verifiers")
        if above < 0:
            raise Misuse(f"above: got {above}, expected no less than nothing")

        def operation(tx: Any) -> None:
            require_storable(tx, "above", above)
            row = tx.execute("SELECT exponent FROM currency WHERE code = ?", (currency.code,)).fetchone()
            if row is None or row["exponent"] != currency.exponent:
                text = f"{currency.code} with {currency.exponent} decimal places is not known here"
                raise Refused("escrow.currency", text)
            values = (above, need, trust.encode(), now)
            sql = "UPDATE quorum SET above = ?, need = ?, trust = ?, set_at = ? WHERE currency = ?"
            if tx.execute(sql, (*values, currency.code)).rowcount != 1:
                sql = "INSERT INTO quorum (above, need, trust, set_at, currency) VALUES (?, ?, ?, ?, ?)"
                tx.execute(sql, (*values, currency.code))

        self._store.write(operation)
        return Quorum(currency.code, above, need, trust)

    def find(self, currency: str, price: int) -> Quorum | None:
        """Give the quorum that a price takes; None where one receipt is enough."""

        def operation(tx: Any) -> Quorum | None:
            row = tx.execute("SELECT * FROM quorum WHERE currency = ?", (currency,)).fetchone()
            return None if row is None or price <= row["above"] else _read(row)

        return self._store.read(operation)

    def every(self) -> Mapping[str, Quorum]:
        """Give the quorums of all currencies that have one: for whoever settles many at once."""
        rows = self._store.read(lambda tx: tx.execute("SELECT * FROM quorum").fetchall())
        return {quorum.currency: quorum for quorum in map(_read, rows)}

    def endorse(
        self,
        hold: Digest,
        seq: int,
        ruling: Ruling,
        *,
        signer: Key,
        receipt_digest: Digest,
        receipt: bytes,
        now: int,
    ) -> Mapping[Key, bytes]:
        """Write down a verifier's receipt, and give all that rule the same, by signer: its first each."""

        def write(tx: Any) -> None:
            tx.execute(
                "INSERT INTO endorsement (hold, seq, signer, outcome, receipt_digest, receipt, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hold, seq, signer, outcome) DO NOTHING",
                (hold, seq, signer, ruling, receipt_digest, receipt, now),
            )

        def read(tx: Any) -> dict[Key, bytes]:
            rows = tx.execute(
                "SELECT signer, receipt FROM endorsement WHERE hold = ? AND seq = ? AND outcome = ?",
                (hold, seq, ruling),
            ).fetchall()
            return {row["signer"]: bytes(row["receipt"]) for row in rows}

        # Two transactions: of two that come at once, whoever is written last sees both.
        self._store.write(write)
        return self._store.read(read)


def _read(row: Any) -> Quorum:
    trust = TrustStore.decode(bytes(row["trust"]))
    return Quorum(str(row["currency"]), int(row["above"]), int(row["need"]), trust)
