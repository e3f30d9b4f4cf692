"""The one error a user is meant to read, and what to tell of all others."""

from __future__ import annotations

_MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "bad_alloc")


class UserError(Exception):
    """Something the user can put right; the message ends with what to do next."""


class OutOfMemory(UserError):
    """Too many prompts at once for a device's memory."""


def explained(error: BaseException) -> str:
    """What went wrong and what to do next, in words for the screen."""
    if isinstance(error, UserError):
        return str(error)
    if is_out_of_memory(error):
        return (
            "The memory is full. Choose fewer prompts in the sidebar and start again; the models "
            "stay loaded."
        )
    return (
        f"This failed: {type(error).__name__}: {error}. Choose fewer prompts or another model, or "
        "try again."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on a GPU or the CPU."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(each in words for each in _MEMORY_WORDS)
    )
