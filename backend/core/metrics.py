"""What is measured of answers, how path patching scores, what replaces heads, where (no torch).

The first member of each is the paper's, and the default.
"""

from __future__ import annotations

from enum import Enum


class Metric(Enum):
    """What is read off the logits at the last token of a prompt."""

    accuracy = "accuracy"
    """Whether the right answer is the most probable of all tokens (Prakash et al., 2024)."""
    probability = "probability"
    """The probability of the right answer, from 0 to 1."""
    logit_difference = "logit_difference"
    """The right answer's logit less the mean logit of the answers it competes with: in logits.

    With one competitor it is the logit difference of Wang et al. (2023), also called logit diff.
    """


class Score(Enum):
    """What path patching says of a path; negative when the path matters to the right answer."""

    probability = "probability"
    """(p_patched − p_clean) / p_clean of the right answer: at least −1 (Prakash et al., 2024)."""
    logit_difference = "logit_difference"
    """Patched less clean logit difference, in logits (Wang et al., 2023).

    Not divided by the clean one, as it often is: that scales all heads alike, and means nothing
    where the clean difference is near zero or below.
    """


class Ablation(Enum):
    """What a head gives when it is knocked out."""

    mean = "mean"
    """Its mean over reference prompts at the same token (Prakash et al., 2024)."""
    zero = "zero"
    """Nothing: zeros. Other heads never see that in training; effects may be too large."""
    resample = "resample"
    """What it gives in the counterfactual of the same prompt (Chan et al., 2022).

    At the positions of the task, from the counterfactual's own such position, as activation
    patching and path patching do; at every other token, from the same token.
    """


class Tokens(Enum):
    """At which tokens the heads outside a circuit are knocked out."""

    every = "every"
    """At every token of the prompt (Prakash et al., 2024)."""
    named = "named"
    """At the tokens that the task names; at all others every head computes freely."""
