# %% [markdown]
# # From a model to a circuit to a picture
#
# This notebook finds the circuit with which a small language model answers
#
# > The apple is in Box F, the computer is in Box Q, … . Box F contains the → `apple`
#
# and draws it. The model comes with the project and runs on a laptop. To use one of your own, give
# `load` a folder, a hub name, or a model object and its tokenizer.
#
# `pip install -e ".[app]"` in a checkout brings all that is needed.

# %%
import backend as ce
from circuitviz.svg import circuit_svg

model = ce.load("base")
model.shape

# %% [markdown]
# ## The task
#
# A task is a value: its prompts, the tokens at which circuits work (positions), and the groups of
# heads that a circuit for it has, in the order in which they are looked for.

# %%
prompts = ce.sample(model, "entity-tracking", n=100, seed=0, boxes=7)
print(prompts.texts[0])
for group in prompts.task.groups:
    print(f"{group.key}  {group.name}: {prompts.task.position(group.position).words}")

# %% [markdown]
# How often is the model right, and how sure is it?

# %%
whole = ce.answers(model, prompts)
print(f"accuracy {whole.correct.mean():.2f}, probability {whole.probability.mean():.2f}")

# %% [markdown]
# ## Activation patching, one head at a time
#
# Each head of the last layer gives, at the last token, what it gives on a counterfactual prompt,
# with another answer. How much less likely is the right answer then?

# %%
other = ce.record_heads(model, ce.counterfactual(model, prompts))
last_layer = model.shape.n_layers - 1
for index in range(model.shape.n_heads):
    head = ce.Head(last_layer, index)
    patched = ce.patch(model, prompts, [ce.Site(head, "last")], other)
    print(f"{head}  {(patched.probability - whole.probability).mean():+.3f}")

# %% [markdown]
# ## The circuit
#
# Path patching asks the same of paths: first those from each head straight to the logits, then
# those into the heads that were found, group by group.

# %%
circuit = ce.discover(model, prompts)
for group in prompts.task.groups:
    print(group.key, *circuit.heads(group.key))

# %% [markdown]
# Does it do the task alone, with every other head at its mean? On other prompts: on those it was
# found on, a circuit looks better than it is. Beside it stands the circuit that comes with the
# project, which was chosen out of many more heads, by what each adds.

# %%
others = ce.sample(model, "entity-tracking", n=100, seed=1)
for each in (circuit, ce.load_circuit("base")):
    share = ce.faithfulness(model, others, each)
    print(f"{each.name}, {len(each.sites)} sites: {share.value:.2f}", end=" ")
    print(f"[{share.low:.2f}, {share.high:.2f}] of the model’s right answers")

# %% [markdown]
# And what does the whole model lose without one of its groups?

# %%
for group in prompts.task.groups:
    without = ce.ablate(model, others, circuit.sites_of([group.key]))
    print(f"without {group.key}: accuracy {without.correct.mean():.2f}")

# %% [markdown]
# ## The picture
#
# Columns are groups, layers go upward, and heads are sized by their scores.

# %%
words = prompts.words(0)
headings = {
    group.key: prompts.task.position(group.position).column.format(
        words[prompts.positions[group.position][0]]
    )
    for group in prompts.task.groups
}
circuit_svg(circuit, model.shape, headings)
