"""Allow-lists: what one admits, who must have signed it, and the commands that write it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from judging import NOW, STRANGER
from proofhold.allowlist import AllowList, Binding, Measurement, Scheme
from proofhold.catalogue import Catalogue, CatalogueError, ServiceEntry
from proofhold.errors import Malformed, Misuse
from proofhold.keys import Signed, TrustedKey, TrustStore
from proofhold_cli import main
from serving import CURATOR, PCRS, SERVICE, allowlist, program, service, signer, spki

TDX = Measurement.of(
    "tdx",
    {
        "mr_td": "aa" * 48,
        "rtmr0": "bb" * 48,
        "rtmr1": "cc" * 48,
        "rtmr2": "dd" * 48,
        "compose_hash": "ee" * 32,
    },
)


def full() -> AllowList:
    """A list with everything that the format has."""
    tdx = program(name="tdx", measurements=(TDX,), model="12" * 32)
    eth = signer(bytes(range(1, 21)), scheme=Scheme.SECP256K1, program="tdx", bindings=(Binding.DSTACK_PAIR,))
    return replace(allowlist(), programs=(program(), tdx), signers=(signer(), eth))


def test_a_list_survives_its_encoding() -> None:
    signed = Signed.new(full(), CURATOR)
    again = Signed.decode(AllowList, signed.encode())
    assert again.document == full()
    assert again.digest == signed.digest == Signed.new(full()).digest  # signatures do not count


def test_keys_and_programs_are_found_by_what_they_are() -> None:
    document = full()
    assert document.signer(Scheme.RSA_PSS, spki()) == signer()
    assert document.signer(Scheme.ED25519, spki()) is None
    assert document.program("gateway").measurements == (PCRS,)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(extra=1),
        lambda v: v.pop("service"),
        lambda v: v.update(version=2),
        lambda v: v.update(max_age_s=0),
        lambda v: v.update(max_age_s=3_601),
        lambda v: v.update(service="Chat"),
        lambda v: v["programs"].reverse(),
        lambda v: v["programs"].append(v["programs"][0]),
        lambda v: v["programs"][1].update(measurements=v["programs"][0]["measurements"]),
        lambda v: v["programs"][0].update(model="xyz"),
        lambda v: v["programs"][0].update({"until": 0}),
        lambda v: v["programs"][0]["measurements"][0].update(kind="unknown"),
        lambda v: v["programs"][0]["measurements"][0]["registers"].pop("pcr1"),
        lambda v: v["programs"][0]["measurements"][0]["registers"].update(pcr3="00" * 48),
        lambda v: v["programs"][0]["measurements"][0]["registers"].update(pcr0="AA" * 48),
        lambda v: v["programs"][0]["measurements"][0]["registers"].update(pcr0="00"),
        lambda v: v["signers"].reverse(),
        lambda v: v["signers"][0].update(program="nobody"),
        lambda v: v["signers"][0].update(key="00"),
        lambda v: v["signers"][0].update(key="zz"),
        lambda v: v["signers"][0].update(payee="with space"),
        lambda v: v["signers"][0].update(bindings=[]),
        lambda v: v["signers"][0].update(bindings=["a/b"]),
        lambda v: v["signers"][0].update(bindings=["opengradient/legacy", "opengradient/current"]),
        lambda v: v["signers"][0].update(scheme="rsa-pkcs1"),
        lambda v: v["signers"][0].update(vouched="trust-me"),
    ],
)
def test_anything_but_a_version_1_list_is_refused(change: Any) -> None:
    from proofhold import canonical
    from proofhold.keys import Envelope

    value = full().to_json()
    change(value)
    envelope = Envelope(AllowList.PAYLOAD_TYPE, canonical.encode(value))
    with pytest.raises(Malformed, match="allowlist"):
        Signed.decode(AllowList, canonical.encode(envelope.to_json()))


def test_a_debug_enclaves_zeros_cannot_be_listed() -> None:
    with pytest.raises(Misuse, match="debug"):
        Measurement.of("nitro", dict.fromkeys(("pcr0", "pcr1", "pcr2"), "00" * 48))


def test_entries_are_added_in_their_place_and_once() -> None:
    document = allowlist().adding(program(name="a", measurements=()), issued_at=NOW)
    assert [p.name for p in document.programs] == ["a", "gateway"]
    assert document.issued_at == NOW
    with pytest.raises(Misuse, match="each name once"):
        document.adding(program(name="a", measurements=()), issued_at=NOW)
    with pytest.raises(Misuse, match="each key once"):
        document.adding(signer(), issued_at=NOW)
    with pytest.raises(Misuse, match="not in the list"):
        document.adding(signer(bytes(256), program="b"), issued_at=NOW)


# --- in the catalogue -------------------------------------------------------------------------------------


def test_an_entry_needs_a_signature_and_only_good_ones() -> None:
    with pytest.raises(CatalogueError, match="allowlist_signature"):
        ServiceEntry(Signed.new(allowlist()))
    signed = Signed.new(allowlist(), CURATOR)
    envelope = signed.envelope
    bad = replace(envelope, signatures=((envelope.signatures[0][0], bytes(64)),))
    with pytest.raises(CatalogueError, match="allowlist_signature"):
        ServiceEntry(Signed(signed.document, bad))


def write(root: Path, entry: ServiceEntry, *, name: str = SERVICE, **trusted: Any) -> None:
    folder = root / "services" / name
    folder.mkdir(parents=True)
    (folder / "allowlist.json").write_bytes(entry.allowlist.encode())
    fields: dict[str, Any] = {
        "key": CURATOR.public,
        "name": "curator",
        "valid_from": 0,
        "valid_until": NOW,
    } | trusted
    TrustStore((TrustedKey(**fields),)).save(root / "services" / "trust.json")


def test_a_catalogue_takes_lists_that_somebody_trusted_has_signed(tmp_path: Path) -> None:
    write(tmp_path, service())
    catalogue = Catalogue.load(tmp_path)
    assert catalogue.service(SERVICE) == service()
    assert catalogue.service("another") is None
    assert len(catalogue) == 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"key": STRANGER.public}, "catalogue.allowlist_signature"),
        ({"valid_until": NOW - 86_400}, "catalogue.allowlist_signature"),
        ({"name": "x"}, ""),
    ],
)
def test_nobody_elses(tmp_path: Path, fields: dict[str, Any], code: str) -> None:
    if "name" in fields:
        write(tmp_path, service())
        (tmp_path / "services" / SERVICE).rename(tmp_path / "services" / "renamed")
        code = "catalogue.name"
    else:
        write(tmp_path, service(), **fields)
    with pytest.raises(CatalogueError, match=code):
        Catalogue.load(tmp_path)


def test_a_list_without_a_trust_file_or_form_is_refused(tmp_path: Path) -> None:
    write(tmp_path, service())
    (tmp_path / "services" / "trust.json").unlink()
    with pytest.raises(CatalogueError, match=r"catalogue\.allowlist_trust"):
        Catalogue.load(tmp_path)
    write(tmp_path / "other", service())
    (tmp_path / "other" / "services" / SERVICE / "allowlist.json").write_bytes(b"{}")
    with pytest.raises(CatalogueError, match=r"catalogue\.lock"):
        Catalogue.load(tmp_path / "other")
    with pytest.raises(CatalogueError, match=r"catalogue\.duplicate"):
        Catalogue((), (service(), service()))


# --- the commands -----------------------------------------------------------------------------------------


def run(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(main, ["allowlist", *arguments])
    assert result.exit_code == exit_code, result.output
    return result.output


def test_a_list_is_written_signed_and_shown(tmp_path: Path) -> None:
    file, key = str(tmp_path / "list.json"), tmp_path / "curator.pem"
    CURATOR.save(key)
    span = ("--from", "2026-11-01", "--until", "2027-11-01")
    run("new", file, "--service", SERVICE, "--max-age", "60")
    run("new", file, "--service", SERVICE, exit_code=2)
    pcrs = ",".join(f"{name}={value}" for name, value in PCRS.registers)
    run(
        *(
            "add",
            "program",
            file,
            "--name",
            "gateway",
            "--image",
            "an image",
            "--source",
            "https://example.org",
        ),
        *("--measurement", f"nitro:{pcrs}", *span),
    )
    signer_options = ("--scheme", "secp256k1", "--program", "gateway", "--payee", "account", *span)
    run("add", "signer", file, *signer_options, "--key", "0x" + "ab" * 20, "--binding", "dstack/pair")
    bad = ("--key", "0x" + "ab" * 21, "--binding", "dstack/pair")
    run("add", "signer", file, *signer_options, *bad, exit_code=2)
    run("add", "signer", file, *signer_options, "--key", "ab" * 20, "--binding", "x/y", exit_code=2)
    digest = run("sign", file, "--key", str(key)).strip()
    shown = json.loads(run("show", file, "--json"))
    assert shown["digest"] == digest
    assert shown["signers"] == [CURATOR.public]
    words = run("show", file)
    assert "routing only" in words
    assert digest in words
    assert ServiceEntry(Signed.decode(AllowList, Path(file).read_bytes())).digest == digest
