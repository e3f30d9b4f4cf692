"""The circuit as it stands on the page, to take home."""

from __future__ import annotations

from circuitviz.picture import Picture
from shell.frame.take_home import Origin, picture_files, show_button
from shell.frame.view import View


def show_files(picture: Picture, view: View) -> None:
    """A button with all that there is of the circuit behind it."""
    origin = Origin("circuit", (view.model,), view.prompts)
    n_switched = len(view.off | view.switched)
    what = f"{view.circuit} {n_switched} switched" if n_switched else view.circuit
    show_button("circuit", lambda: picture_files(picture, origin, what, view.switches))
