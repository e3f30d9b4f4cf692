// The words of a prompt as buttons: a click says at which character the word ends.

const shown = new WeakMap();

/** Streamlit calls this on each change of data, with the same parent element. */
export default function tokens({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".tokens");
  const fingerprint = JSON.stringify(data);
  if (shown.get(root) === fingerprint) return;
  if (!shown.has(root)) listen(root);
  shown.set(root, fingerprint);
  const before = wordsIn(root);
  const current = before.findIndex((button) => button.tabIndex === 0);
  const hadFocus = before.includes(root.getRootNode().activeElement);
  root.replaceChildren(...data.words.flatMap(({ gap, word, kind, mark, title, at }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = -1;
    button.textContent = word;
    button.title = title;
    button.dataset.at = at;
    button.className = kind;
    if (mark) button.style.setProperty("--mark", mark);
    button.addEventListener("click", () => setTriggerValue("marked", at));
    return [gap, button];
  }));
  const words = wordsIn(root), word = words[current] ?? words[0];
  if (word) word.tabIndex = 0;
  if (hadFocus) word?.focus();
}

const wordsIn = (root) => [...root.querySelectorAll("button")];

/** Tab reaches one of the words, arrows the others from there: a prompt has fifty. */
function listen(root) {
  root.addEventListener("focusin", ({ target }) => {
    for (const word of wordsIn(root)) word.tabIndex = word === target ? 0 : -1;
  });
  root.addEventListener("keydown", (event) => {
    const words = wordsIn(root), at = words.indexOf(event.target);
    const to = words[{ ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: words.length - 1 }[event.key]];
    if (!to) return;
    to.focus();
    event.preventDefault();
    event.stopPropagation();
  });
}
