"""One small Ray cluster on this computer for all tests that need no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from backend.cluster import joining
from backend.cluster.where import Cluster
from backend.core.files import VARIABLE
from tests import planted_ioi

# Before Ray is imported, which keeps them.
os.environ |= joining.ENVIRONMENT | joining.ON_LOOPBACK | {"RAY_AUTH_TOKEN": token_hex()}
TWO = Cluster(n_local=2)


@pytest.fixture(scope="session")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where processes of the cluster have their models, unless they are told otherwise."""
    place = tmp_path_factory.mktemp("there")
    for seed, name in enumerate(("planted", "replanted")):
        planted_ioi.saved(place / name, seed)
    tables = [f'[{name}]\nsource = "{place / name}"\n' for name in ("planted", "replanted")]
    (place / "models.toml").write_text("\n".join(tables))
    return place


@pytest.fixture(scope="session")
def two(there: Path) -> Iterator[Any]:
    """Ray, with room for two processes here; studies on `TWO` find it."""
    import ray

    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setenv(VARIABLE, str(there))
        joining.begin(ray, TWO)
    yield ray
    ray.shutdown()
