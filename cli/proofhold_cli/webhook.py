"""``proofhold webhook``: who is told what an escrow does."""

from __future__ import annotations

import click

from proofhold_cli.errors import ExitCode
from proofhold_cli.files import clock, echo_json, json_option, now_option
from proofhold_cli.parameters import ESCROW


@click.group("webhook")
def webhook_group() -> None:
    """Tell others, by signed messages, what an escrow does."""


@webhook_group.command("add")
@click.argument("home", type=ESCROW)
@click.argument("name")
@click.argument("url")
@click.option("--backlog", is_flag=True, help="Also tell the first receiver what nobody was told so far.")
@click.option("--dangerous-http", is_flag=True, help="Allow an address without TLS, for trying out.")
@now_option
@json_option
def add_command(
    home: str, name: str, url: str, backlog: bool, dangerous_http: bool, now: int | None, as_json: bool
) -> None:
    """Tell the receiver at URL from now on, under NAME. Its secret is shown here, and never again."""
    from proofhold.escrow.home import open_home
    from proofhold.escrow.webhooks import WebhookBook
    from proofhold.integrations.webhooks import secret_in_words

    with open_home(home) as escrow:
        added = WebhookBook(escrow.store).add(
            name, url, now=clock(now), backlog=backlog, dangerous_http=dangerous_http
        )
    secret = secret_in_words(added)
    if as_json:
        echo_json({"name": name, "secret": secret, "url": url})
    else:
        click.echo(f"{name} will be told; its secret is {secret}")


@webhook_group.command("remove")
@click.argument("home", type=ESCROW)
@click.argument("name")
@now_option
@json_option
def remove_command(home: str, name: str, now: int | None, as_json: bool) -> None:
    """Stop telling the receiver NAME."""
    from proofhold.escrow.home import open_home
    from proofhold.escrow.webhooks import WebhookBook

    with open_home(home) as escrow:
        WebhookBook(escrow.store).remove(name, now=clock(now))
    if as_json:
        echo_json({"name": name})
    else:
        click.echo(f"{name} is told no more")


@webhook_group.command("deliver")
@click.argument("home", type=ESCROW)
@click.option("--threads", type=click.IntRange(1, 64), default=8, show_default=True, help="At once.")
@json_option
def deliver_command(home: str, threads: int, as_json: bool) -> None:
    """Try everything that is due once. For a timer, or in a loop; several may run.

    Ends with 3 if something is to be tried again.
    """
    from proofhold.errors import Misuse
    from proofhold.escrow.home import open_home
    from proofhold.integrations.webhooks import Messenger

    try:
        import httpx
    except ImportError as error:
        raise Misuse("webhooks need an extra: pip install 'proofhold[service]'") from error
    with open_home(home) as escrow, httpx.Client() as client:
        told = Messenger(escrow, client, threads=threads).run()
    if as_json:
        echo_json({"dead": told.dead, "delivered": told.delivered, "failed": told.failed})
    else:
        click.echo(f"{told.delivered} delivered, {told.failed} to be tried again, {told.dead} dead")
    if told.failed:
        click.get_current_context().exit(ExitCode.INCONCLUSIVE)


@webhook_group.command("list")
@click.argument("home", type=ESCROW)
@click.option("--dead", is_flag=True, help="List dead messages in place of receivers.")
@json_option
def list_command(home: str, dead: bool, as_json: bool) -> None:
    """List the receivers, or the messages that were tried in vain."""
    from proofhold.escrow.home import open_home
    from proofhold.escrow.webhooks import DeliveryStatus, WebhookBook

    with open_home(home) as escrow:
        book = WebhookBook(escrow.store)
        webhooks, letters = book.all(), book.deliveries(DeliveryStatus.DEAD) if dead else ()
    if as_json:
        named = [{"name": w.id, "url": w.url} for w in webhooks]
        tried = [
            {
                "answered": letter.answered,
                "attempts": letter.attempts,
                "message": letter.number,
                "name": letter.webhook.id,
            }
            for letter in letters
        ]
        echo_json({"dead": tried} if dead else {"webhooks": named})
        return
    for letter in letters:
        answer = "no answer" if letter.answered is None else f"answered {letter.answered}"
        click.echo(f"{letter.webhook.id}  message {letter.number}: {letter.attempts} attempts, {answer}")
    for webhook in () if dead else webhooks:
        click.echo(f"{webhook.id}  {webhook.url}")


@webhook_group.command("replay")
@click.argument("home", type=ESCROW)
@click.argument("name")
@click.option("--message", "numbers", type=click.IntRange(min=1), multiple=True, help="One, by its number.")
@click.option("--dead", is_flag=True, help="All that were tried in vain.")
@now_option
@json_option
def replay_command(
    home: str, name: str, numbers: tuple[int, ...], dead: bool, now: int | None, as_json: bool
) -> None:
    """Have messages delivered to NAME once more, at the next `deliver`."""
    from proofhold.errors import Misuse
    from proofhold.escrow.home import open_home
    from proofhold.escrow.webhooks import WebhookBook

    if dead == bool(numbers):
        raise Misuse("say which: --message NUMBER, or --dead")
    with open_home(home) as escrow:
        count = WebhookBook(escrow.store).replay(name, numbers or None, now=clock(now))
    if as_json:
        echo_json({"messages": count, "name": name})
    else:
        click.echo(f"{count} message(s) will be delivered to {name} once more")
