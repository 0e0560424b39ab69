"""Files of format version 1 stay as they were written: whoever kept one must be able to read it for ever."""

from __future__ import annotations

import pytest

from documents import FIXTURES, files
from proofhold.canonical import file_digest

FILES = {
    "bundle.json": "5858ebcb37bba73c535d6076d67d7e82b3f6971fb3357b2526b195b9fdac56ec",
    "claim.json": "fa139ee0672b60e8b35ed678bcf09c10fc13983e8be89e9a511e1836421663a9",
    "decline.json": "3b7d164d4f8bfb2fb0a0b1e5bd567048a76b78c02d4176e8c246daffe37846fd",
    "job.json": "1c2881b379e0d4192f5c2411dc17bf0ba3c53097e4ba5744df4fa9093b3e4b91",
    "opening.bin": "8abf61d147d80bce4dab790db5802a4026e467ed8d7fadd61e9fa58a1c932d1f",
    "policy.toml": "62c38ae75a369f96c8346ae4902a5493be48e0960791c105df14bf7b75a47c5f",
    "receipt.json": "a2667262a2fed8be1f2b820880fe55b5617c2d9215ae4dc959797af53751cd7e",
    "resolution.json": "c85d4db1b6bc780aa4acca92f4b0cc3805684f66cf7ff6c8a353cb56bc644554",
    "trace.json": "6e9d2dae9232184b16b53592b03f63105192bcffc39d6ff4af8b9b8db60363d6",
    "trust.json": "d51a5e66f083c3371ea2a72b453f40bf355ca2f0b62e54e9767e018cb9788bff",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_version_1_is_never_rewritten(name: str) -> None:
    assert file_digest((FIXTURES / name).read_bytes()) == FILES[name]


@pytest.mark.parametrize("name", sorted(set(FILES) - {"receipt.json"}))
def test_what_is_written_today_is_the_same(name: str) -> None:
    """Receipts are left out: they state the version of proofhold that judged."""
    assert files()[name] == (FIXTURES / name).read_bytes()
