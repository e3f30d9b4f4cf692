"""Talks: views that were kept, in order; give one, change it, take it along."""

from __future__ import annotations

import shell

shell.enter()

from shell.frame import state
from shell.talk import editing

if name := editing.choose():
    editing.show(name)
state.write_address()
