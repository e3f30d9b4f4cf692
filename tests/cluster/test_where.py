"""What a user may say of where processes are."""

from __future__ import annotations

import pytest

from backend.cluster.where import VARIABLE, Cluster, cluster
from backend.core.errors import UserError
from backend.studies import studies


@pytest.mark.parametrize(
    "text",
    [
        *("", "here", "a:b", "\n:1", ":6", "head:70000", "/2", "head/2"),
        *(
            "local",
            "local:",
            "local:0",
            "local:x",
            "local:9999",
            "local:2/2",
            "local:" + "9" * 5000,
        ),
        *("auto/0", "auto/99", "auto/2/2"),
    ],
)
def test_an_address_that_cannot_be_is_told(text: str) -> None:
    with pytest.raises(UserError, match="Give"):
        cluster(text)


@pytest.mark.parametrize(
    "text", ["local:3", "auto", "auto/2", "head:6379/4", "head:6379", "ray://head:10001"]
)
def test_addresses(text: str) -> None:
    assert str(cluster(text)) == text
    assert cluster("local:3") == Cluster(n_local=3)
    assert cluster("ray://head:10001/2") == Cluster("ray://head:10001", per_gpu=2)


def test_the_environment_says_where_unless_a_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "local:3")
    assert studies.where_work_is() == Cluster(n_local=3)
    monkeypatch.setattr(studies, "_cluster", Cluster("head:6379"))
    assert studies.where_work_is() == Cluster("head:6379")
    assert studies.devices_of(["base"]) == frozenset()
    monkeypatch.setattr(studies, "_cluster", None)
    monkeypatch.setenv(VARIABLE, "nowhere")
    with pytest.raises(UserError, match="Give"):
        studies.where_work_is()
    monkeypatch.delenv(VARIABLE)
    assert studies.where_work_is() is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("head:6379", ("head", 6379)),
        ("ray://127.0.0.1:10001", ("127.0.0.1", 10001)),
        ("[::1]:6379", ("::1", 6379)),
        ("auto", None),
        ("local:2", None),
    ],
)
def test_host_and_port(text: str, place: tuple[str, int] | None) -> None:
    assert cluster(text).place == place
