"""The proofhold command: one module a command, loaded when it is asked for, no logic in any of them."""

from __future__ import annotations

import importlib
from typing import Any

import click

from proofhold_cli.errors import reported

COMMANDS = {
    "allowlist": ("proofhold_cli.allowlist", "allowlist_group", "Say what may run behind a service."),
    "attestation": (
        "proofhold_cli.attestation",
        "attestation_group",
        "Show what is in an attestation document.",
    ),
    "circuit": ("proofhold_cli.circuit", "circuit_group", "Say what a pinned circuit's proofs are worth."),
    "collateral": (
        "proofhold_cli.collateral",
        "collateral_group",
        "Fetch and show what judging an attestation takes.",
    ),
    "compile": (
        "proofhold_cli.compile",
        "compile_command",
        "Make a pinned circuit of a model, or check one.",
    ),
    "conformance": (
        "proofhold_cli.conformance",
        "conformance_command",
        "Run a corpus of attestation evidence against a verifier.",
    ),
    "demo": ("proofhold_cli.demo", "demo_command", "Play the whole story on real models and real proofs."),
    "dispute": (
        "proofhold_cli.dispute",
        "dispute_group",
        "Show by arithmetic alone whether a provider contradicts itself.",
    ),
    "escrow": ("proofhold_cli.escrow", "escrow_group", "Hold money, record claims, settle."),
    "evidence": (
        "proofhold_cli.evidence",
        "evidence_group",
        "Keep what receipts are recomputed from, as long as it is needed.",
    ),
    "guard": ("proofhold_cli.guard", "guard_group", "Bound in money what an unchecked provider can cost."),
    "job": ("proofhold_cli.job", "job_group", "Draft the job that buyer and provider sign."),
    "keys": ("proofhold_cli.keys", "keys_group", "Make keys and say which ones to trust."),
    "payment": ("proofhold_cli.payment", "payment_group", "See to payments of x402 that may have settled."),
    "policy": ("proofhold_cli.policy", "policy_group", "Explain what a policy demands."),
    "provider": (
        "proofhold_cli.provider",
        "provider_group",
        "Accept a job, respond to it, see the cost.",
    ),
    "quorum": ("proofhold_cli.quorum", "quorum_group", "Ask for several verifiers above a price."),
    "receipt": ("proofhold_cli.receipt", "receipt_group", "Show, verify and recompute receipts."),
    "replay": ("proofhold_cli.replay", "replay_group", "Pin how a model is re-executed."),
    "shadow": (
        "proofhold_cli.shadow",
        "shadow_group",
        "Compare a hook in shadow mode with what really happened.",
    ),
    "srs": ("proofhold_cli.srs", "srs_group", "Make or import a structured reference string."),
    "webhook": ("proofhold_cli.webhook", "webhook_group", "Tell others what an escrow does."),
    "worker": (
        "proofhold_cli.worker",
        "worker_group",
        "Check what is queued, on as many machines as it takes.",
    ),
    "verify": ("proofhold_cli.verify", "verify_command", "Judge a bundle under a policy."),
}
"""Name, module, attribute and summary: the summaries stand here so that --help imports no command."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names of all commands."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; whatever it raises becomes one clear line and an exit code."""
        with reported():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in sorted(COMMANDS.items())])


@click.group("proofhold", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="proofhold", prog_name="proofhold")
def main() -> None:
    """Check AI inference before you pay for it.

    Exit codes: 0 accepted or done, 2 misuse, 3 inconclusive, 4 rejected or refused, 1 our own failure,
    which moves no money.
    """
