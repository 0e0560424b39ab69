"""A provider that is paid by the real x402 package, over a simulated ledger."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from settling import Hall, open_hall
from simulated_x402 import Shop


@pytest.fixture
def hall() -> Iterator[Hall]:
    with open_hall() as hall:
        yield hall


@pytest.fixture
def shop(hall: Hall) -> Shop:
    shop = Shop(hall)
    shop.gate.attach(shop.server)
    return shop
