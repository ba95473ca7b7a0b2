"""The published data files lie outside the project; tests that need one skip without it."""

from pathlib import Path

import pytest

OFFICIAL = Path(__file__).parents[3] / "shared" / "data" / "score-official"


@pytest.fixture(scope="session")
def official() -> Path:
    if not OFFICIAL.is_dir():
        pytest.skip("the published data files are not at ../shared/data/score-official")
    return OFFICIAL
