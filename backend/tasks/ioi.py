"""Indirect object identification: who gets what is given (Wang et al., ICLR 2023, section 2).

`When Mary and John drove to the museum, John delivered a book to` -> `Mary`
S, the subject, is the name that comes twice (S1, S2), and IO, the indirect object, the other one.
IO comes first (ABB) as often as S (BAB). All templates have one skeleton, so that a set mixes them
and tokens align; of a tokenizer that writes some of their words in pieces, those templates are left
that have their names at the most common places and the most common length. NumPy and text: no
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.ioi_desiderata import DESIDERATA
from backend.tasks.ioi_reading import read
from backend.tasks.ioi_text import encode, enough_words, usable_vocabulary
from backend.tasks.prompts import PromptSet, check_size, distinct_words, generators
from backend.tasks.task import Group, Position, Role, Task, Words


def sample_prompts(tokenizer: Any, n: int, seed: int = 0) -> PromptSet:
    """`n` prompts, each of a random template, in random order, with random words.

    The first prompts of a seed are the same for every `n`. `drawn` has `names` [n, 3], IO, S1 and
    S2, `places` and `objects` [n], `templates` [n], and `io_first` [n], whether the order is ABB.
    Raises UserError for a tokenizer that leaves too few one-token words.
    """
    return _drawn(tokenizer, n, seed, "prompts", n_names=2)


def reference_prompts(tokenizer: Any, n: int, seed: int = 0) -> PromptSet:
    """Prompts over which head outputs are averaged for a knock-out: three names each (ABC).

    They are drawn independently of the prompts of every seed (Wang et al., section 2.2).
    """
    return _drawn(tokenizer, n, seed, "reference", n_names=3)


def counterfactual_prompts(
    tokenizer: Any, prompts: PromptSet, seed: int | None = None
) -> PromptSet:
    """Each prompt with three unrelated names (ABC), none of them its own, and all else the same.

    Tokens keep their places: IO and S1 are the first two names, in the prompt's order, S2 the
    third (Wang et al., section 3.1). The seed is the prompts' own unless given.
    """
    seed = prompts.seed if seed is None else seed
    vocabulary = enough_words(tokenizer)
    (names_rng,) = generators(seed, "counterfactual", 1)
    names = distinct_words(names_rng, vocabulary.names, len(prompts), 3, prompts.drawn["names"])
    return encode(tokenizer, vocabulary, IOI, {**prompts.drawn, "names": names}, seed)


def _drawn(tokenizer: Any, n: int, seed: int, purpose: str, n_names: int) -> PromptSet:
    check_size(n, seed)
    vocabulary = enough_words(tokenizer)
    names_rng, *others = generators(seed, purpose, 5)
    names = distinct_words(names_rng, vocabulary.names, n, n_names)
    pools: tuple[Sequence[Any], ...] = (
        vocabulary.templates,
        [*vocabulary.places],
        [*vocabulary.objects],
        [False, True],
    )
    templates, places, objects, io_first = (
        np.array(pool)[rng.integers(len(pool), size=n)]
        for rng, pool in zip(others, pools, strict=True)
    )
    drawn = {
        "names": names[:, [0, 1, n_names - 1]],
        "templates": templates,
        "places": places,
        "objects": objects,
        "io_first": io_first,
    }
    return encode(tokenizer, vocabulary, IOI, drawn, seed)


def _length() -> int:
    return 14


def _note(tokenizer: Any) -> str:
    return usable_vocabulary(tokenizer).note


IOI = Task(
    name="ioi",
    title="Indirect object identification",
    source="Wang et al., ICLR 2023, arXiv:2211.00593",
    text="Two people are named, and one of them, S, gives something to the other, the indirect "
    "object IO: `When Mary and John drove to the museum, John delivered a book to` is to be "
    "followed by `Mary`. IO comes first in about half of the prompts. The counterfactual has three "
    "unrelated names in the same sentence. All sentences have one skeleton, so that a set of "
    "prompts mixes them; of a tokenizer that writes some in more tokens, those of the most common "
    "length are used.",
    words=Words("the indirect object", "the subject", "the subject"),
    positions=(
        Position("s1_plus_1", "at the token after S1", "S1 + 1 “{}”"),
        Position("s2", "at S2", "S2 “{}”", tail=5),
        Position("end", "at the last token", "end “{}”", tail=1),
    ),
    groups=(
        Group(
            "NM", "Name Mover", "end", "logits", (), "#D55E00", "circle", 6,
            "Attends to the indirect object from the last token and copies the name to the logits. "
            "A head with a positive score, a negative name mover, writes against the answer.",
        ),
        Group(
            "SI", "S-Inhibition", "end", "q", ("NM",), "#0072B2", "square", 4,
            "Attends to S2 from the last token, and tells the name movers which name to avoid.",
        ),
        Group(
            "IN", "Induction and Duplicate Token", "s2", "v", ("SI",), "#009E73", "triangle", 5,
            "Notices that the name was there before. Induction heads attend to S1 + 1, "
            "duplicate token heads to S1; both write into the same values, and path patching alone "
            "cannot tell them apart.",
        ),
        Group(
            "PT", "Previous Token", "s1_plus_1", "k", ("IN",), "#CC79A7", "diamond", 3,
            "Says which name came before, so that induction heads find it.",
        ),
    ),
    roles=(
        Role("place", "place"),
        Role("object", "object"),
        Role("end", "last token", "SI"),
        Role("s1_plus_1", "token after S1", "PT", "S1 + 1"),
        Role("s1", "subject, first time (S1)", target="S1"),
        Role("s2", "subject, second time (S2)", "IN", "S2"),
        Role("io", "indirect object (IO)", "NM", "IO"),
    ),
    options=(),
    sample=sample_prompts,
    counterfactual=counterfactual_prompts,
    reference=reference_prompts,
    length=_length,
    note=_note,
    read=read,
    edges=(
        AttentionEdge("end", "io"),
        AttentionEdge("end", "s2"),
        AttentionEdge("s2", "s1"),
        AttentionEdge("s2", "s1_plus_1"),
        AttentionEdge("end", RANDOM),
        AttentionEdge("s2", RANDOM),
    ),
    desiderata=DESIDERATA,
)  # fmt: skip
"""Groups as in the paper's figure 2; its induction and duplicate token heads are one group."""
