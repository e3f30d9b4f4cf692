"""How far work is, and how long it will still take: one estimate for the whole, never backwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp

_LEAST_SHARE = 0.02
"""Of less, nothing can be told."""
_MEMORY_S = 60.0
"""What was done longer ago counts less: a rate that changes is followed, but smoothly."""


@dataclass(frozen=True)
class Pace:
    """Work that has done a share by some moment, and at which rate lately.

    at: seconds by a clock of this process. first: the first share above 0, up to which the engine
    started or earlier runs had come. done: share, and spent: seconds, both fading with age.
    """

    at: float = 0.0
    share: float = 0.0
    first: float = 0.0
    done: float = 0.0
    spent: float = 0.0

    def told(self, share: float, now: float) -> Pace:
        """The pace when the work says how far it is; a smaller share than before is no news."""
        if not self.share:
            return Pace(now, share, share)
        gained = max(0.0, share - self.share)
        if not gained:
            return self
        seconds = now - self.at
        fading = exp(-seconds / _MEMORY_S)
        return replace(
            self,
            at=now,
            share=self.share + gained,
            done=fading * self.done + gained,
            spent=fading * self.spent + seconds,
        )

    def seconds_left(self, now: float) -> float | None:
        """What is left at that rate; None while it is not known."""
        if self.share - self.first < _LEAST_SHARE:
            return None
        return max(0.0, (1 - self.share) * self.spent / self.done - (now - self.at))
