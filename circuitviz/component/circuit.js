// The circuit: switches, keyboard, tooltip, zoom, and the exchange with Python.

const instances = new WeakMap();
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MOST_ZOOM = 8;
const PATIENCE_MS = 3000;
const LARGE = { times: 1.45, width: 1280, height: 720 };

/** The figures for these switches; nothing where the page has to be asked, or it takes too long: the page says so. */
async function fetchFigures(address, off, switched) {
  const heads = (ids) => [...ids].map((id) => id.replace(" L", "")).join();
  const asked = new URLSearchParams({ off: heads(off), switched: heads(switched) });
  try {
    const answer = await fetch(`${address}&${asked}`, { method: "POST", signal: AbortSignal.timeout(PATIENCE_MS) });
    return answer.status === 200 ? await answer.json() : null;
  } catch {
    return null;
  }
}

class CircuitView {
  constructor(root) {
    this.root = root;
    this.part = (name) => root.querySelector(`.${name}`);
    this.view = { zoom: 1, x: 0, y: 0 };
    this.sequence = this.told = 0;
    this.steps = [];
    this.epoch = null;
    this.off = new Set();
    this.switched = new Set();
    this.current = 0;
    this.observer = new ResizeObserver(() => this.place());
    this.buildZoom();
    this.listen();
  }

  /** Take what Python says: the picture if it changed, the switches if Python has caught up. */
  receive(data) {
    const { off, switched, served, epoch, cssHeight, large, figuresAddress, ...picture } = data;
    this.figuresAddress = figuresAddress;
    const fingerprint = JSON.stringify(picture);
    this.root.style.setProperty("--height", cssHeight);
    if (large !== this.isLarge) {
      this.isLarge = large;
      this.root.classList.toggle("large", large);
      this.place();
    }
    if (fingerprint !== this.fingerprint) {
      this.fingerprint = fingerprint;
      this.rebuild(picture);
    }
    if (epoch !== this.epoch || served >= this.sequence) {
      this.off = new Set(off);
      this.switched = new Set(switched);
      this.sequence = this.told = served;
      this.epoch = epoch;
    }
    this.steps = this.steps.filter(({ sequence }) => sequence > served && sequence <= this.sequence);
    this.paint();
  }

  /** Draw another picture; keeps the current head, and the focus if it was there. */
  rebuild(picture) {
    const id = this.data?.nodes[this.current]?.id;
    const focused = this.root.getRootNode().activeElement?.dataset?.id;
    this.data = picture;
    this.scene = buildScene(this.root, picture);
    this.current = Math.max(0, picture.nodes.findIndex((node) => node.id === id));
    this.tipFor = this.tracedFor = undefined;
    this.part("tip").hidden = true;
    this.place();
    if (id && focused === id) this.scene.nodes[this.current]?.group.focus();
  }

  isOn(i) {
    const node = this.data.nodes[i];
    if (!node) return true;
    return node.inCircuit ? !this.off.has(node.id) : this.data.outsideOn !== this.switched.has(node.id);
  }

  setOn(i, on) {
    const { inCircuit, id } = this.data.nodes[i];
    const set = inCircuit ? this.off : this.switched;
    const usual = inCircuit || this.data.outsideOn;
    if (on !== usual) set.add(id); else set.delete(id);
  }

  toggle(i) {
    if (!this.data.switchable) return;
    this.setOn(i, !this.isOn(i));
    this.current = i;
    this.changed();
    if (this.tipFor === i) this.showTip(i);
  }

  /** A group's switch: all on, unless all are on already. */
  toggleGroup(group) {
    const members = this.membersOf(group);
    const on = !members.every((i) => this.isOn(i));
    members.forEach((i) => this.setOn(i, on));
    this.changed();
  }

  membersOf(group) {
    return this.data.nodes.flatMap((node, i) => (node.group === group && node.inCircuit ? [i] : []));
  }

  changed() {
    this.step();
    this.paint();
    if (this.figuresAddress) this.showFigures(); else this.tell();
  }

  step() {
    this.sequence += 1;
    this.steps.push({ sequence: this.sequence, off: [...this.off], switched: [...this.switched] });
  }

  /** Fetch the figures of the switches as they stand; only then Python is told, as it draws long. */
  async showFigures() {
    if (this.isAsking) return;
    this.isAsking = true;
    let sequence, epoch;
    do {
      ({ sequence, epoch } = this);
      const figures = await fetchFigures(this.figuresAddress, this.off, this.switched);
      if (figures) window.dispatchEvent(new CustomEvent("circuit-figures", { detail: { sequence, epoch, figures } }));
    } while (epoch === this.epoch && sequence !== this.sequence);
    this.isAsking = false;
    this.tell();
  }

