"""The test vectors, where they are: real evidence that is not part of this repository."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the unpacked vectors: `PROOFHOLD_VECTORS`, or what lies beside the repository.

    A folder that holds the archive is unpacked for the session.
    """
    folder = Path(os.environ.get("PROOFHOLD_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))
    archive = folder / "vectors.tar.gz"
    if archive.is_file():
        unpacked = tmp_path_factory.mktemp("vectors")
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        return unpacked / "vectors"
    if not (folder / "index.json").is_file():
        pytest.skip(f"no vectors at {folder}: set PROOFHOLD_VECTORS to the unpacked folder")
    return folder
