"""Types of command-line parameters that click does not have."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Final

import click


class Instant(click.ParamType[int]):
    """A point in time, as unix seconds: ``1795392000``, ``2026-11-23`` or ``2026-11-23T12:00:00Z`` (UTC)."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read one."""
        from datetime import UTC, datetime

        text = str(value)
        if text.isascii() and text.isdigit() and len(text) <= 15:
            return int(text)
        for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"):
            try:
                return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp())
            except ValueError:
                continue
        raise click.BadParameter(
            f"{text!r} is neither unix seconds nor a date such as 2026-11-23", ctx=ctx, param=param
        )


class PlainDecimal(click.ParamType[Decimal]):
    """A number as people write prices: ``0.10``; without exponent, sign or infinity."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        """Read one."""
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text, re.ASCII):
            raise click.BadParameter(f"{text!r} is no number such as 0.10", ctx=ctx, param=param)
        return Decimal(text)


class Escrow(click.ParamType[str]):
    """Where an escrow is: a folder, or the address of a PostgreSQL database."""

    name = "folder|address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take one as it is: whether it exists is found out when it is opened."""
        del param, ctx
        text = str(value)
        return text if "://" in text or "=" in text else str(Path(text))


INSTANT: Final = Instant()
DECIMAL: Final = PlainDecimal()
ESCROW: Final = Escrow()
