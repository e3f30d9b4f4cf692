"""Who uses the dashboard: what they are called in the log, and what a read-only one grants them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from backend.core.read_only import Refused, is_read_only
from shell.frame.words import unmarked

_A_MINUTE, _AT_MOST = 60.0, 10
_REFUSED, _BEGUN = "refused", "preparations_begun"


def visitor() -> str:
    """A session for the log: its address, and the beginning of its number."""
    context = get_script_run_ctx()
    session = context.session_id[:8] if context else "none"
    return f"{st.context.ip_address or 'localhost'} {session}"


def spend_a_preparation() -> None:
    """Count a preparation that this visitor begins; raises Refused where there were too many."""
    if not is_read_only():
        return
    now = monotonic()
    begun = [when for when in st.session_state.get(_BEGUN, []) if now - when < _A_MINUTE]
    if len(begun) >= _AT_MOST:
        raise Refused(
            f"You have asked for {_AT_MOST} other models or prompts within a minute. Wait a "
            "moment, then choose again."
        )
    st.session_state[_BEGUN] = [*begun, now]


@contextmanager
def telling_refusals() -> Iterator[None]:
    """Of what a click asks for: keep what is refused for the page to say."""
    try:
        yield
    except Refused as error:
        st.session_state[_REFUSED] = str(error)


def show_refusal() -> None:
    """Say once what the last click asked for in vain."""
    if said := st.session_state.pop(_REFUSED, None):
        st.warning(unmarked(said))
