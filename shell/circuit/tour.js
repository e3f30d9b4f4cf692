// A tour in three steps for who is here for the first time: what one sees, a head to click, what
// changed. All of it happens in the browser, which also remembers that it was shown.
const SEEN = "circuit-explorer: tour seen";
const LOOK_MS = 200, GAP = 14;
const tours = new WeakMap();
let lastAsked = 0;

const picture = () => [...document.querySelectorAll(".st-key-circuit_picture *")]
  .map((each) => each.shadowRoot?.querySelector(".circuit")).find(Boolean)
  ?? document.querySelector(".st-key-circuit_picture .circuit");
const answered = () => document.querySelector(".spoken")?.dataset.click;
const targets = [
  () => picture()?.querySelector(".canvas"),
  (head) => picture()?.querySelector(`[data-id="${head}"] .shape`),
  () => document.querySelector(".answer-figures").closest("[data-testid=stColumn]"),
];

class Tour {
  constructor(root, { head, steps }) {
    Object.assign(this, { root, head, steps, place: 0 });
    this.card = root.querySelector(".card");
    this.ring = root.querySelector(".ring");
    root.querySelector(".skip").onclick = () => this.end();
    root.querySelector(".next").onclick = () => this.go(this.place + 1);
    this.go(0);
  }

  go(place) {
    if (place >= this.steps.length) {
      this.end();
      return;
    }
    this.place = place;
    this.before = answered();
    const { title, text } = this.steps[place];
    this.root.querySelector(".title").textContent = title;
    this.root.querySelector(".text").textContent = text;
    this.root.querySelector(".count").textContent = `${place + 1} of ${this.steps.length}`;
    this.root.querySelector(".next").textContent = place + 1 === this.steps.length ? "Done" : "Next";
    this.look();
  }

  /** Follow what the step is about; the click that the second step asks for leads on. */
  look() {
    const target = answered() && targets[this.place](this.head);
    this.root.hidden = !target;
    if (!target) return;
    if (this.place === 1 && answered() !== this.before) {
      this.go(2);
      return;
    }
    if (this.seen !== this.place) this.arrive(target);
    const at = target.getBoundingClientRect();
    Object.assign(this.ring.style, {
      left: `${at.left - 6}px`, top: `${at.top - 6}px`, width: `${at.width + 12}px`, height: `${at.height + 12}px`,
    });
    const { offsetWidth: width, offsetHeight: height } = this.card;
    const spots = [
      [at.left + (at.width - width) / 2, at.top + (at.height - height) / 2],
      [at.left - width - GAP, at.top],
      [at.left - width - GAP, at.top + at.height / 3],
    ];
    const [x, beside] = spots[this.place];
    const y = x < 8 && this.place > 0 ? this.aboveOrBelow(at, height) : beside;
    this.card.style.left = `${Math.max(8, Math.min(x, innerWidth - width - 8))}px`;
    this.card.style.top = `${Math.max(8, Math.min(y, innerHeight - height - 8))}px`;
  }

  /** Once in each step: into sight, and what leads on to the keyboard. */
  arrive(target) {
    this.seen = this.place;
    target.style.scrollMarginTop = "48px";
    if (target.getBoundingClientRect().top > innerHeight - 48) target.scrollIntoView();
    if (this.place === 0) this.root.querySelector(".next").focus({ preventScroll: true });
  }

  /** On a phone there is no room beside anything. */
  aboveOrBelow(at, height) {
    const above = at.top - height - GAP, below = at.bottom + GAP;
    return below + height > innerHeight - 8 && above > 8 ? above : below;
  }

  run() {
    clearInterval(this.watch);
    this.watch = setInterval(() => this.look(), LOOK_MS);
  }

  end() {
    this.stop();
    tours.delete(this.root);
    try {
      localStorage.setItem(SEEN, "yes");
    } catch { /* a browser that keeps nothing shows it again */ }
  }

  stop() {
    clearInterval(this.watch);
    this.root.hidden = true;
  }
}

const isSeen = () => {
  try {
    return localStorage.getItem(SEEN) !== null;
  } catch {
    return true;
  }
};

/** Streamlit calls this on each change of data, with the same parent element. */
export default function tour({ parentElement, data }) {
  const isAsked = data.asked > lastAsked;
  lastAsked = data.asked;
  if (isSeen() && !isAsked) return undefined;
  const root = parentElement.querySelector(".tour");
  if (isAsked || !tours.has(root)) tours.set(root, new Tour(root, data));
  const current = tours.get(root);
  current.run();
  return () => current.stop();
}
