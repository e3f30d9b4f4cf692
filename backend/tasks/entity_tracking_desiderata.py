"""What heads of entity tracking may carry, as tests (Prakash et al., circuit functionality).

Three are of *what* they carry: the value of the object, the label of the box, the position of the
segment. Eleven, for group B only, are of what a position is: the alternate prompt differs in what
stands around the segment asked for, or in how it is written, and its index is counted without what
is added. Base and alternate always ask for boxes at different indices, and for none that would
make the answer expected of one variable that of another, or the base's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from backend.core.errors import UserError
from backend.tasks.desiderata import Desideratum, Pairs
from backend.tasks.entity_tracking_text import (
    PLAIN,
    Boxes,
    Wording,
    WordTable,
    draw_words,
    encode,
    pick,
)
from backend.tasks.prompts import Ints, PromptSet, generators
from backend.tasks.vocabulary import single_tokens, usable_vocabulary

_MORE_BOXES = ("PP", "BB", "AA")
_MORE_BOXES_CONTEXTS = (("boxes, Box ", ","), (", Box ", " and"), ("and Box ", ","))
_SEGMENT = ("prev_query_label", "correct_object")


@dataclass(frozen=True)
class Variant:
    """How an alternate prompt is written, and where it has a segment more."""

    wording: Wording = PLAIN
    extra: Literal["first", "last"] | None = None


def object_pairs(tokenizer: Any, base: PromptSet, seed: int) -> Pairs:
    """Other objects, labels and index; expected is the alternate's own answer."""
    (rng,) = generators(seed, "object index", 1)
    query = _other_index(rng, base, base.drawn["query"])
    alternate = _alternate(tokenizer, base, seed, "object", query)
    return Pairs(base, alternate, alternate.answer_ids.copy(), ("correct_object",))


def label_pairs(tokenizer: Any, base: PromptSet, seed: int) -> Pairs:
    """The label asked for is one of the base's, of another box than the base's query.

    It is at neither of these two boxes' indices in the alternate. Raises UserError for fewer than
    three boxes.
    """
    shared_rng, rng = generators(seed, "label index", 2)
    shared = _other_index(shared_rng, base, base.drawn["query"])
    query = _other_index(rng, base, base.drawn["query"], shared)
    label = pick(base.drawn["labels"], shared)
    alternate = _alternate(tokenizer, base, seed, "label", query, label)
    return Pairs(
        base, alternate, pick(base.choice_ids, shared), ("query_label", "prev_query_label")
    )


def position_pairs(
    tokenizer: Any, base: PromptSet, seed: int, name: str, variant: Variant
) -> Pairs:
    """Other objects, labels and index; expected is the base's object at the alternate's index."""
    (rng,) = generators(seed, f"{name} index", 1)
    query = _other_index(rng, base, base.drawn["query"])
    alternate = _alternate(tokenizer, base, seed, name, query, variant=variant)
    return Pairs(base, alternate, pick(base.choice_ids, query), _SEGMENT)


def next_pairs(tokenizer: Any, base: PromptSet, seed: int) -> Pairs:
    """As `position_pairs`; expected is the base's object at the index after the alternate's.

    The first index comes after the last one. Raises UserError for fewer than three boxes.
    """
    (rng,) = generators(seed, "incorrect_segment index", 1)
    asked, n_boxes = base.drawn["query"], base.n_choices
    query = _other_index(rng, base, asked, (asked - 1) % n_boxes)
    alternate = _alternate(tokenizer, base, seed, "incorrect_segment", query)
    return Pairs(base, alternate, pick(base.choice_ids, (query + 1) % n_boxes), _SEGMENT)


def more_boxes_pairs(tokenizer: Any, base: PromptSet, seed: int) -> Pairs:
    """As `position_pairs`, with three boxes named before the segment asked for.

    Raises UserError unless their labels are three different tokens.
    """
    known = single_tokens(tokenizer, _MORE_BOXES, _MORE_BOXES_CONTEXTS)
    split = [f"“{word}”" for word in _MORE_BOXES if word not in known]
    if split or len({*known.values()}) < len(_MORE_BOXES):
        raise UserError(
            f"This tokenizer does not write {', '.join(split or _MORE_BOXES)} as one token each, "
            "which label the additional boxes. Choose another test, or a model whose tokenizer "
            "does."
        )
    one, two, three = _MORE_BOXES
    before = f"there are three additional boxes, Box {one}, Box {two} and Box {three}, "
    variant = Variant(Wording(queried=before + PLAIN.segment))
    name = "add_box_before_correct_segment"
    return position_pairs(tokenizer, base, seed, name, variant)


def _other_index(rng: np.random.Generator, base: PromptSet, *taken: Ints) -> Ints:
    """An index of a box in each base prompt [n], none of those `taken`, all others alike."""
    n, n_boxes = base.choice_ids.shape
    if n_boxes <= len(taken):
        raise UserError(
            f"This test needs at least {len(taken) + 1} boxes, and there are {n_boxes}. Choose "
            "more boxes."
        )
    order = rng.random((n, n_boxes))
    for indices in taken:
        np.put_along_axis(order, indices[:, None], 2.0, axis=1)
    return order.argmin(1)


