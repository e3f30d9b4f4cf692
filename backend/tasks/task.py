"""A task as data: its tokens, its groups of heads, and how its prompts are drawn (no torch).

The engine, the methods and the pages know no task: what they say and draw of one stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from backend.core.errors import UserError
from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.desiderata import Desideratum

if TYPE_CHECKING:
    from backend.tasks.prompts import PromptSet
    from backend.tasks.written import Written

Composition = Literal["logits", "q", "k", "v"]


@dataclass(frozen=True)
class Position:
    """A token at which heads of a circuit work, found in every prompt.

    words: “at the query’s label”; column: what stands above its column, with {} for the token's
    word; tail: tokens from it to the end, where every prompt has as many.
    """

    name: str
    words: str
    column: str
    tail: int | None = None


@dataclass(frozen=True)
class Group:
    """Heads that do one thing at one token.

    key: one to three capital letters; into: keys of the groups it writes into, of none when it
    writes into the logits; component: what of them receives, at this group's own token; size: how
    many heads are kept unless told otherwise; text: what it does, in a sentence.
    """

    key: str
    name: str
    position: str
    component: Composition
    into: tuple[str, ...]
    colour: str
    shape: str
    size: int
    text: str


@dataclass(frozen=True)
class Role:
    """What a token is in a prompt.

    group: the one whose colour it has; target: what heads are said to attend to there.
    """

    name: str
    words: str
    group: str | None = None
    target: str = ""


@dataclass(frozen=True)
class Option:
    """A number that the task's prompts depend on."""

    name: str
    words: str
    least: int
    most: int
    default: int


@dataclass(frozen=True)
class Words:
    """What the task's answers are called.

    answer: “the right object”; competitor: “another box’s object”; competitors: all of them.
    """

    answer: str
    competitor: str
    competitors: str


FIRST_TOKEN, OTHER_WORDS = "the first token", "other words"
"""Where heads look besides the targets of roles."""


@dataclass(frozen=True, eq=False)
class Task:
    """Prompts with named tokens and one right answer, and the groups that a circuit for it has.

    positions: where circuits work, in the order in which they stand in every prompt; groups: in
    the order of discovery, each after those that it writes into; roles: of tokens, the more
    specific ones later; sample(tokenizer, n, seed, *options), counterfactual(tokenizer, prompts,
    seed), reference(tokenizer, n, seed, *options) draw prompts; length(*options): tokens in a
    prompt, about; note(tokenizer): what its prompts leave out for this tokenizer, or nothing;
    read(text): a user's own prompt with its words named, None where it has not the task's form;
    source: where it is from; text: what the help says of it; desiderata: tests of what its groups
    encode, if it has any; edges: attention of one token to another that is cut unless told
    otherwise, between roles of which every prompt has one; content: a fingerprint of what a file
    says of it that decides about results, empty for a task that is code. Tasks of one name and
    other contents are different tasks; most: how many prompts there are, None where any number can
    be drawn.

    Raises ValueError for a group that writes into one that does not come before it.
    """

    name: str
    title: str
    source: str
    text: str
    words: Words
    positions: tuple[Position, ...]
    groups: tuple[Group, ...]
    roles: tuple[Role, ...]
    options: tuple[Option, ...]
    sample: Callable[..., PromptSet]
    counterfactual: Callable[..., PromptSet]
    reference: Callable[..., PromptSet]
    length: Callable[..., int]
    note: Callable[[Any], str]
    read: Callable[[str], Written | None] = lambda text: None
    desiderata: tuple[Desideratum, ...] = ()
    edges: tuple[AttentionEdge, ...] = ()
    content: str = ""
    most: int | None = None

    def __post_init__(self) -> None:
        known: set[str] = set()
        for group in self.groups:
            if not known.issuperset(group.into) or bool(group.into) == (
                group.component == "logits"
            ):
                raise ValueError(f"Group {group.key} writes into what does not come before it.")
            self.position(group.position)
            known.add(group.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and other.__to_json__() == self.__to_json__()

    def __hash__(self) -> int:
        return hash(self.__to_json__())

    def __to_json__(self) -> str:
        return f"{self.name}@{self.content}" if self.content else self.name

    @classmethod
    def __from_json__(cls, name: Any) -> Task:
        from backend.tasks.registry import task_named  # which imports the tasks themselves

        plain, _, content = str(name).partition("@")
        task = task_named(plain)
        if task.content != content:
            raise UserError(
                f"It was measured on “{plain}” as its file was before. Measure it again."
            )
        return task

    @property
    def family(self) -> str:
        """Its name without that of a set of prompts: circuits are for all tasks of a family."""
        return self.name.partition("/")[0]

    @cached_property
    def reading_order(self) -> tuple[Group, ...]:
        """The groups in an order in which information flows through them."""
        return tuple(reversed(self.groups))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Of its groups, in the order of discovery."""
        return tuple(group.key for group in self.groups)

    @cached_property
    def position_names(self) -> tuple[str, ...]:
        """Names of the tokens at which circuits work, in prompt order."""
        return tuple(position.name for position in self.positions)

    @cached_property
    def edge_tokens(self) -> tuple[str, ...]:
        """Names of the tokens between which attention can be cut, the random one left out."""
        of_edges = (name for edge in self.edges for name in edge if name != RANDOM)
        return (*dict.fromkeys((*of_edges, *self.position_names)),)

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """What heads are said to attend to, the most specific first."""
        named = dict.fromkeys(role.target for role in reversed(self.roles) if role.target)
        return (*named, FIRST_TOKEN, OTHER_WORDS)

    def group(self, key: str) -> Group:
        """The group with this key; raises KeyError if there is none."""
        return next((group for group in self.groups if group.key == key), None) or _missing(key)

    def desideratum(self, name: str) -> Desideratum:
        """The test with this name; raises KeyError if there is none."""
        return next((each for each in self.desiderata if each.name == name), None) or _missing(name)

    def token_words(self, name: str) -> str:
        """What a token is, in words: its role’s, or where it is; raises KeyError for no token."""
        if name == RANDOM:
            return "a random earlier token"
        role = next((role for role in self.roles if role.name == name), None)
        return role.words if role else self.position(name).words

    def position(self, name: str) -> Position:
        """The token with this name; raises KeyError if circuits do not work there."""
        return next((each for each in self.positions if each.name == name), None) or _missing(name)


def _missing(name: str) -> Any:
    raise KeyError(name)
