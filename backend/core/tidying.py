"""Memory that is no longer needed goes back: to Python, and from there to the system."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def tidy_up() -> None:
    """Free what was left behind in cycles, and let the collector pass over what stays.

    To walk through torch and a model takes a third of a second, in which no click is answered. Only
    after a collection is everything that is there meant to stay: what is frozen at other times may
    be garbage, and is then kept for good.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    give_back()


def give_back() -> None:
    """Give freed memory to the system: glibc keeps hundreds of megabytes after a few large runs."""
    with suppress(OSError, AttributeError):  # another libc does without
        ctypes.CDLL("libc.so.6").malloc_trim(0)
