"""The test vectors, where they are: real evidence that is not part of this repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of the unpacked vectors: `PROOFHOLD_VECTORS`, or what lies beside the repository."""
    folder = Path(os.environ.get("PROOFHOLD_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))
    if not (folder / "index.json").is_file():
        pytest.skip(f"no vectors at {folder}: set PROOFHOLD_VECTORS to the unpacked folder")
    return folder
