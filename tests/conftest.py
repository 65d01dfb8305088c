"""Fixtures that many tests share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with CALVIN's sample, assets, traces and reference outputs."""
    if not SHARED.is_dir():
        pytest.skip("../shared, which holds the CALVIN sample and the references, is not here")
    return SHARED
