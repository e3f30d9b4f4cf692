"""Programs in processes of their own that need not import torch, transformers and Streamlit again.

These imports take eight seconds of a processor, and tests start dozens of such processes. Each is
forked from one that has imported them, and nothing of this project; in all else it is a new one.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from io import FileIO, TextIOWrapper
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(
    [
        "torch",
        "transformers.models.auto.modeling_auto",
        "transformers.models.llama.modeling_llama",
        "peft",
        "altair",
        "streamlit.web.cli",
    ]
)


class Forked:
    """A running `python -m MODULE ARGUMENTS`: as much of subprocess.Popen as tests ask for.

    What it prints goes into the file `out`; `stderr` is read as it comes, or goes into `err`.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        out: Path | None = None,
        err: Path | None = None,
    ) -> None:
        ours, theirs = FORKING.Pipe(duplex=False)
        files = (out or Path(os.devnull), err)
        self._process = FORKING.Process(
            target=_run,
            args=(module, [*arguments], {**environment}, folder, *files, theirs),
            daemon=True,
        )
        start(self._process)
        theirs.close()
        self._ours = ours
        self.stderr = TextIOWrapper(FileIO(ours.fileno(), closefd=False), encoding="utf-8")

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float) -> int:
        """Its exit status, negative for a signal; TimeoutError if it goes on for longer."""
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"Process {self.pid} still runs after {timeout} s.")
        return self.returncode


def start(process: ForkServerProcess) -> None:
    """A process runs anew what its parent was started with, and a page that was tested calls itself
    that: its imports would come before the environment that is meant. So it finds nothing there."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = before


def _run(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    out: Path,
    err: Path | None,
    pipe: Connection,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT) if err else pipe.fileno(), 2)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
