"""Processes of a crew in which something goes wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backend.cluster.worker import End, Task, Worker


class Small(Worker):
    """The first of them has memory for few prompts at once."""

    most = 2

    def run(self, task: Task, board: Any, number: int) -> End:
        from backend.methods import evaluation

        plain = evaluation.prepare_clean

        def prepare_clean(model: Any, prompts: Any) -> Any:
            if len(prompts) > self.most:
                raise RuntimeError("out of memory")
            return plain(model, prompts)

        if number == 0:
            evaluation.prepare_clean = prepare_clean
        return super().run(task, board, number)


class Tiny(Small):
    """The first of them has memory for nothing."""

    most = 0


class Breaking(Worker):
    """One in which there is a mistake."""

    def run(self, task: Task, board: Any, number: int) -> End:
        from backend.methods.registry import METHODS

        def work(*_: Any) -> Any:
            return 1 / 0

        METHODS[task.method] = replace(METHODS[task.method], work=work)
        return super().run(task, board, number)
