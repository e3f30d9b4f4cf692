"""Words of others on the page: names, labels, notes, addresses, files, and messages about them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from backend.core.metrics import Metric

MEASURES: Mapping[Metric, str] = {
    Metric.accuracy: "Accuracy",
    Metric.probability: "P(right answer)",
    Metric.logit_difference: "Logit difference",
}
"""What a control calls them."""
_MARKS = re.compile(r"[\\`*_\[\]|$~<>&]")
_START_OF_A_LIST = re.compile(r"^(\d{0,9})(?=[#+.)-])")
# Streamlit looks for links, icons and arrows in what is left when Markdown has been read.
_READ_LATER = re.compile(
    r":(?=[^\s\d]|\d+:)|@(?=\S)|www(?=\.)|(?<!\S)[-<>~](?=(->|>|-|=)(?!\S))", re.IGNORECASE
)
_JOINER = "\N{WORD JOINER}"
_UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


def unmarked(words: object) -> str:
    """The words as one line of Markdown that shows them as they are: no picture, link, formula,
    icon or colour. Where a link or an icon would begin, a joiner that is not seen keeps it apart.
    """
    line = "".join(c if c.isprintable() else _UNPRINTABLE for c in " ".join(str(words).split()))
    apart = _READ_LATER.sub(rf"\g<0>{_JOINER}", line)
    return _START_OF_A_LIST.sub(r"\1\\", _MARKS.sub(r"\\\g<0>", apart))
