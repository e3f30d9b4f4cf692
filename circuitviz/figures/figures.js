// The figures beside the circuit: Python's, or newer ones that were fetched for a click.

const instances = new WeakMap();
const GAP = 6;
let count = 0;

const make = (tag, className, parent) => {
  const element = document.createElement(tag);
  element.className = className;
  parent.append(element);
  return element;
};

/** One figure's place; its texts change, it stays. */
class Place {
  constructor(grid) {
    const root = make("div", "figure", grid);
    const heading = make("div", "label", root);
    this.label = make("span", "", heading);
    this.why = make("button", "why", heading);
    this.why.type = "button";
    this.why.textContent = "?";
    this.about = make("div", "about", root);
    this.about.popover = "manual";
    this.about.id = `about-figure-${(count += 1)}`;
    this.why.setAttribute("aria-describedby", this.about.id);
    this.value = make("b", "value", root);
    this.change = make("em", "", root);
    this.below = make("small", "below", root);
    for (const kind of ["pointerenter", "focus"]) this.why.addEventListener(kind, () => this.explain());
    for (const kind of ["pointerleave", "blur"]) this.why.addEventListener(kind, () => this.about.hidePopover());
    this.why.addEventListener("keydown", (event) => { if (event.key === "Escape") this.about.hidePopover(); });
  }

  show({ label, value, change, way, below, about }) {
    this.label.textContent = label;
    this.why.hidden = !about;
    this.why.setAttribute("aria-label", `About: ${label}`);
    this.about.textContent = about;
    this.value.textContent = value;
    this.change.textContent = change;
    this.change.className = `change ${way}`;
    this.below.textContent = below.replace("n = ", "n\u00a0=\u00a0");
  }

  explain() {
    this.about.showPopover();
    const at = this.why.getBoundingClientRect(), { offsetWidth: width, offsetHeight: height } = this.about;
    const above = at.top - height - GAP;
    this.about.style.left = `${Math.max(GAP, Math.min(at.left, innerWidth - width - GAP))}px`;
    this.about.style.top = `${above < GAP ? at.bottom + GAP : above}px`;
  }
}

class FiguresView {
  constructor(root) {
    this.root = root;
    this.sequence = 0;
    this.epoch = null;
    this.places = [];
  }

  receive({ figures, served, epoch, large }) {
    this.root.classList.toggle("large", large);
    if (epoch === this.epoch && served < this.sequence) return;
    this.epoch = epoch;
    this.show(figures, served);
  }

  hear({ figures, sequence, epoch }) {
    if (epoch === this.epoch && sequence > this.sequence) this.show(figures, sequence);
  }

  show({ shown, spoken, note }, sequence) {
    this.sequence = sequence;
    const grid = this.root.querySelector(".grid");
    if (shown.length !== this.places.length) {
      grid.replaceChildren();
      this.places = shown.map(() => new Place(grid));
    }
    shown.forEach((figure, i) => this.places[i].show(figure));
    this.root.querySelector(".note").textContent = note;
    const said = this.root.querySelector(".spoken");
    said.textContent = spoken;
    said.dataset.click = `${this.epoch}.${sequence}`;
  }
}

/** Streamlit calls this on each change of data, with the same parent element. */
export default function figures({ parentElement, data }) {
  const root = parentElement.querySelector(".answer-figures");
  if (!instances.has(root)) instances.set(root, new FiguresView(root));
  const view = instances.get(root);
  view.receive(data);
  const hear = ({ detail }) => view.hear(detail);
  window.addEventListener("circuit-figures", hear);
  return () => window.removeEventListener("circuit-figures", hear);
}
