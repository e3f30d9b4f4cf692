"""Everything that was measured: look at it, compare two, take it elsewhere, delete it."""

from __future__ import annotations

import shell

shell.enter()

from backend.studies import store
from shell.frame import state
from shell.results import results

found = store.entries()
results.show_title()
chosen = results.choose(found)
results.show_actions(chosen)
if len(chosen) == 1:
    results.show_one(chosen[0])
elif len(chosen) == 2:
    results.show_two(*chosen)
state.write_address()
