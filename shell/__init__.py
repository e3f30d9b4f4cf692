"""What every page shares: page config, navigation, the sidebar, and the state behind the address.

`app.py` calls `main`, every page begins with `enter`. Until `st.navigation` has run once in a
server process, Streamlit starts files in `pages/` on their own, without `app.py`: `enter` notices
and hands over to `main`.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from backend.core.priority import urgent
from shell.frame import cluster_models, presenting, sidebar, state, visitors
from shell.talk import adding, stepping

_PAGES = Path(__file__).parent.parent / "pages"
_STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def main() -> None:
    """Configure the page, restore the state from the address, and run the chosen page."""
    st.set_page_config(
        page_title="Circuit explorer", page_icon="🔎", layout="wide", initial_sidebar_state=254
    )
    st.html(f"<style>{_STYLE}{presenting.STYLE}</style>")
    state.restore()
    stepping.arrive()
    presenting.show_way_out()
    page = st.navigation(
        [
            st.Page(_PAGES / "circuit.py", title="Circuit", default=True),
            st.Page(_PAGES / "prompt.py", title="Prompt"),
            st.Page(_PAGES / "compare.py", title="Compare"),
            st.Page(_PAGES / "cmap.py", title="CMAP"),
            st.Page(_PAGES / "discover.py", title="Discover"),
            st.Page(_PAGES / "function.py", title="Function"),
            st.Page(_PAGES / "attention.py", title="Attention"),
            st.Page(_PAGES / "logits.py", title="Logits"),
            st.Page(_PAGES / "results.py", title="Results"),
            st.Page(_PAGES / "paper.py", title="Paper"),
            st.Page(_PAGES / "models.py", title="Models"),
            st.Page(_PAGES / "talks.py", title="Talks"),
            st.Page(_PAGES / "speaker.py", title="Speaker view", visibility="hidden"),
        ],
        position="top",
    )
    name = page.url_path or "circuit"
    if to_open := stepping.page_to_open(name):
        st.switch_page(to_open, query_params=state.address())
    sidebar.show()
    visitors.show_refusal()
    with st.sidebar:
        if page.url_path:
            presenting.offer()
        stepping.show_in_sidebar()
        adding.offer(name, page.title)
    cluster_models.wait_for(st.session_state["model"])
    st.session_state["entered"] = True
    try:
        with urgent():
            page.run()
    finally:
        st.session_state["entered"] = False
        stepping.prepare_next()


def enter() -> None:
    """The first line of a page: go through `main` if the page was started without it."""
    if not st.session_state.get("entered", False):
        main()
        st.stop()
