"""What names may be, before they become files or requests."""

from __future__ import annotations

import re

from backend.core.errors import UserError

_PLAIN_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
_HUB_NAME = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}", re.ASCII)


def plain_name(name: str) -> str:
    """The name, if it can be that of a file in every system; raises UserError otherwise."""
    if not _PLAIN_NAME.fullmatch(name):
        raise UserError(
            f"“{name}” cannot be used as a name. Choose another: up to 64 letters, digits, "
            "“-” and “_”."
        )
    return name


def is_hub_name(name: str) -> bool:
    """Whether this can be the name of a model on the Hugging Face hub, owner/name."""
    return bool(_HUB_NAME.fullmatch(name)) and ".." not in name
