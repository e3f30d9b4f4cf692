"""Machines of a cluster that come and go, and the end of the process that asked.

Each machine is a Ray node of its own on this computer; the command line asks, in another process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

from tests.cluster.test_crew import all_end
from tests.dashboard import ROOT

ASKED = ("minimality", "base", "--prompts", "24", "--boxes", "3")
PATIENCE = 100


@pytest.fixture
def machines() -> Iterator[Any]:
    """A cluster of one machine with one processor, to which others can be added."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=node())
    yield cluster
    cluster.shutdown()


def node() -> dict[str, Any]:
    return {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}


def asking(local: Path, *ray: str, **variables: str) -> subprocess.Popen[str]:
    places = {"CIRCUIT_EXPLORER_LOCAL": str(local), "CIRCUIT_EXPLORER_CHUNK": "4"}
    return subprocess.Popen(
        [sys.executable, "-m", "backend", *ASKED, *ray],
        cwd=ROOT,
        env={**os.environ, **places, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def parts(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return json.loads(out)["parts"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one process finds."""
    return parts(asking(tmp_path_factory.mktemp("alone")))


def wait_for(process: subprocess.Popen[str], pattern: str) -> None:
    """Until its progress says so."""
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if re.search(pattern, line):
            return
    raise AssertionError(f"It ended without “{pattern}”: {said}")


def workers() -> Mapping[int, psutil.Process]:
    """Processes of a crew that work now, by their ids."""
    found = {}
    for each in psutil.process_iter(["name", "status"]):
        if each.info["name"] == "ray::Worker.run" and each.info["status"] != psutil.STATUS_ZOMBIE:
            found[each.pid] = each
    return found


def test_a_machine_that_comes_later_gets_work_and_one_that_is_lost_loses_only_its_own(
    machines: Any, expected: Any, tmp_path: Path
) -> None:
    process = asking(tmp_path, "--ray", machines.address)
    wait_for(process, r"· 1 process on")
    (first,) = workers().values()
    first.suspend()  # so that it cannot be done before the second is there
    later = machines.add_node(**node())
    wait_for(process, r"· 2 processes on")
    machines.remove_node(later, allow_graceful=False)
    wait_for(process, r"· 1 process on")
    first.resume()
    assert parts(process) == expected
    assert all_end([*workers().values()])


@pytest.mark.parametrize("is_local", [True, False])
def test_work_ends_with_whoever_asked_and_one_process_goes_on(
    request: pytest.FixtureRequest, expected: Any, tmp_path: Path, is_local: bool
) -> None:
    where = "local:2" if is_local else request.getfixturevalue("machines").address
    process = asking(tmp_path, "--ray", where)
    wait_for(process, r"Measuring.*: [5-7]\d%")
    at_work = [*workers().values()]
    of_ray = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert at_work
    assert all_end(at_work)
    # What is left are agents of Ray itself, which look a minute for the rest before they end.
    _, left = psutil.wait_procs(of_ray, timeout=1)
    assert {each.name() for each in left} <= {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
    for each in left:
        each.kill()
    assert any((tmp_path / "unfinished").rglob("*.safetensors"))
    again = asking(tmp_path)
    wait_for(again, "resuming: an unfinished part is there")
    assert parts(again) == expected


def test_processes_of_this_computer_are_begun_beside_a_cluster_on_it(
    machines: Any, expected: Any, tmp_path: Path
) -> None:
    assert parts(asking(tmp_path, "--ray", "local:1")) == expected
    assert len(machines.list_all_nodes()) == 1


def test_two_processes_share_a_gpu_where_that_is_said(expected: Any, tmp_path: Path) -> None:
    """Ray believes that there is one; that it is not there, each finds for itself."""
    from ray.cluster_utils import Cluster

    one_gpu = Cluster(initialize_head=True, head_node_args=node() | {"num_gpus": 1})
    try:
        process = asking(tmp_path, "--ray", f"{one_gpu.address}/2")
        wait_for(process, r"· 2 processes on .*/2:")
        assert parts(process) == expected
    finally:
        one_gpu.shutdown()


def test_who_has_not_the_token_is_told_how_to_join(machines: Any, tmp_path: Path) -> None:
    process = asking(tmp_path, "--ray", machines.address, RAY_AUTH_TOKEN="another")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode
    assert "No Ray cluster answers at" in err
    assert "RAY_AUTH_TOKEN" in err
    assert "Traceback" not in err