def _alternate(
    tokenizer: Any,
    base: PromptSet,
    seed: int,
    name: str,
    query: Ints,
    label: WordTable | None = None,
    variant: Variant | None = None,
) -> PromptSet:
    """Prompts that ask for the box at `query` [n], with no object or label of the base.

    `label` [n], if it is given, is that box's. Raises UserError when the tokenizer has too few
    words, or does not know one that stands in them.
    """
    vocabulary, variant = usable_vocabulary(tokenizer), variant or Variant()
    objects_rng, labels_rng = generators(seed, name, 2)
    n, n_boxes = len(base), base.n_choices + (variant.extra is not None)
    drawn = base.drawn
    objects = draw_words(objects_rng, vocabulary.objects, "objects", n, n_boxes, drawn["objects"])
    labels = draw_words(labels_rng, vocabulary.labels, "labels", n, n_boxes, drawn["labels"])
    at = query + (variant.extra == "first")
    if label is not None:
        np.put_along_axis(labels, at[:, None], label[:, None], axis=1)
    boxes = Boxes(objects, labels, at, pick(labels, at), at)
    prompts = encode(tokenizer, vocabulary, base.task, boxes, seed, variant.wording)
    _check_known(tokenizer, prompts)
    return prompts


def _check_known(tokenizer: Any, prompts: PromptSet) -> None:
    """Raise UserError, naming them, if words of these prompts are unknown to the tokenizer."""
    if tokenizer.unk_token_id is None:
        return
    rows, tokens = np.nonzero(prompts.input_ids == tokenizer.unk_token_id)
    spans = prompts.spans[rows, tokens].tolist()
    found = (prompts.texts[row][a:b].strip() for row, (a, b) in zip(rows, spans, strict=True))
    if unknown := sorted({word for word in found if word}):
        raise UserError(
            f"This tokenizer does not know {', '.join(f'“{word}”' for word in unknown)}, which "
            "the alternate prompts have. Choose another test, or a model whose tokenizer does."
        )


def _of_position(
    name: str,
    label: str,
    text: str,
    variant: Variant | None = None,
    groups: tuple[str, ...] = ("B",),
) -> Desideratum:
    draw = partial(position_pairs, name=name, variant=variant or Variant())
    return Desideratum(name, label, "position", text, draw, groups)


_AS_POSITION = "Expected as for position."

DESIDERATA = (
    Desideratum(
        "object",
        "Object",
        "object",
        "The alternate has other objects and labels, and asks for a box at another index. Expected "
        "is the alternate’s own answer.",
        object_pairs,
    ),
    Desideratum(
        "label",
        "Label",
        "label",
        "The alternate asks for a label that the base has as well, at another box than the one it "
        "asks for. Expected is the base’s object in the box of that label.",
        label_pairs,
    ),
    _of_position(
        "position",
        "Position",
        "The alternate has other objects and labels, and asks for a box at another index. Expected "
        "is the base’s object at that index.",
        groups=(),
    ),
    _of_position(
        "random_text_start",
        "Text at the start",
        "The alternate begins: “There are a bunch of boxes containing objects, the …”. "
        + _AS_POSITION,
        Variant(Wording(start="there are a bunch of boxes containing objects, ")),
    ),
    _of_position(
        "random_text_end",
        "Text at the end",
        "The alternate’s context ends: “, these are a bunch of boxes containing objects.” "
        + _AS_POSITION,
        Variant(Wording(end=", these are a bunch of boxes containing objects")),
    ),
    _of_position(
        "add_tokens_btw_box_and_obj",
        "Words between object and box",
        "The segment asked for reads “the apple is contained in the Box F” in the alternate. "
        + _AS_POSITION,
        Variant(Wording(queried="the {object} is contained in the Box {label}")),
    ),
    _of_position(
        "add_seg_start",
        "One segment more, first",
        "The alternate has one more segment before all others, which its index does not count. "
        + _AS_POSITION,
        Variant(extra="first"),
    ),
    _of_position(
        "add_seg_end",
        "One segment more, last",
        "The alternate has one more segment after all others. " + _AS_POSITION,
        Variant(extra="last"),
    ),
    Desideratum(
        "add_box_before_correct_segment",
        "Boxes before the segment",
        "position",
        "“there are three additional boxes, Box PP, Box BB and Box AA,” stands before the segment "
        "asked for in the alternate. " + _AS_POSITION,
        more_boxes_pairs,
        ("B",),
    ),
    Desideratum(
        "incorrect_segment",
        "The next segment",
        "position",
        "The alternate is as for position, and expected is the base’s object at the index after "
        "that: it should not come true.",
        next_pairs,
        ("B",),
        control=True,
    ),
    _of_position(
        "altered_box_obj_order",
        "Box before object",
        "The segment asked for reads “Box F contains the apple” in the alternate. " + _AS_POSITION,
        Variant(Wording(queried="Box {label} contains the {object}")),
    ),
    _of_position(
        "altered_box_obj_association",
        "Object not in the box",
        "The segment asked for reads “the apple is not in Box F” in the alternate. " + _AS_POSITION,
        Variant(Wording(queried="the {object} is not in Box {label}")),
    ),
    _of_position(
        "no_comma",
        "No commas",
        "The alternate has no commas. " + _AS_POSITION,
        Variant(Wording(joint=" ")),
    ),
    _of_position(
        "add_comma",
        "More commas",
        "The alternate has a comma after every object: “the apple, is in Box F”. " + _AS_POSITION,
        Variant(
            Wording("the {object}, is in Box {label}", queried="the {object}, is in Box {label}")
        ),
    ),
)
"""The paper’s three, and its eleven tests of what a position is, called as in its data."""