  /** Tell Python of the clicks that it does not know of. */
  tell(more = {}) {
    if (this.told === this.sequence) return;
    this.told = this.sequence;
    this.send({ epoch: this.epoch, steps: this.steps, ...more });
  }

  /** Ask for more about a head: nothing is switched. */
  lookAt(i) {
    if (!this.data.switchable) return;
    this.current = i;
    this.step();
    this.tell({ lookedAt: this.data.nodes[i].id });
  }

  /** Show the switches as they stand: heads, their edges, the groups' buttons. */
  paint() {
    const { scene, data } = this;
    const on = data.nodes.map((_, i) => this.isOn(i)).concat(true);
    scene.nodes.forEach(({ group }, i) => {
      if (data.switchable) group.setAttribute("aria-checked", on[i]);
      group.setAttribute("tabindex", i === this.current ? 0 : -1);
    });
    const writes = (i, targets) => on[i] && data.nodes[i].to.some((t) => on[t] && (!targets || targets(t)));
    for (const { i, path } of scene.stems) path.classList.toggle("cut", !writes(i));
    for (const { i, sources, path } of scene.branches) {
      path.classList.toggle("cut", !(on[i] && sources.some((s) => on[s] && data.nodes[s].to.includes(i))));
    }
    for (const { sources, segments } of scene.spines) {
      segments.forEach((segment, layer) => {
        const above = (t) => t === data.nodes.length || data.nodes[t].layer > layer;
        const live = sources.some((s) => data.nodes[s].layer < layer && writes(s, above));
        segment.classList.toggle("cut", !live);
      });
    }
    for (const { source, target, path } of scene.measured) path.classList.toggle("cut", !(on[source] && on[target]));
    for (const { column, button, text } of scene.switches) this.paintSwitch(column, button, text);
    if (this.tracedFor !== undefined) this.trace(this.tracedFor);
  }

  paintSwitch(column, button, text) {
    const members = this.membersOf(column.group);
    const count = members.filter((i) => this.isOn(i)).length;
    const state = count === 0 ? "false" : count === members.length ? "true" : "mixed";
    button.disabled = !members.length;
    button.setAttribute("aria-pressed", state);
    button.setAttribute("aria-label", `Group ${column.group}, ${column.name}: ${count} of ${members.length} heads on`);
    const off = members.length ? "off" : "has no heads";
    text.textContent = { true: `${column.group} on`, false: `${column.group} ${off}`, mixed: `${column.group} ${count}/${members.length}` }[state];
  }

  /** How many pixels of the screen a pixel of the picture has: more on a bigger screen, if large. */
  scale() {
    return this.isLarge ? LARGE.times * Math.max(1, Math.min(innerWidth / LARGE.width, innerHeight / LARGE.height)) : 1;
  }

  /** Lay out in pixels for the room there is. */
  place() {
    this.root.style.setProperty("--scale", this.scale());
    const sheet = this.part("sheet"), isNarrow = this.root.clientWidth < NARROW.width;
    if (!this.root.clientWidth || !this.data) return;
    this.root.classList.toggle("zoomed", this.view.zoom > 1);
    this.part("zoom").hidden = this.data.nodes.length < 60 && this.view.zoom === 1;
    sheet.style.minWidth = isNarrow ? `${leastWidth(this.data)}px` : "";
    const box = { width: sheet.clientWidth, margin: isNarrow ? NARROW.margin : MARGIN, top: 0, bottom: 0 };
    box.top = placeHeadings(this.scene, this.data, makeFrame(this.data, box, this.view)) + 8;
    // Only now: the legend has what the headings leave out.
    const height = sheet.clientHeight;
    box.bottom = height - (this.data.switchable ? 52 : 14);
    this.scene.svg.setAttribute("viewBox", `0 0 ${box.width} ${height}`);
    clampView(this.view, makeFrame(this.data, box, this.view));
    this.frame = makeFrame(this.data, box, this.view);
    Object.assign(this, placeScene(this.scene, this.data, this.frame));
    if (this.tipFor !== undefined) this.showTip(this.tipFor);
  }

