"""Assets and traces of the real simulator."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def calvin_assets(shared: Path) -> Path:
    """A checkout of calvin_env: its data and conf folders."""
    return shared / "calvin_assets"


@pytest.fixture(scope="session")
def traces(shared: Path) -> dict[str, dict[str, np.ndarray]]:
    """What the real simulator did: name of the trace to its arrays."""
    folder = shared / "reference" / "calvin_traces"
    return {path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}
