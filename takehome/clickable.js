// The file that stays clickable: the component above, with numbers that were measured beforehand.

const file = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const places = new Map(file.picture.nodes.map((node, i) => [node.id, i]));
const states = new Map(file.states.map(([off, ...figures], number) => [off.join(), { number, figures }]));
const now = { off: [], served: 0, epoch: 0, example: 0 };

const stateOf = (off) => states.get(off.map((id) => places.get(id)).sort((a, b) => a - b).join());
const figure = (figures, k) => figures.slice(3 * k, 3 * k + 3);
const shown = (number) => (number === null ? "undefined" : number.toFixed(3).replace("-", "−"));

/** Draw the circuit as it stands, headed by the words of the present prompt. */
function drawCircuit() {
  const words = file.examples[now.example]?.columns ?? {};
  const columns = file.picture.columns.map((column) => ({ ...column, word: words[column.group] ?? "" }));
  const { off, served, epoch } = now;
  circuit({
    parentElement: at("graph"),
    data: { ...file.picture, columns, off, switched: [], served, epoch, cssHeight: "clamp(440px, calc(100vh - 190px), 860px)" },
    setStateValue: (_, message) => {
      ({ off: now.off, sequence: now.served } = message.steps.at(-1));
      showNumbers();
    },
  });
}

function card(label, [value, low, high], before) {
  const element = make("div", { class: "card" }, at("cards"));
  make("span", {}, element, label);
  make("b", {}, element, shown(value));
  const small = (text, kind = "") => {
    const line = document.createElement("small");
    line.className = kind;
    line.textContent = text;
    element.append(line);
  };
  if (before === undefined) small("untouched");
  else if (value !== null && before !== null) {
    const change = value - before;
    const kind = Math.abs(change) < 0.0005 ? "" : change > 0 ? "better" : "worse";
    small(`${change < 0 ? "" : "+"}${shown(change)} since all on`, `change ${kind}`);
  }
  small(value === null ? `n = ${file.n}` : `95 %: ${shown(low)} to ${shown(high)}, n = ${file.n}`);
}

function showNumbers() {
  const state = stateOf(now.off), before = stateOf([]).figures;
  const unknown = [null, null, null];
  at("cards").replaceChildren();
  card("Whole model", file.whole);
  file.labels.forEach((label, k) => {
    if (state) card(label, figure(state.figures, k), figure(before, k)[0]);
    else missing(label);
  });
  at("missing").hidden = Boolean(state);
  showExample(state);
  const spoken = file.labels.map((label, k) => `${label} ${shown((state ? figure(state.figures, k) : unknown)[0])}`);
  at("spoken").textContent = state ? `${spoken.join(". ")}.` : at("missing").textContent;
}

function missing(label) {
  const element = make("div", { class: "card" }, at("cards"));
  make("span", {}, element, label);
  make("b", {}, element, "–");
  const line = document.createElement("small");
  line.textContent = "not in this file";
  element.append(line);
}

/** [token, probability, token, probability, …] by token. */
function byToken(flat) {
  const found = new Map();
  for (let i = 0; i < flat.length; i += 2) found.set(flat[i], flat[i + 1]);
  return found;
}

function showExample(state) {
  const example = file.examples[now.example];
  at("answers").replaceChildren();
  if (!example) return;
  [...at("prompts").children].forEach((prompt, i) => { prompt.hidden = i !== now.example; });
  at("place").textContent = `Example ${now.example + 1} of ${file.examples.length}`;
  const after = state && byToken(example.states[state.number]), before = byToken(example.states[0]);
  const [first] = after ? after.keys() : [];
  at("prompts").children[now.example].querySelector(".marked:last-child").textContent = after ? example.tokens[first] : "…";
  if (!after) return;
  const { looks } = file;
  const key = make("div", { class: "key" }, at("answers"));
  for (const [name, colour] of Object.entries(looks)) {
    const entry = make("span", {}, key);
    const sample = document.createElement("i");
    sample.style.background = colour;
    entry.append(sample, name);
  }
  const highest = (token) => Math.max(after.get(token) ?? 0, before.get(token) ?? 0);
  const tokens = [...new Set([...after.keys(), ...before.keys()])].sort((a, b) => highest(b) - highest(a)).slice(0, 5);
  for (const token of tokens) {
    make("span", {}, at("answers"), example.tokens[token]);
    const bars = make("div", { class: "bars" }, at("answers"));
    bar(bars, before, token, looks.before);
    bar(bars, after, token, token === 0 ? looks["after, right"] : looks.after);
  }
}

/** A token that is not among those of a state is less likely than the last of them; the right answer
 * (0) is always among them, however unlikely. */
function bar(parent, found, token, colour) {
  const element = make("div", { class: "bar" }, parent);
  const line = document.createElement("i");
  line.style.background = colour;
  line.style.width = `${85 * (found.get(token) ?? 0)}%`;
  const least = Math.min(...[...found].filter(([other]) => other).map(([, share]) => share));
  element.append(line, found.has(token) ? found.get(token).toFixed(2) : `< ${(Math.ceil(least * 100) / 100).toFixed(2)}`);
}

function step(by) {
  now.example = (now.example + by + file.examples.length) % file.examples.length;
  drawCircuit();
  showNumbers();
}

at("previous").addEventListener("click", () => step(-1));
at("next").addEventListener("click", () => step(1));
at("all-on").addEventListener("click", () => {
  now.off = [];
  now.epoch += 1;
  drawCircuit();
  showNumbers();
});
at("theme").addEventListener("click", () => {
  const isDark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = isDark ? "light" : "dark";
});
drawCircuit();
showNumbers();
