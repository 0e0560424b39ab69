"""Snapshots of OpenGradient's registry: which keys of them a list takes, and what is no snapshot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from judging import NOW
from proofhold.allowlist import AllowList, Measurement, Signer
from proofhold.attestation.registry import Passed, pcr_hash, read_snapshot, signers_of
from proofhold.errors import Malformed, Misuse
from proofhold.keys import Signed
from proofhold_cli import main
from serving import PCRS, program, spki

ADDRESS = "0x24E4BEa7164BCFb52CCAe10EdE4f5a0cB9F09C4b"


def tee(number: int = 0, **changes: Any) -> dict[str, Any]:
    made = {
        "publicKey": "0x" + spki(number).hex(),
        "paymentAddress": ADDRESS,
        "pcrHash": "0x" + pcr_hash(PCRS).upper(),
        "enabled": True,
        "endpoint": "https://example.org",
        "registeredAt": 1,
    }
    return made | changes


def found(*tees: dict[str, Any]) -> list[Signer | Passed]:
    snapshot = read_snapshot(json.dumps(tees).encode())
    return list(signers_of(snapshot, program(), valid_from=NOW, valid_until=NOW + 60))


def test_keys_that_run_the_program_become_signers_paid_on_their_account() -> None:
    (signer,) = found(tee())
    assert isinstance(signer, Signer)
    assert (signer.key, signer.program, signer.payee) == (spki(), "gateway", ADDRESS.lower())


def test_the_others_are_left_out_with_the_reason() -> None:
    left = found(tee(teeId="0x" + "00" * 32), tee(enabled=False), tee(pcrHash="0x" + "00" * 32))
    assert [one.why.split(":")[0] for one in left if isinstance(one, Passed)] == [
        "its name is another one",
        "it is not enabled",
        "it runs something else",
    ]
    other = replace(program(), measurements=())
    with pytest.raises(Misuse, match="no measurement"):
        list(signers_of((), other, valid_from=NOW, valid_until=NOW + 60))


def test_the_documented_entry_has_the_hash_of_its_pcrs(vectors: Path) -> None:
    case = json.loads((vectors / "opengradient" / "tee_registry_entry_documented.json").read_text())
    registers = {name.lower(): value for name, value in case["pcrs"].items()}
    assert "0x" + pcr_hash(Measurement.of("nitro", registers)) == case["tee"]["pcrHash"]
    history = json.loads((vectors / "opengradient" / "tee_gateway_measurements_history.json").read_text())
    for one in history:
        registers = {f"pcr{index}": one[f"PCR{index}"] for index in range(3)}
        assert "0x" + pcr_hash(Measurement.of("nitro", registers)) == one["pcrHash"]


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{}", b"[" * 99_999, b"[7]", b"[{}]"),
        *(
            json.dumps([tee() | {name: value}]).encode()
            for name, value in (
                ("publicKey", "0x00"),
                ("publicKey", spki().hex()),
                ("paymentAddress", "0x00"),
                ("pcrHash", 7),
                ("enabled", 1),
                ("teeId", "0x"),
            )
        ),
    ],
)
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"registry\.malformed"):
        read_snapshot(data)


def test_the_command_adds_them_and_takes_the_signatures_off(tmp_path: Path) -> None:
    file, snapshot = tmp_path / "list.json", tmp_path / "snapshot.json"
    empty = AllowList(service="chat", issued_at=NOW, max_age_s=300, programs=(program(),))
    file.write_bytes(Signed.new(empty).encode())
    snapshot.write_text(json.dumps([tee(), tee(1, enabled=False)]))
    given = [str(file), "--snapshot", str(snapshot), "--from", "2026-01-01", "--until", "2027-01-01"]
    result = CliRunner().invoke(main, ["allowlist", "add", "registry", *given, "--program", "gateway"])
    assert result.exit_code == 0, result.output
    assert "1 of 2 entries added" in result.output
    assert "it is not enabled" in result.output
    assert len(Signed.decode(AllowList, file.read_bytes()).document.signers) == 1
    result = CliRunner().invoke(main, ["allowlist", "add", "registry", *given, "--program", "nothing"])
    assert result.exit_code == 2
