"""How a hold's price is cut up: what each capture settles, and who gets how much of it.

Claims are cumulative. What capture `seq` settles is what its claim exceeds the one before by; the last
one also settles what nobody claimed, which goes back to the buyer. A fee is taken of the cumulative amount,
rounded down, and a capture pays what that exceeds the one before by: so the fees of any number of captures
are those of one capture over it all, and no atomic unit is lost or made.
"""

from __future__ import annotations

from collections.abc import Mapping

from proofhold.escrow.rail import Direction
from proofhold.job import PPM, Fee, Job

MAX_METERED = 10_000
"""How many captures a hold may have."""


def is_last(job: Job, seq: int, amount: int | None) -> bool:
    """Tell whether nothing can be claimed after this capture: unclaimed, it is the end of its hold itself."""
    return seq == job.captures - 1 or amount is None or amount == job.price


def share(job: Job, seq: int, base: int, amount: int | None) -> int:
    """Say how much of the price a capture settles, whoever gets it."""
    return (job.price if is_last(job, seq, amount) else amount or 0) - base


def fee_of(fee: Fee | None, amount: int) -> int:
    """Give the fee of a cumulative amount, rounded down."""
    return 0 if fee is None else amount * fee.ppm // PPM


def orders(
    job: Job, seq: int, base: int, amount: int | None, *, release: bool
) -> Mapping[Direction, tuple[str, int]]:
    """Say what a decided capture pays, to whom; in sum its share.

    Args:
        job: says price, fee, payee and buyer.
        seq: the capture.
        base: what the claim before it came to.
        amount: what its own claim comes to; None if there is none.
        release: whether the provider is paid.

    """
    claimed = (amount or base) - base if release else 0
    fee = fee_of(job.fee, base + claimed) - fee_of(job.fee, base)
    rest = share(job, seq, base, amount) - claimed
    every = {
        Direction.RELEASE: (job.payee, claimed - fee),
        Direction.FEE: ("" if job.fee is None else job.fee.account, fee),
        Direction.REFUND: (job.buyer, rest),
    }
    return {direction: order for direction, order in every.items() if order[1]}
