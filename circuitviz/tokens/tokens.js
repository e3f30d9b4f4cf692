// The words of a prompt as buttons: a click says at which character the word ends.

const shown = new WeakMap();

/** Streamlit calls this on each change of data, with the same parent element. */
export default function tokens({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".tokens");
  const fingerprint = JSON.stringify(data);
  if (shown.get(root) === fingerprint) return;
  shown.set(root, fingerprint);
  const focused = [...root.querySelectorAll("button")].indexOf(root.getRootNode().activeElement);
  root.replaceChildren(...data.words.flatMap(({ gap, word, kind, mark, title, at }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = word;
    button.title = title;
    button.dataset.at = at;
    button.className = kind;
    if (mark) button.style.setProperty("--mark", mark);
    button.addEventListener("click", () => setTriggerValue("marked", at));
    return [gap, button];
  }));
  if (focused >= 0) root.querySelectorAll("button")[focused]?.focus();
}
