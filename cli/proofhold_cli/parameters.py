"""Types of command-line parameters that click does not have."""

from __future__ import annotations

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


INSTANT: Final = Instant()
