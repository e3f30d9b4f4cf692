"""The clickable circuit as a Streamlit component: plain HTML, CSS and JavaScript, no build step.

The browser owns the clicks, Python owns everything else. Each message carries the *whole* state
and a sequence number; Python answers with the number it has served, and the browser takes over
Python's state only when nothing newer is on its way, or when the epoch changed (reset, undo, a
deep link: anything that Python decided).
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
class Message:
    """The state of all switches after the click with this sequence number.

    looked_at: the head of which more is wanted, if it was that kind of click.
    """

    sequence: int
    epoch: int
    off: frozenset[NodeKey]
    switched: frozenset[NodeKey] = frozenset()
    looked_at: NodeKey | None = None

    def is_news(self, served_sequence: int, epoch: int) -> bool:
        """Whether Python has not acted on this message yet, nor overruled it."""
        return self.epoch == epoch and self.sequence > served_sequence


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
    on_change: Callable[[], None] = lambda: None,
) -> Message | None:
    """Show the circuit, ``height`` (a CSS length) high, and return the last thing switched.

    ``large`` is for a lecture hall: everything in it grows with the screen, without a legend.
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
        },
        on_message_change=on_change,
    )
    message = parse_message(result.get("message"))
    if message and message.off <= picture.members and message.switched <= picture.outside:
        return message
    return None


def parse_message(raw: object) -> Message | None:
    """Read what the browser sent; anything malformed is no message."""
    if not isinstance(raw, dict):
        return None
    sequence, epoch = raw.get("sequence"), raw.get("epoch")
    off, switched = _parse_heads(raw.get("off")), _parse_heads(raw.get("switched", []))
    if type(sequence) is not int or type(epoch) is not int or sequence < 0:
        return None
    if off is None or switched is None:
        return None
    return Message(sequence, epoch, off, switched, _parse_head(raw.get("lookedAt")))


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
