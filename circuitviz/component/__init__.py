"""The clickable circuit as a Streamlit component: plain HTML, CSS and JavaScript, no build step.

The browser owns the clicks, Python owns everything else. Each click has a sequence number, and each
message carries the *whole* state after every click that Python has not served yet; Python answers
with the number that it has served, and the browser takes over Python's state only when nothing
newer is on its way, or when the epoch changed (reset, undo, a deep link: anything that Python
decided).

Where there is an address to ask, the figures of a click are fetched from there and handed to the
figures component; Python's turn to draw the page comes after that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from backend.core.errors import UserError
from backend.core.heads import Head
from circuitviz.component_files import CSS, HTML, SCRIPT
from circuitviz.graph import NodeKey
from circuitviz.picture import Picture, node_id

_GROUP_KEY = re.compile(r"[A-Z]{1,3}")

_mount = st.components.v2.component("circuit", html=HTML, css=CSS, js=SCRIPT)


@dataclass(frozen=True)
class Step:
    """The state of all switches after the click with this sequence number."""

    sequence: int
    off: frozenset[NodeKey]
    switched: frozenset[NodeKey] = frozenset()


@dataclass(frozen=True)
class Message:
    """The clicks that Python had not served, one or more, the last one last.

    looked_at: the head of which more is wanted, if the last was that kind of click.
    """

    epoch: int
    steps: tuple[Step, ...]
    looked_at: NodeKey | None = None

    def news(self, served_sequence: int, epoch: int) -> tuple[Step, ...]:
        """The steps that Python has not acted on yet; none if it has overruled them."""
        if self.epoch != epoch:
            return ()
        return tuple(step for step in self.steps if step.sequence > served_sequence)


def circuit_component(
    picture: Picture,
    *,
    off: frozenset[NodeKey] = frozenset(),
    switched: frozenset[NodeKey] = frozenset(),
    served_sequence: int = 0,
    epoch: int = 0,
    key: str,
    height: str,
    large: bool = False,
    figures_address: str = "",
    on_change: Callable[[], None] = lambda: None,
) -> Message | None:
    """Show the circuit, ``height`` (a CSS length) high, and return what was switched last.

    ``large`` is for a lecture hall: everything in it grows with the screen, without a legend.
    ``figures_address`` answers a POST with what the figures component shows; it ends in a query, to
    which ``off`` and ``switched`` are added.
    """
    result = _mount(
        key=key,
        data={
            **picture.data,
            "off": sorted(map(node_id, off)),
            "switched": sorted(map(node_id, switched)),
            "served": served_sequence,
            "epoch": epoch,
            "cssHeight": height,
            "large": large,
            "figuresAddress": figures_address,
        },
        on_message_change=on_change,
    )
    message = parse_message(result.get("message"))
    if message and all(
        step.off <= picture.members and step.switched <= picture.outside for step in message.steps
    ):
        return message
    return None


def parse_message(raw: object) -> Message | None:
    """Read what the browser sent; anything malformed is no message."""
    if not isinstance(raw, dict) or type(raw.get("epoch")) is not int:
        return None
    sent = raw.get("steps")
    steps = [_parse_step(step) for step in sent] if isinstance(sent, list) else []
    if not steps or None in steps:
        return None
    known = tuple(step for step in steps if step)
    return Message(raw["epoch"], known, _parse_head(raw.get("lookedAt")))


def _parse_step(raw: object) -> Step | None:
    if not isinstance(raw, dict):
        return None
    sequence = raw.get("sequence")
    off, switched = _parse_heads(raw.get("off")), _parse_heads(raw.get("switched"))
    if type(sequence) is not int or sequence < 0 or off is None or switched is None:
        return None
    return Step(sequence, off, switched)


def _parse_heads(raw: object) -> frozenset[NodeKey] | None:
    if not isinstance(raw, list):
        return None
    keys = [_parse_head(item) for item in raw]
    return None if None in keys else frozenset(key for key in keys if key)


def _parse_head(raw: object) -> NodeKey | None:
    key, _, name = raw.partition(" ") if isinstance(raw, str) else ("", "", "")
    if not _GROUP_KEY.fullmatch(key):
        return None
    try:
        return key, Head.parse(name)
    except UserError:
        return None
