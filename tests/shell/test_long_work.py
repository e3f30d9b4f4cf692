"""Where long work runs, chosen on the Models page: for all, checked at the field, by no visitor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from streamlit.testing.v1 import AppTest

from backend.cluster import where
from backend.cluster.where import Cluster
from backend.core import read_only
from backend.core.read_only import Refused
from backend.studies import remote, studies
from shell.models import long_work
from shell.models.long_work import Place
from tests.shell.test_models_page import page, shown


@pytest.fixture(autouse=True)
def with_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(where.VARIABLE, raising=False)
    monkeypatch.setattr(long_work, "is_ray_installed", lambda: True)
    monkeypatch.setattr(remote, "ask_for_models", lambda where, report: ())  # there is none
    yield
    studies.work_on(None)


def choose(test: AppTest, place: Place) -> None:
    test.selectbox(key="work_place").set_value(place).run()
    assert not test.exception


def test_processes_of_this_computer_are_chosen_for_every_session() -> None:
    test, other = page(), page()
    assert "For all who use this dashboard." in shown(test)
    choose(test, Place.several)
    assert studies.where_work_is() == Cluster(n_local=2)
    test.number_input(key="work_n").set_value(3).run()
    assert studies.where_work_is() == Cluster(n_local=3)
    other.run()
    assert other.selectbox(key="work_place").value is Place.several
    assert other.number_input(key="work_n").value == 3
    assert "that start now run on local" in shown(other)
    choose(other, Place.here)
    assert studies.where_work_is() is None
    assert test.run().selectbox(key="work_place").value is Place.here


def test_what_was_looked_at_and_left_again_is_shown_as_it_holds() -> None:
    test = page()
    choose(test, Place.several)
    test.number_input(key="work_n").set_value(3).run()
    choose(test, Place.cluster)
    assert studies.where_work_is() == Cluster(n_local=3), "there is no address yet"
    choose(test, Place.several)
    assert studies.where_work_is() == Cluster(n_local=test.number_input(key="work_n").value)


def test_an_address_is_checked_at_the_field_and_a_wrong_one_changes_nothing() -> None:
    test = page()
    choose(test, Place.cluster)
    test.text_input(key="work_address").set_value("nowhere").run()
    assert "“nowhere” is no cluster. Give" in test.error[0].value
    assert studies.where_work_is() is None
    test.text_input(key="work_address").set_value(" head:6379 ").run()
    assert not test.error
    assert studies.where_work_is() == Cluster("head:6379")
    assert page().text_input(key="work_address").value == "head:6379"


def test_what_the_environment_says_holds_until_something_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(where.VARIABLE, "local:4")
    test = page()
    assert test.selectbox(key="work_place").options[0] == f"As {where.VARIABLE} says"
    assert "The environment of the dashboard says local" in shown(test)
    choose(test, Place.several)
    assert studies.where_work_is() == Cluster(n_local=2)
    choose(test, Place.here)
    assert studies.where_work_is() == Cluster(n_local=4)
    monkeypatch.setenv(where.VARIABLE, "nowhere")
    assert "is no cluster. Give" in shown(page())


def test_without_ray_it_cannot_be_chosen_and_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(long_work, "is_ray_installed", lambda: False)
    test = page()
    assert "work_place" not in {box.key for box in test.selectbox}
    assert where.NO_RAY in shown(test)


def test_a_visitor_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(read_only.VARIABLE, "1")
    assert "work_place" not in {box.key for box in page().selectbox}
    with pytest.raises(Refused, match=r"read-only.*`make run`"):
        studies.work_on(Cluster(n_local=2))
    studies.work_on(None)
