"""Model servers that misbehave as a test tells them."""

import pytest
from answering import answering


@pytest.fixture
def server():
    yield from answering()


@pytest.fixture
def second():
    yield from answering()


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that the client would have waited before each retry."""
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("openai._base_client.anyio.sleep", sleep)
    return waited