  /** Highlight every edge of one head. */
  trace(i) {
    this.tracedFor = i ?? undefined;
    this.scene.svg.classList.toggle("tracing", i !== null && this.data.nodes[i].inCircuit);
    const { nodes, isMeasured, measured } = this.data;
    const drawn = measured.map(({ source, target }) => [source, target]);
    const pairs = isMeasured ? drawn : nodes.flatMap((node, s) => node.to.map((t) => [s, t]));
    const outgoing = pairs.filter(([s, t]) => s === i && this.isOn(t));
    const incoming = pairs.filter(([s, t]) => t === i && this.isOn(s));
    for (const { source, target, path } of this.scene.measured) {
      path.classList.toggle("lit", (source === i && this.isOn(target)) || (target === i && this.isOn(source)));
    }
    const pathOf = ([s, t]) => edgePath(this.data, this.frame, this.places, this.spines, s, t);
    [incoming, outgoing].forEach((pairs, way) => {
      this.scene.traced[way].setAttribute("d", isMeasured ? "" : pairs.map(pathOf).join(""));
      if (!pairs.length) return;
      const { colour } = columnOf(this.data, nodes[pairs[0][0]].group);
      this.scene.traced[way].style.setProperty("--colour", colour);
    });
    const partners = new Set([...incoming, ...outgoing].flat());
    this.scene.nodes.forEach(({ group }, n) => group.classList.toggle("partner", partners.has(n)));
  }

  showTip(i) {
    const tip = this.part("tip");
    this.tipFor = i ?? undefined;
    tip.hidden = i === null;
    if (!this.places) return;
    this.trace(i);
    if (i === null) return;
    const node = this.data.nodes[i], column = columnOf(this.data, node.group), at = this.places[i];
    tip.replaceChildren();
    const title = make("div", { class: "tip-title" }, tip);
    glyph(column, 22, title);
    make("b", {}, title, node.name);
    make("span", {}, title, node.inCircuit ? column.name : this.data.outsideWord);
    make("div", {}, tip, `score ${node.score}${node.hinders ? ": hinders the answer" : ""}`);
    if (node.evidence) make("div", {}, tip, node.evidence);
    if (node.adds) make("div", {}, tip, node.adds);
    if (node.attendsTo) make("div", {}, tip, `attends to ${node.attendsTo}`);
    for (const [words, end, other] of [["most from", "target", "source"], ["most into", "source", "target"]]) {
      const strongest = this.data.measured.findLast((edge) => edge[end] === i);
      if (strongest) make("div", {}, tip, `${words} ${this.nameOf(strongest[other])} ${strongest.score}`);
    }
    if (this.data.switchable) this.addHint(i, tip);
    this.putTip(at);
  }

  /** What a click on the head would do. */
  addHint(i, tip) {
    const node = this.data.nodes[i];
    const off = node.inCircuit || this.data.outsideOn ? `${this.data.offWord} · click to restore` : "click to add to the circuit";
    make("div", { class: "tip-hint" }, tip, this.isOn(i) ? "on · click to switch off" : off);
    if (this.data.attention) make("div", { class: "tip-hint" }, tip, "double click, or A: its attention");
  }

  nameOf(i) {
    return this.data.nodes[i]?.name ?? "the logits";
  }

  /** The score of a measured edge, beside the pointer. */
  showEdge(i, event) {
    this.showTip(null);
    const { source, target, score, helps } = this.data.measured[i], tip = this.part("tip");
    const column = columnOf(this.data, this.data.nodes[source].group);
    this.scene.measured[i].path.classList.add("lit");
    tip.replaceChildren();
    tip.hidden = false;
    make("b", {}, make("div", { class: "tip-title" }, tip), `${this.nameOf(source)} → ${this.nameOf(target)}`);
    make("div", {}, tip, `edge score ${score}`);
    const how = { q: "read as query (q)", k: "read as key (k)", v: "read as value (v)", logits: "into the answer" }[column.composition];
    make("div", { class: "tip-hint" }, tip, helps ? how : `${how} · hinders`);
    const { left, top } = this.scene.svg.getBoundingClientRect(), scale = this.scale();
    this.putTip({ x: (event.clientX - left) / scale, y: (event.clientY - top) / scale, r: 2 });
  }

  putTip(at) {
    const tip = this.part("tip");
    const size = { width: tip.offsetWidth, height: tip.offsetHeight };
    const { scrollLeft, clientWidth } = this.part("scroll");
    const room = { left: scrollLeft, right: scrollLeft + clientWidth, bottom: this.frame.bottom + 6 };
    const { x, y } = placeTip(this.places, at, size, room);
    tip.style.transform = `translate(${x}px,${y}px)`;
  }

  focus(i) {
    this.current = i;
    this.reveal(i);
    this.paint();
    this.scene.nodes[i].group.focus();
  }

  /** Pan so that a head is in the frame. */
  reveal(i) {
    const { x, y } = this.places[i], f = this.frame;
    const dx = Math.min(x - f.left - 40, 0) + Math.max(x - f.right + 40, 0);
    const dy = Math.min(y - f.top - 40, 0) + Math.max(y - f.bottom + 40, 0);
    if (this.view.zoom > 1 && (dx || dy)) this.pan(dx, dy);
  }

  pan(dx, dy) {
    this.view.x += dx;
    this.view.y -= dy;
    this.place();
  }

