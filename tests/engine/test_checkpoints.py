"""Tensors that are kept while work goes on: what is there is not computed, what does not fit is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from backend.core.kept import Folder
from backend.engine import checkpoints

BATCH, N_ROWS = slice(4, 10), 7
ROWS = torch.rand((N_ROWS, 6), generator=torch.Generator().manual_seed(0)) < 0.5
SCORES = torch.rand(6, 2, 3)
FILE = "4-10.safetensors"


class Asked:
    """Gives rows, two at a time, and remembers from which on it was asked."""

    def __init__(self) -> None:
        self.starts: list[int] = []

    def __call__(self, batch: slice, start: int, stop: int) -> Iterator[Tensor]:
        self.starts.append(start)
        return iter(ROWS[start:stop].split(2))


def rows(
    place: Path | Folder | None, more: Any, told: Callable[[int], None] = lambda _: None
) -> Tensor:
    where = Folder(place) if isinstance(place, Path) else place
    return checkpoints.rows(where, [BATCH], N_ROWS, more, lambda _, n: told(n))


def scores(place: Path | None, found: Tensor = SCORES) -> Tensor:
    block = checkpoints.Block("4-10", tuple(SCORES.shape), SCORES.dtype, lambda: found)
    return checkpoints.tensors(place and Folder(place), [block])[0]


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
        assert scores(place) is SCORES
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


def test_no_file_is_made_of_nothing(tmp_path: Path) -> None:
    def broken(batch: slice, start: int, stop: int) -> Iterator[Tensor]:
        raise RuntimeError
        yield

    with pytest.raises(RuntimeError):
        rows(tmp_path, broken)
    assert checkpoints.rows(Folder(tmp_path), [BATCH], 0, broken, lambda *_: None).shape == (0, 6)
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
        return checkpoints.rows(Folder(tmp_path), [BATCH], N_ROWS, more, lambda *_: None, dtype)

    assert torch.equal(
        found(torch.float64, lambda _, done, stop: iter([numbers[done:stop]])), numbers
    )
    assert torch.equal(found(torch.float64, Asked()), numbers), "from the file, bit by bit"
    assert torch.equal(found(torch.bool, Asked()), ROWS)
    save_file({"kept": numbers / 0}, tmp_path / FILE)
    assert torch.equal(
        found(torch.float64, lambda _, done, stop: iter([numbers[done:stop]])), numbers
    )


@pytest.mark.parametrize(
    "wrong",
    [SCORES[:5], SCORES[..., :2], SCORES.double(), SCORES / 0],
    ids=["few", "narrow", "exact", "infinite"],
)
def test_a_tensor_that_does_not_fit_is_computed_again(tmp_path: Path, wrong: Tensor) -> None:
    save_file({"kept": wrong.contiguous()}, tmp_path / FILE)
    for _ in range(2):
        assert torch.equal(scores(tmp_path), SCORES)
    assert torch.equal(load_file(tmp_path / FILE)["kept"], SCORES)


@pytest.mark.parametrize(
    "change", [lambda data: data[:-7], lambda data: b"", lambda data: b"?" * 99]
)
def test_damaged_files_are_computed_again(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    rows(tmp_path / "rows", Asked())
    scores(tmp_path / "scores")
    for file in tmp_path.rglob(FILE):
        file.write_bytes(change(file.read_bytes()))
    asked = Asked()
    assert torch.equal(rows(tmp_path / "rows", asked), ROWS)
    assert asked.starts == [0]
    again = SCORES + 1
    assert scores(tmp_path / "scores", again) is again


@dataclass(frozen=True)
class Shared(Folder):
    """A folder of two processes, of which the other makes every second block, and sees to it that
    the blocks of both are there."""

    is_shared: bool = True

    def to_make(self, names: Sequence[str]) -> Iterator[str]:
        yield from names[::2]
        for name in names[1::2]:
            start, stop = map(int, name.partition("_")[2].split("-"))
            self.write(name, save({"kept": ROWS[start:stop].contiguous()}))


def test_processes_that_share_rows_make_each_once(tmp_path: Path) -> None:
    asked, seen = Asked(), []
    place = Shared(tmp_path)
    found = rows(place, asked, seen.append)
    assert torch.equal(found, ROWS)
    assert asked.starts == [0, 2, 4, 6]
    assert seen == [1, 3, 5, 7]
    assert torch.equal(rows(place, asked, seen.append), ROWS)
    assert asked.starts == [0, 2, 4, 6]


def test_what_many_began_one_goes_on_with_and_the_other_way_round(tmp_path: Path) -> None:
    for k in range(3):
        Folder(tmp_path).write(f"4-10_{k}-{k + 1}", save({"kept": ROWS[k : k + 1].contiguous()}))
    asked = Asked()
    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path, asked, stops_at(5))
    assert asked.starts == [3]
    assert torch.equal(load_file(tmp_path / FILE)["kept"], ROWS[:5])
    found = rows(Shared(tmp_path), asked)
    assert torch.equal(found, ROWS)
    assert asked.starts == [3, 5]
