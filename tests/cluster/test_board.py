"""The board of a crew: every block is made by one, and free again when its maker is gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from backend.cluster.board import Board
from backend.cluster.worker import _told


def test_every_block_is_given_to_one_worker_until_all_are_there() -> None:
    board = Board({"0/a": b"kept"})
    names = ["0/a", "0/b", "0/c"]
    assert board.take(names, 1)[:2] == ("0/b", False)
    assert board.take(names, 2)[:2] == ("0/c", False)
    assert board.take(names, 1)[:2] == (None, False)
    board.write("0/b", b"made")
    assert board.take(names, 1)[:2] == (None, False)
    board.write("0/c", b"made")
    assert board.take(names, 2)[:2] == (None, True)
    assert board.read("0/b") == b"made"
    assert board.read("0/d") is None
    assert sorted(board.names("0/")) == ["a", "b", "c"]


def test_what_a_worker_was_making_is_free_when_it_is_gone_or_begins_anew() -> None:
    board = Board({})
    for worker in (1, 2):
        board.begin(worker)
    assert board.take(["0/a", "0/b"], 1).block == "0/a"
    assert board.take(["0/a", "0/b"], 2).block == "0/b"
    assert board.news().n_working == 2
    board.release(1)
    assert board.news().n_working == 1
    board.begin(2)
    assert board.take(["0/a", "0/b"], 3).block == "0/a"
    assert board.take(["0/a", "0/b"], 3).block == "0/b"


def test_a_worker_stays_at_a_batch_and_another_goes_to_the_next() -> None:
    board = Board({})
    names = [f"0/D/{batch}_layer{layer}" for batch in ("0-8", "8-16") for layer in range(3)]
    taken = [board.take(names, worker).block for worker in (1, 2, 1, 2, 1, 2)]
    assert taken == [names[place] for place in (0, 3, 1, 4, 2, 5)]
    board = Board({})
    taken = [board.take(names, worker).block for worker in (1, 2, 3)]
    assert taken == [names[place] for place in (0, 3, 1)], "there is no third batch: one helps"


def test_processes_agree_on_the_first_size_and_halve_it_where_memory_was_full() -> None:
    board = Board({})
    assert (board.agree("A", 12), board.agree("A", 16), board.agree("B", 1)) == (12, 12, 1)
    before = board.begin(1)
    assert board.shrink()
    assert board.take(["0/a"], 1).n_changes == before + 1 == board.begin(2)
    assert (board.agree("A", 16), board.agree("B", 1)) == (6, 1)
    assert [board.shrink() for _ in range(3)] == [True, True, False]


def test_news_are_told_once_and_the_furthest_worker_counts() -> None:
    board = Board({"0/old": b""})
    board.write("0/a", b"made")
    board.finish(0, {"n": 1})
    board.report("halfway", 0.5)
    board.report("behind", 0.2)
    news = board.news()
    assert dict(news.blocks) == {"0/a": b"made"}
    assert dict(news.parts) == {0: {"n": 1}}
    assert (news.stage, news.share) == ("halfway", 0.5)
    again = board.news()
    assert not again.blocks
    assert not again.parts


def test_what_comes_next_is_told_at_once_and_how_far_it_is_from_time_to_time() -> None:
    heard: list[tuple[str, float]] = []
    board = SimpleNamespace(report=SimpleNamespace(remote=lambda *told: heard.append(told)))
    report = _told(cast(Any, board))
    for told in (("load", 0.0), ("load", 0.0), ("run", 0.0), ("run", 0.1)):
        report(*told)
    assert heard == [("load", 0.0), ("run", 0.0)]
