"""One small Ray cluster on this computer for all tests that need no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest

from backend.cluster import joining
from backend.cluster.where import Cluster

# Before Ray is imported, which keeps them.
os.environ |= joining.ENVIRONMENT | joining.ON_LOOPBACK | {"RAY_AUTH_TOKEN": token_hex()}
TWO = Cluster(n_local=2)


@pytest.fixture(scope="session")
def two() -> Iterator[Any]:
    """Ray, with room for two processes here; studies on `TWO` find it."""
    import ray

    joining.begin(ray, TWO)
    yield ray
    ray.shutdown()