  /** Zoom about a point given in pixels of the component; the middle if none is given. */
  zoomBy(factor, at = { x: (this.frame.left + this.frame.right) / 2, y: (this.frame.top + this.frame.bottom) / 2 }) {
    const zoom = Math.min(Math.max(this.view.zoom * factor, 1), MOST_ZOOM), ratio = zoom / this.view.zoom;
    const fromLeft = at.x - this.frame.left, fromBottom = this.frame.bottom - at.y;
    this.view = { zoom, x: (this.view.x + fromLeft) * ratio - fromLeft, y: (this.view.y + fromBottom) * ratio - fromBottom };
    this.place();
  }

  buildZoom() {
    for (const [text, label, factor] of [["−", "Zoom out", 1 / 1.4], ["+", "Zoom in", 1.4], ["fit", "Fit", 0]]) {
      const button = make("button", { type: "button", "aria-label": label }, this.part("zoom"), text);
      button.addEventListener("click", () => this.zoomBy(factor));
    }
  }

  listen() {
    const svg = this.part("canvas");
    const nodeAt = (event) => {
      const group = event.target.closest?.("[data-node]");
      return group ? Number(group.dataset.node) : null;
    };
    let drag = null;
    svg.addEventListener("click", (event) => {
      const i = nodeAt(event);
      if (i === null || drag?.moved) return;
      this.toggle(i);
      // A finger cannot stay above a head: what is told of it goes with the next tap.
      if (event.pointerType === "touch") this.showTip(i);
    });
    // Its two clicks have switched the head there and back.
    svg.addEventListener("dblclick", (event) => {
      const i = nodeAt(event);
      if (i !== null && !drag?.moved) this.lookAt(i);
    });
    svg.addEventListener("pointerover", (event) => {
      const { edge } = event.target.dataset;
      if (edge === undefined) this.showTip(nodeAt(event)); else this.showEdge(Number(edge), event);
    });
    svg.addEventListener("pointerleave", () => this.showTip(null));
    svg.addEventListener("focusin", (event) => {
      this.isKeyed = event.target.matches(":focus-visible");
      if (this.isKeyed) this.showTip(nodeAt(event));
    });
    svg.addEventListener("focusout", () => this.showTip(null));
    svg.addEventListener("keydown", (event) => this.onKey(event, nodeAt(event)));
    svg.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 300), { x: event.offsetX, y: event.offsetY });
    }, { passive: false });
    svg.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, y: event.clientY, moved: false }; });
    svg.addEventListener("pointermove", (event) => {
      if (!drag || !event.buttons || this.view.zoom === 1) return;
      const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
      if (!drag.moved && Math.hypot(dx, dy) < 5) return;
      drag = { x: event.clientX, y: event.clientY, moved: true };
      this.pan(-dx / this.scale(), -dy / this.scale());
    });
    this.part("switches").addEventListener("click", (event) => {
      const button = event.target.closest("[data-group]");
      if (button) this.toggleGroup(button.dataset.group);
    });
  }

  onKey(event, i) {
    if (i === null || event.ctrlKey || event.metaKey || event.altKey) return;
    // On a stage, after a click with the mouse, arrows are the page's: they may lead on in a talk.
    const arrow = (this.isKeyed || !this.isLarge) && ARROWS[event.key];
    if (arrow) {
      const next = neighbour(this.places, i, ...arrow);
      if (next >= 0) this.focus(next);
    } else if (event.key === " " || event.key === "Enter") {
      if (!event.repeat) this.toggle(i);
    } else if (event.key === "a" || event.key === "A") {
      if (!event.repeat) this.lookAt(i);
    } else if (event.key === "+" || event.key === "-") {
      this.zoomBy(event.key === "+" ? 1.4 : 1 / 1.4, this.places[i]);
    } else if (event.key === "0") {
      this.zoomBy(0);
    } else if (event.key === "Escape" && !this.part("tip").hidden) {
      this.showTip(null);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

/** Streamlit calls this on each change of data, with the same parent element. */
export default function circuit({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".circuit");
  if (!instances.has(root)) instances.set(root, new CircuitView(root));
  const view = instances.get(root);
  view.send = (message) => setStateValue("message", message);
  view.receive(data);
  view.observer.observe(root);
  // Whatever else is pressed comes after the clicks.
  const until = new AbortController(), options = { capture: true, signal: until.signal };
  const elsewhere = (event) => {
    if (!event.composedPath().includes(root) || event.ctrlKey || event.metaKey) view.tell();
  };
  for (const kind of ["pointerdown", "keydown"]) window.addEventListener(kind, elsewhere, options);
  return () => {
    view.observer.disconnect();
    until.abort();
  };
}
