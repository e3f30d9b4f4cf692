"""The page's help: what the task and its groups are, and what the numbers mean."""

from __future__ import annotations

import streamlit as st

from backend.tasks.task import Group, Task

_TEXT = """
**The task**: {title} ({source}). {text} The model answers right if its next token is {answer}.

**The circuit**. A small set of attention heads in groups, each working at one token:
{groups}

**Score** (path patching; Prakash et al., circuit discovery). How much the probability of the right
answer changes, relative to the untouched run, when only this head's path to the groups it feeds
comes from a counterfactual prompt; mean over prompts. Negative: the head helps. Positive: it
hinders, and is marked in blue. Bigger shapes have bigger scores, on one scale for all groups.
**z** is the score in standard errors. Discover also scores by the change of the logit difference,
in logits (Wang et al., 2023), which is not the paper’s.

**Which heads are found.** Of many heads that do nothing, some score below zero by luck. Discover
keeps a head only if it is clear among all that were tried in its stage, at a false discovery rate
that you choose (Benjamini and Hochberg 1995, on one-sided t tests over prompts), and then the
strongest. A group without such a head stays empty, and the groups before it are not searched:
there is nothing to feed. Where the model is sure of its answers (mean probability 0.99 or more),
the score is saturated, and only heads below −0.05 count. The prompts are those that the model
answers right: of a model that guesses, they are its lucky ones, and what made it lucky there can
be clear without being a mechanism.

**Knock out** (Prakash et al., circuit evaluation). The head's output is replaced by its **mean**
over reference prompts, drawn independently of the prompts that are scored. Not the paper’s: by
**zeros**, or by its **counterfactual** value, what it gives on another prompt of the same form, of
which the answer is another (resample ablation; Chan et al., 2022).

**Circuit only / whole model minus heads.** In the first, everything outside the circuit is
knocked out at every token, in the same way: do these heads *suffice*? In the second, only the heads
that you switch off are replaced: are they *needed*?

**Faithfulness** (circuit evaluation). Accuracy of the circuit alone divided by
accuracy of the whole model. Undefined where the model is not above chance.

**Measure.** Accuracy is the paper’s. Others are the probability of {answer}, and the logit
difference: its logit less the mean logit of {competitors} (Wang et al., 2023). Faithfulness is then
the quotient of that, undefined where it is not clearly above zero for the whole model.

**Contributions.** What a head adds at the last token to the logit difference, directly, with the
final norm’s scale held (direct logit attribution). What it does through other heads is not in it;
the score is about paths, so the two need not agree.

**Chance**. Accuracy counts the first answer among all tokens. What can be guessed is {answer}
among {competitors}: beside that chance stands how often the right answer is ahead of the others. A
model is above chance when its interval lies above that.

**Intervals** are 95 %. Of right and wrong answers they are score intervals (Wilson's for
accuracies, Nam and Blackwelder's for ratios), of scores, edges and logit differences Student's, of
ratios of means Fieller's. A ratio is undefined
with fewer than 6 right answers below the line. Two models differ *clearly* when McNemar's exact
test says so. Where many heads, edges or pairs are tested at once, what is called clear is corrected
for it.

**Take home.** Below each picture, chart and table: pictures as SVG, PNG or PDF in the colours of
the page, with the heads switched as they are and words as text; tables as CSV with every digit, as
Markdown or LaTeX. The Circuit page also has one HTML file that stays clickable without a server,
with every head, pair of heads and group knocked out beforehand. It has the circuit as GraphML, as
an attribution graph in Neuronpedia’s JSON, and as BibTeX too, as does Discover. A file’s name says
the page, what it is, model, task, prompts and seed.

**Keys.** Tab enters the graph, arrows move between heads, space switches, A shows the attention of
a head, as a double click does. Ctrl+Z undoes, Ctrl+Y redoes. P presents: the page for a lecture
hall, without what an audience need not see. P or Escape leads back.

**A talk**. *Add to talk*, in the sidebar of every page, keeps what is shown; the Talks page puts
views in order and gives them. Page Down and Page Up, as clickers send them, step through, and so do
arrows; Home begins anew; B brings a step back after clicks in it.

Sections are those of Prakash et al., *Fine-Tuning Enhances Existing Mechanisms: A Case Study on
Entity Tracking*, ICLR 2024, arXiv:2402.14811. The bundled models are tiny and were trained to be
studied; their cards (`backend/bundled/weights/*/README.md`) say how, and what they do and do not
say about Llama-7B.
"""


def show_help(task: Task) -> None:
    """A button that opens the help over the page."""
    asked = st.session_state.setdefault("tour_asked", 0)
    # Under another key it is a new one, which is closed.
    with st.popover("Help", key=f"help_{asked}"):
        if st.button("Show the tour"):
            st.session_state["tour_asked"] = asked + 1
            st.rerun()  # all of it: the help is in a fragment
        st.markdown(
            _TEXT.format(
                title=task.title,
                source=task.source,
                text=task.text,
                answer=task.words.answer,
                competitors=task.words.competitors,
                groups="\n".join(f"- {_about(task, group)}" for group in task.reading_order),
            )
        )


def _about(task: Task, group: Group) -> str:
    into = " and ".join(group.into)
    received = {"q": "queries (q)", "k": "keys (k)", "v": "values (v)"}.get(group.component)
    writes = f"Writes into the {received} of {into}." if received else "Writes into the answer."
    return (
        f"**{group.key}, {group.name}**, {task.position(group.position).words}. {group.text} "
        f"{writes}"
    )
