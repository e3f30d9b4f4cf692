"""Entity tracking: what is in the box asked for (Prakash et al., ICLR 2024, experimental setup).

`The apple is in Box F, the computer is in Box Q. Box F contains the` -> `apple`
Everything here is NumPy and text: no torch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.entity_tracking_desiderata import DESIDERATA
from backend.tasks.entity_tracking_reading import read
from backend.tasks.entity_tracking_text import Boxes, draw_words, encode, pick
from backend.tasks.prompts import Prompts, PromptSet, generators
from backend.tasks.task import Group, Option, Position, Role, Task, Words
from backend.tasks.vocabulary import usable_vocabulary

MIN_BOXES, MAX_BOXES = 2, 10


def sample_prompts(tokenizer: Any, n: int, seed: int = 0, n_boxes: int = 7) -> PromptSet:
    """`n` prompts with distinct objects, distinct labels and a uniform query.

    The first prompts of a seed are the same for every `n`. Raises UserError for a number of boxes
    outside 2 to 10 and for a tokenizer that leaves too few one-token objects or labels.
    """
    Prompts(ENTITY_TRACKING, n, seed, (n_boxes,))  # raises for those that there cannot be
    vocabulary = usable_vocabulary(tokenizer)
    objects_rng, labels_rng, query_rng = generators(seed, "prompts", 3)
    objects = draw_words(objects_rng, vocabulary.objects, "objects", n, n_boxes)
    labels = draw_words(labels_rng, vocabulary.labels, "labels", n, n_boxes)
    query = query_rng.integers(n_boxes, size=n)
    boxes = Boxes(objects, labels, query, pick(labels, query), query)
    return encode(tokenizer, vocabulary, ENTITY_TRACKING, boxes, seed)


def counterfactual_prompts(
    tokenizer: Any, prompts: PromptSet, seed: int | None = None
) -> PromptSet:
    """The path-patching counterfactual of each prompt (Prakash et al., circuit discovery).

    Other objects, other labels and another query index; the label in the question is one that
    does not occur in the prompt. As it has no previous occurrence, `prev_query_label` is a random
    label of the prompt, which is what stage D patches from. The seed is the prompts' own unless
    given. Raises UserError when the tokenizer leaves too few words for two prompts.
    """
    seed = prompts.seed if seed is None else seed
    n, n_boxes = len(prompts), prompts.n_choices
    vocabulary = usable_vocabulary(tokenizer)
    objects_rng, labels_rng, query_rng = generators(seed, "counterfactual", 3)
    objects = draw_words(
        objects_rng, vocabulary.objects, "objects", n, n_boxes, prompts.drawn["objects"]
    )
    drawn = draw_words(
        labels_rng, vocabulary.labels, "labels", n, n_boxes + 1, prompts.drawn["labels"]
    )
    labels, absent = drawn[:, :n_boxes], drawn[:, n_boxes]
    shift, previous = query_rng.integers((1, 0), (n_boxes, n_boxes), size=(n, 2)).T
    query = (prompts.drawn["query"] + shift) % n_boxes
    boxes = Boxes(objects, labels, query, absent, previous)
    return encode(tokenizer, vocabulary, ENTITY_TRACKING, boxes, seed)


def reference_prompts(tokenizer: Any, n: int, seed: int = 0, n_boxes: int = 7) -> PromptSet:
    """Prompts over which head outputs are averaged for a knock-out.

    They are drawn independently of the prompts of every seed, and ask for a label that does not
    occur in them (Prakash et al., circuit evaluation).
    """
    Prompts(ENTITY_TRACKING, n, seed, (n_boxes,))  # raises for those that there cannot be
    vocabulary = usable_vocabulary(tokenizer)
    objects_rng, labels_rng, query_rng = generators(seed, "reference", 3)
    objects = draw_words(objects_rng, vocabulary.objects, "objects", n, n_boxes)
    drawn = draw_words(labels_rng, vocabulary.labels, "labels", n, n_boxes + 1)
    query = query_rng.integers(n_boxes, size=n)
    labels, absent = drawn[:, :n_boxes], drawn[:, n_boxes]
    boxes = Boxes(objects, labels, query, absent, query)
    return encode(tokenizer, vocabulary, ENTITY_TRACKING, boxes, seed)


def _length(n_boxes: int) -> int:
    return 7 * n_boxes + 5


@lru_cache(maxsize=8)
def _note(tokenizer: Any) -> str:
    return usable_vocabulary(tokenizer).note


ENTITY_TRACKING = Task(
    name="entity-tracking",
    title="Entity tracking",
    source="Prakash et al., ICLR 2024, arXiv:2402.14811",
    text="Each prompt puts objects into boxes and asks for one of them: `The apple is in Box F, "
    "the computer is in Box Q. Box F contains the` is to be followed by `apple`.",
    words=Words("the right object", "another box’s object", "the other boxes’ objects"),
    positions=(
        Position("prev_query_label", "at the previous label", "previous “{}”"),
        Position("query_label", "at the query’s label", "query “{}”", tail=3),
        Position("last", "at the last token", "last “{}”", tail=1),
    ),
    groups=(
        Group(
            "A", "Value Fetcher", "last", "logits", (), "#D55E00", "circle", 8,
            "Attends to the right object from the last token and copies its value to the logits.",
        ),
        Group(
            "B", "Position Transmitter", "last", "q", ("A",), "#0072B2", "square", 6,
            "Attends to the query’s label from the last token, and tells A where to look.",
        ),
        Group(
            "C", "Position Detector", "query_label", "v", ("B",), "#009E73", "triangle", 4,
            "At the label in the question: finds its first occurrence and picks up where it "
            "stands.",
        ),
        Group(
            "D", "Structure Reader", "prev_query_label", "v", ("C",), "#CC79A7", "diamond", 4,
            "At the first occurrence of the label asked for: reads the segment around it.",
        ),
    ),
    roles=(
        Role("object", "object", target="other objects"),
        Role("label", "label", target="other labels"),
        Role("last", "last token", "B"),
        Role("query_label", "label asked for", "C", "the label in the question"),
        Role(
            "prev_query_label", "label asked for, first time", "D",
            "the label asked for, in the context",
        ),
        Role("correct_object", "correct object", "A", "the right object"),
    ),
    options=(Option("boxes", "Boxes in each prompt", MIN_BOXES, MAX_BOXES, 7),),
    sample=sample_prompts,
    counterfactual=counterfactual_prompts,
    reference=reference_prompts,
    length=_length,
    note=_note,
    read=read,
    desiderata=DESIDERATA,
    edges=(
        AttentionEdge("last", "correct_object"),
        AttentionEdge("last", "query_label"),
        AttentionEdge("query_label", "prev_query_label"),
        AttentionEdge("last", RANDOM),
        AttentionEdge("query_label", RANDOM),
    ),
)  # fmt: skip
