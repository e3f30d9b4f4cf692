"""What runs cost before they begin, counted in tokens that pass a layer (no torch).

Rows of different kinds of runs cost alike in this unit, so the share of it that is done is also the
share of the time, in any model: one bar and one estimate serve the whole of a study.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from backend.core.heads import Site
from backend.tasks.task import Group, Position


@dataclass(frozen=True)
class Scale:
    """What the cost of a model's runs depends on: its size, tokens in a prompt, and where."""

    n_layers: int
    n_heads: int
    length: int
    positions: tuple[Position, ...]

    def runs(self, n: int) -> float:
        """`n` prompts run whole."""
        return n * self.length * self.n_layers

    def circuits(self, n: int, k: int) -> float:
        """`k` circuits on `n` prompts, over cached positions: the task's tokens each.

        That is the most: layers in which they are what has run already cost nothing.
        """
        return k * n * self._rerun(len(self.positions), 0)

    def patches(self, n: int, sets: Iterable[Collection[Site]]) -> float:
        """Each set of sites patched on `n` prompts: layers and tokens from its first site on."""
        return n * sum(map(self._patch, sets))

    def knockouts(self, n: int, query: str, first_layers: Iterable[int]) -> float:
        """A token's attention cut on `n` prompts, from each of these layers on."""
        rows = self._tokens(query)
        return n * sum(self._rerun(rows, layer) for layer in first_layers)

    def every_head(self, n: int, position: str) -> float:
        """Every single head patched on `n` prompts at one token."""
        rows = self._tokens(position)
        by_layer = (self._rerun(rows, layer) for layer in range(self.n_layers))
        return n * self.n_heads * sum(by_layer)

    def senders(
        self, group: Group, receiving: Collection[int], n_tokens: int | None = None
    ) -> dict[int, float]:
        """All heads of a layer as senders to receivers in these layers: by layer, on one prompt.

        At most `n_tokens` of it run again, if that is given. Layers below no receiver send nothing,
        and are left out.
        """
        if group.component == "logits":
            return {layer: self.n_heads * (self.n_layers - layer) for layer in range(self.n_layers)}
        top, rows = max(receiving, default=0), self._rerun_tokens(group, n_tokens)

        def cost(layer: int) -> float:
            first = min(each for each in receiving if each > layer)
            return self.n_heads * (top - layer + self._rerun(rows, first))

        return {layer: cost(layer) for layer in range(top)}

    def gradients(
        self,
        n: int,
        group: Group,
        receiving: Collection[int],
        steps: int,
        n_tokens: int | None = None,
    ) -> float:
        """Attribution patching of `n` prompts: all heads at once, forward and back.

        `n_tokens` as in `senders`. A backward pass costs about two forward ones.
        """
        top, rerun = self.n_layers, 0.0
        if group.component != "logits":
            top = max(receiving, default=0)
            above = [layer for layer in receiving if layer > 0]
            rows = self._rerun_tokens(group, n_tokens)
            rerun = self._rerun(rows, min(above)) if above else 0.0
        return 3 * n * max(steps, 1) * (top + rerun)

    def reruns_all(self, group: Group, n_tokens: int) -> bool:
        """Whether, as far as is known before, only so many tokens run again for a group anyway."""
        return group.component == "logits" or self._tokens(group.position) <= n_tokens

    def _patch(self, sites: Collection[Site]) -> float:
        if not sites:
            return 0
        first_layer = min(site.head.layer for site in sites)
        rows = max(self._tokens(site.position) for site in sites)
        return self._rerun(rows, first_layer)

    def _rerun(self, rows: float, first_layer: int) -> float:
        """Some rows of a prompt from a layer on; of the last layer, the last token is enough."""
        return rows * (self.n_layers - 1 - first_layer) + 1

    def _rerun_tokens(self, group: Group, n_tokens: int | None) -> float:
        rows = self._tokens(group.position)
        return rows if n_tokens is None else min(rows, n_tokens)

    def _tokens(self, position: str) -> float:
        """From a token to the end; one without a tail may be anywhere."""
        tails = {each.name: each.tail for each in self.positions}
        return tails.get(position) or self.length / 2
