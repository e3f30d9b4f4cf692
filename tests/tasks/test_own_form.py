"""Files of own tasks: each kind of mistake names its field, and says what to write."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from backend.core.errors import UserError
from backend.core.serialize import from_json, to_json
from backend.tasks import registry
from backend.tasks.own import files
from backend.tasks.own.files import task_in
from backend.tasks.own.group_reading import COLOURS, SHAPES
from backend.tasks.prompts import Prompts
from backend.tasks.task import Task
from circuitviz import palette
from tests.own import FRUIT, IOI_FILE, file_of

GONE = object()
MV, FR = tomllib.loads(FRUIT)["groups"]
TWO = "{two} sees {one} . {one} eats the {fruit} . Fruit : {again}"


def changed(path: str, value: Any) -> bytes:
    """The small file with one field changed, or left out."""
    data: Any = tomllib.loads(FRUIT)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner = data
    for part in way:
        inner = inner[part]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return file_of(data)


MISTAKES = [
    ("colour", "red", "“colour” is not known"),
    ("title", GONE, "“title” is missing"),
    ("name", "../up", "“name” is no plain name"),
    ("name", 3, "“name” holds 3, which is no text"),
    ("title", "", "“title” has 0 letters"),
    ("title", "x" * 61, "“title” has 61 letters"),
    ("title", "**bold**", "“title” holds “\\*”"),
    ("text", "see [this](http://x)", "“text” holds “\\["),
    ("source", "a\u0000b", "“source” holds a letter that cannot be shown"),
    ("templates", [], "“templates” has 0 items"),
    ("templates", "a {again}", "“templates” holds .*no list"),
    ("templates", ["eats {it} {again}"], "“templates\\[1\\]” holds “it”, which is no slot"),
    ("templates", ["{one eats {again}"], "“templates\\[1\\]” holds “one eats {again”"),
    ("templates", ["one} eats {again}"], "“templates\\[1\\]” has a brace without"),
    ("templates", ["{one}  eats {again}"], "“templates\\[1\\]” has two spaces"),
    ("templates", ["{again} eats {one}"], "“templates\\[1\\]” does not end in the answer"),
    ("templates", ["{again} or {again}"], "“templates\\[1\\]” does not end in the answer"),
    ("templates", ["{one} eats {again}."], "“templates\\[1\\]” does not end in the answer"),
    ("templates", ["{again}"], "“templates\\[1\\]” has nothing before"),
    ("templates", ["{one} eats {again}"], "“tokens\\[1\\].at” holds “fruit”"),
    ("answer.slot", "nobody", "“answer.slot” holds “nobody”, which is no slot"),
    ("answer.words", GONE, "“answer.words” is missing"),
    ("competitors.slots", ["again"], "“competitors.slots\\[1\\]” holds “again”"),
    ("competitors.slots", ["other", "other"], "“competitors.slots” names a slot twice"),
    ("counterfactual", [], "“counterfactual” has 0 items"),
    ("counterfactual", ["end"], "“counterfactual\\[1\\]” holds “end”"),
    ("counterfactual", ["fruit", "other", "again"], "“words.fruit” has 4 words, .* 5 different"),
    ("words", {}, "“words” has 0 entries"),
    ("words.Fruit", ["a", "b"], "“words.Fruit” holds “Fruit”, which is no name"),
    ("words.fruit", ["apple"], "“words.fruit” has 1 items"),
    ("words.fruit", ["fig", "fig", "pear"], "“words.fruit” has “fig” more than once"),
    ("words.fruit.1", " fig", "“words.fruit\\[2\\]” holds “ fig”"),
    ("words.fruit.0", 7, "“words.fruit\\[1\\]” holds 7"),
    ("words.fruit.0", "a{b}", "“words.fruit\\[1\\]” holds “a{b}”"),
    ("words.fruit.0", "x" * 61, "“words.fruit\\[1\\]” has 61 letters"),
    ("slots.one", {}, "“slots.one” says not where"),
    ("slots.one", {"from": "name", "of": "two"}, "“slots.one” says from and of where"),
    ("slots.one", {"from": "names"}, "“slots.one.from” holds “names”, which is no list"),
    ("slots.one", {"from": "name", "size": 3}, "“slots.one.size” is not known"),
    ("slots.one", {"of": "two"}, "“slots.one.of” holds “two”, which is no slot before it"),
    ("slots.end", {"from": "name"}, "“slots.end” has a name that means something else"),
    ("slots.again", {"of": "fruit", "by": "name"}, "“slots.again.by” holds “name”"),
    ("slots.one", {"from": "name", "several_tokens": 1}, "“slots.one.several_tokens” holds 1"),
    ("slots.n", {"number": [9, 2]}, "“slots.n.number\\[2\\]” holds 2. Write a whole number"),
    ("slots.n", {"number": [0, 10**30]}, "“slots.n.number\\[2\\]”"),
    ("slots.n", {"number": [1, 9], "above": "one"}, "“slots.n.above” holds “one”, which is no num"),
    ("slots.n", {"number": [1, 9], "by": 2}, "“slots.n.by” says by how much"),
    ("tokens.0.at", "two_", "“tokens\\[1\\].at” holds “two_”"),
    ("tokens.0.at", "again", "“tokens\\[1\\].at” holds “again”"),
    ("tokens.0.name", "end", "“tokens\\[1\\].name” is that of another"),
    ("tokens.0.name", "random", "“tokens\\[1\\].name” means any token"),
    ("tokens.0.words", "last token", "“tokens\\[1\\].words” is that of another"),
    ("tokens.0.occurrence", 2, "“tokens\\[1\\].occurrence” is 2, but template 1"),
    ("tokens.0.after", 6, "“tokens\\[1\\].after” holds 6"),
    ("tokens.1.after", 1, "“tokens\\[2\\].after” says nothing about the last token"),
    ("tokens.0.first", "yes", "“tokens\\[1\\].first” holds “yes”"),
    ("groups", [FR, MV], "“groups\\[1\\].into.v\\[1\\]” holds “MV”, which is no group before"),
    ("groups.0.key", "mv", "“groups\\[1\\].key” holds “mv”"),
    ("groups.1.key", "MV", "“groups\\[2\\].key” holds “MV”"),
    ("groups.0.at", "start", "“groups\\[1\\].at” holds “start”, which is no name of a token"),
    ("groups.0.at", "fruit", "“groups\\[1\\].into” is the logits"),
    ("groups.1.into", "MV", "“groups\\[2\\].into” holds “MV”"),
    ("groups.1.into", {"o": ["MV"]}, "“groups\\[2\\].into.o” is not known"),
    ("groups.1.into", {"q": ["MV"]}, "“groups\\[2\\].into.q” is MV, which works at another"),
    ("groups.1.into", {"k": ["MV"], "v": ["MV"]}, "“groups\\[2\\].into” holds"),
    ("groups.0.colour", "red", "“groups\\[1\\].colour” holds “red”"),
    ("groups.0.shape", "star", "“groups\\[1\\].shape” holds “star”"),
    ("groups.0.size", 0, "“groups\\[1\\].size” holds 0"),
    ("groups.0.size", True, "“groups\\[1\\].size” holds True"),
    ("groups.0.text", "<script>", "“groups\\[1\\].text” holds “<”"),
    ("edges", [["end", "nothing"]], "“edges\\[1\\]\\[2\\]” holds “nothing”"),
    ("edges", [["end"]], "“edges\\[1\\]” has 1 items"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES)
def test_each_mistake_names_its_field_and_says_what_to_write(
    path: str, value: Any, message: str
) -> None:
    with pytest.raises(UserError, match=f"^The field {message}") as caught:
        task_in(changed(path, value))
    assert str(caught.value).endswith(".")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "not text in UTF-8"),
        (b"name = ", "not TOML: Invalid value"),
        (b"x = " + b"[" * 5000, "not TOML"),
        (b"#" * (files.MAX_KB * 1024 + 1), "more than 256 kB"),
    ],
    ids=["bytes", "broken", "deep", "large"],
)
def test_what_is_no_such_file_is_told(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        task_in(content)


def test_groups_look_back_and_sentences_keep_their_order() -> None:
    earlier = {"name": "early", "at": "one", "words": "early"}
    data = tomllib.loads(FRUIT)
    data["tokens"].append(earlier)
    late = {"key": "LT", "name": "Late", "at": "fruit", "into": {"v": ["EA"]}, "text": "Late."}
    early = {"key": "EA", "name": "Early", "at": "early", "into": {"v": ["MV"]}, "text": "Early."}
    with pytest.raises(UserError, match=r"groups\[3\].into.v” is EA, which works at an earlier"):
        task_in(file_of(data | {"groups": [MV, early, late]}))
    task_in(file_of(data | {"groups": [MV, FR, early], "templates": [*data["templates"], TWO]}))
    swapped = "the {fruit} of {one} and {two} . Fruit : {again}"
    with pytest.raises(UserError, match=r"templates\[2\]” has the tokens .* another order"):
        task_in(
            file_of(data | {"groups": [MV, FR, early], "templates": [*data["templates"], swapped]})
        )


def test_words_that_can_hardly_be_drawn_are_told() -> None:
    data = tomllib.loads(FRUIT)
    data["slots"] |= {
        "low": {"number": [1, 9]},
        "high": {"number": [1, 9], "above": "low", "by": 9},
    }
    with pytest.raises(UserError, match="“slots” allows hardly any sentence"):
        task_in(file_of(data))


def test_a_table_must_have_every_word_that_it_is_asked_for() -> None:
    data = tomllib.loads(FRUIT)
    data["words"]["colour"] = {"apple": "red", "pear": "green"}
    data["slots"]["again"] = {"of": "fruit", "by": "colour"}
    with pytest.raises(UserError, match=r"“slots\.again\.by” has no word for “plum”"):
        task_in(file_of(data))


def test_looks_that_a_file_does_not_choose_are_those_that_pictures_have() -> None:
    assert {*SHAPES} == {*palette.SHAPES}
    assert len({*COLOURS}) == len(COLOURS)
    task = task_in(FRUIT.encode())
    assert [(group.colour, group.shape) for group in task.groups] == [
        *zip(COLOURS, SHAPES, strict=False)
    ][:2]
    assert task.position_names == ("fruit", "end")
    assert task.edges == (("end", "fruit"), ("end", "random"))


def test_other_words_for_readers_make_no_other_task_and_other_sentences_do() -> None:
    task = task_in(FRUIT.encode())
    told = task_in(changed("text", "Told otherwise."))
    other = task_in(changed("templates", [TWO]))
    assert told == task != other
    assert hash(told) == hash(task)
    assert to_json(Prompts(task, 1, 0)) != to_json(Prompts(other, 1, 0))


def test_a_result_of_an_earlier_file_is_not_taken_for_one_of_this() -> None:
    before = to_json(registry.add_task(FRUIT.encode()))
    assert from_json(Task, before) == registry.task_named("fruit")
    registry.add_task(changed("templates", [TWO]))
    with pytest.raises(UserError, match=r"as its file was before\. Measure it again"):
        from_json(Task, before)
    assert from_json(Task, "ioi") is registry.TASKS["ioi"]


def test_a_bad_file_is_named_and_the_others_work() -> None:
    files.ADDED.mkdir()
    (files.ADDED / "bad.toml").write_text("name = 3")
    (files.ADDED / "fruit.toml").write_text(FRUIT)
    (files.ADDED / "zebra.toml").write_text(FRUIT)
    (files.ADDED / "ioi.toml").write_bytes(changed("name", "ioi"))
    (files.ADDED / "pipe.toml").symlink_to("/dev/zero")
    own = registry.own_tasks()
    assert list(own.tasks) == ["capitals", "greater-than", "fruit"]
    reasons = {path.name: reason for path, reason in own.complaints.items()}
    assert reasons.keys() == {"bad.toml", "zebra.toml", "ioi.toml", "pipe.toml"}
    assert "“title” is missing" in reasons["bad.toml"]
    assert "the name of another task" in reasons["zebra.toml"]
    assert "the name of another task" in reasons["ioi.toml"]
    assert "device" in reasons["pipe.toml"]
    assert registry.task_named("fruit").title == "Fruit"


def test_a_task_is_added_replaced_and_forgotten() -> None:
    registry.add_task(FRUIT.encode())
    registry.add_task(changed("title", "More fruit"))
    assert registry.task_named("fruit").title == "More fruit"
    for path, value in (("name", "ioi"), ("name", "capitals"), ("title", "Greater than")):
        with pytest.raises(UserError, match="of another task"):
            registry.add_task(changed(path, value))
    registry.remove_task("fruit")
    for name in ("fruit", "capitals", "ioi"):
        with pytest.raises(UserError, match="was not added here"):
            registry.remove_task(name)


def test_the_built_in_task_can_be_written_as_a_file() -> None:
    task, known = task_in(IOI_FILE), registry.TASKS["ioi"]
    assert [(g.key, g.position, g.component, g.into) for g in task.groups] == [
        (g.key, g.position, g.component, g.into) for g in known.groups
    ]
    assert task.position_names == known.position_names
