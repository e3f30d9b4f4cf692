"""Tensors that are kept while work goes on: what is there is not computed, what does not fit is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.engine import checkpoints

BATCH, N_ROWS = slice(4, 10), 7
ROWS = torch.rand((N_ROWS, 6), generator=torch.Generator().manual_seed(0)) < 0.5
SCORES = torch.rand(6, 2, 3)
FILE = "4-10.safetensors"


class Asked:
    """Gives rows, two at a time, and remembers from which on it was asked."""

    def __init__(self) -> None:
        self.starts: list[int] = []

    def __call__(self, start: int) -> Iterator[Tensor]:
        self.starts.append(start)
        return iter(ROWS[start:].split(2))


def rows(place: Path | None, more: Any, told: Callable[[int], None] = lambda _: None) -> Tensor:
    return checkpoints.rows(place, BATCH, N_ROWS, more, told)


def stops_at(n: int) -> Callable[[int], None]:
    def told(done: int) -> None:
        if done >= n:
            raise KeyboardInterrupt

    return told


def test_rows_go_on_after_what_was_finished(tmp_path: Path) -> None:
    asked, seen = Asked(), []
    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path / "new", asked, stops_at(4))
    assert torch.equal(load_file(tmp_path / "new" / FILE)["kept"], ROWS[:4])
    assert torch.equal(rows(tmp_path / "new", asked, seen.append), ROWS)
    assert seen == [4, 6, 7]
    assert torch.equal(rows(tmp_path / "new", asked, seen.append), ROWS)
    assert seen == [4, 6, 7, 7]
    assert asked.starts == [0, 4], "what is all there is not asked again"


def test_rows_are_kept_every_few_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    def told(done: int) -> None:
        there = (tmp_path / FILE).exists()
        seen.append((done, len(load_file(tmp_path / FILE)["kept"]) if there else 0))

    rows(tmp_path, Asked(), told)
    assert seen == [(2, 0), (4, 0), (6, 0), (7, 0)], "what takes no time is written once"
    (tmp_path / FILE).unlink()
    seen.clear()
    clock = iter(range(0, 100, 3))
    monkeypatch.setattr(checkpoints, "monotonic", lambda: next(clock))
    rows(tmp_path, Asked(), told)
    assert seen == [(2, 0), (4, 4), (6, 4), (7, 7)]


def test_without_a_folder_nothing_is_kept_and_one_that_cannot_be_written_is_passed_over(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    for place in (None, tmp_path / "file"):
        assert torch.equal(rows(place, Asked()), ROWS)
        assert (
            checkpoints.tensor(place, BATCH, SCORES.shape, SCORES.dtype, lambda: SCORES) is SCORES
        )
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


def test_no_file_is_made_of_nothing(tmp_path: Path) -> None:
    def broken(start: int) -> Iterator[Tensor]:
        raise RuntimeError
        yield

    with pytest.raises(RuntimeError):
        rows(tmp_path, broken)
    assert checkpoints.rows(tmp_path, BATCH, 0, broken, lambda _: None).shape == (0, 6)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "wrong",
    [ROWS[:, 1:], ROWS[0], ROWS.to(torch.uint8), torch.cat([ROWS, ROWS]), torch.tensor(True), {}],
    ids=["narrow", "flat", "numbers", "too many", "one", "empty"],
)
def test_rows_that_do_not_fit_are_computed_again(tmp_path: Path, wrong: Any) -> None:
    save_file({} if wrong == {} else {"kept": wrong.contiguous()}, tmp_path / FILE)
    asked = Asked()
    assert torch.equal(rows(tmp_path, asked), ROWS)
    assert asked.starts == [0]


def test_rows_of_numbers_keep_every_digit_and_are_never_taken_for_answers(tmp_path: Path) -> None:
    numbers = torch.rand((N_ROWS, 6), dtype=torch.float64)

    def found(dtype: torch.dtype, more: Any) -> Tensor:
        return checkpoints.rows(tmp_path, BATCH, N_ROWS, more, lambda _: None, dtype)

    assert torch.equal(found(torch.float64, lambda done: iter([numbers[done:]])), numbers)
    assert torch.equal(found(torch.float64, Asked()), numbers), "from the file, bit by bit"
    assert torch.equal(found(torch.bool, Asked()), ROWS)
    save_file({"kept": numbers / 0}, tmp_path / FILE)
    assert torch.equal(found(torch.float64, lambda done: iter([numbers[done:]])), numbers)


@pytest.mark.parametrize(
    "wrong",
    [SCORES[:5], SCORES[..., :2], SCORES.double(), SCORES / 0],
    ids=["few", "narrow", "exact", "infinite"],
)
def test_a_tensor_that_does_not_fit_is_computed_again(tmp_path: Path, wrong: Tensor) -> None:
    save_file({"kept": wrong.contiguous()}, tmp_path / FILE)
    for _ in range(2):
        found = checkpoints.tensor(tmp_path, BATCH, SCORES.shape, SCORES.dtype, lambda: SCORES)
        assert torch.equal(found, SCORES)
    assert torch.equal(load_file(tmp_path / FILE)["kept"], SCORES)


@pytest.mark.parametrize(
    "change", [lambda data: data[:-7], lambda data: b"", lambda data: b"?" * 99]
)
def test_damaged_files_are_computed_again(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    rows(tmp_path / "rows", Asked())
    checkpoints.tensor(tmp_path / "scores", BATCH, SCORES.shape, SCORES.dtype, lambda: SCORES)
    for file in tmp_path.rglob(FILE):
        file.write_bytes(change(file.read_bytes()))
    asked = Asked()
    assert torch.equal(rows(tmp_path / "rows", asked), ROWS)
    assert asked.starts == [0]
    again = SCORES + 1
    found = checkpoints.tensor(
        tmp_path / "scores", BATCH, SCORES.shape, SCORES.dtype, lambda: again
    )
    assert found is again
