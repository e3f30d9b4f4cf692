// Drawing: builds the picture's elements once and moves them when size or zoom change.

const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, parent = null, text = null) {
  const isHtml = ["div", "button", "span", "b"].includes(tag);
  const element = isHtml ? document.createElement(tag) : document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

/** A group's shape with its letter, as in the headings and the legend. */
function glyph(column, size, parent) {
  const svg = make("svg", { class: "glyph", width: size, height: size, viewBox: "-1.4 -1.4 2.8 2.8" }, parent);
  make("path", { d: column.shape, fill: column.colour }, svg);
  const letter = [1.3, 1.05, 0.8][column.group.length - 1];
  make("text", { y: column.middle + 0.354 * letter, fill: column.ink, "text-anchor": "middle", "font-size": letter, "font-weight": 700 }, svg, column.group);
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

/** Arrow heads: filled for values (v) and logits, open for queries (q), a bar for keys (k). */
const TIPS = { q: "M2,1L8,5L2,9", k: "M8,0V10M2,5H8" };

function addMarkers(data, svg) {
  const defs = make("defs", {}, svg);
  for (const column of data.columns) {
    const marker = make("marker", {
      id: `arrow-${column.group}`, viewBox: "0 0 10 10", refX: 8, refY: 5,
      markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto",
    }, defs);
    const tip = TIPS[column.composition];
    make("path", tip
      ? { d: tip, fill: "none", stroke: column.colour, "stroke-width": 1.8 }
      : { d: "M1,1L9,5L1,9Z", fill: column.colour }, marker);
  }
  const clip = make("clipPath", { id: "plot" }, defs);
  make("rect", {}, clip);
}

/** Everything of the picture that depends on its data but not on size, zoom or switches. */
function buildScene(root, data) {
  const part = (name) => root.querySelector(`.${name}`);
  root.classList.toggle("switchable", data.switchable);
  root.style.setProperty("--hinders", data.hinderColour);
  root.style.setProperty("--helps", data.helpColour);
  const scene = { root, svg: part("canvas"), nodes: [], stems: [], branches: [], spines: [], pills: [] };
  for (const name of ["heads", "canvas", "switches", "legend"]) part(name).replaceChildren();
  scene.svg.setAttribute("aria-label", data.title);
  addMarkers(data, scene.svg);
  scene.axis = make("g", { class: "axis", "aria-hidden": "true" }, scene.svg);
  scene.bands = data.columns.map(() => make("rect", { class: "band", rx: 10 }, scene.axis));
  scene.rows = data.rows.map((row, layer) => ({
    row,
    line: make("line", { class: "layer-line" }, scene.axis),
    text: make("text", { class: "layer-name" }, scene.axis, `L${layer}`),
  }));
  const plot = make("g", { "clip-path": "url(#plot)" }, scene.svg);
  const edges = make("g", { class: "edges", "aria-hidden": "true" }, plot);
  const pills = make("g", { "aria-hidden": "true" });
  buildBundles(data, edges, pills, scene);
  scene.svg.classList.toggle("is-measured", data.isMeasured);
  scene.measured = data.measured.map((edge, i) => buildMeasured(edge, i, columnOf(data, data.nodes[edge.source].group), edges));
  scene.traced = ["in", "out"].map((way) => make("path", { class: `traced ${way}` }, plot));
  plot.append(pills);
  scene.logits = make("g", { class: "logits", "aria-hidden": "true" }, scene.svg);
  make("rect", { x: -LOGITS.width / 2, y: -15, width: LOGITS.width, height: 30, rx: 8 }, scene.logits);
  make("text", { y: 5, "text-anchor": "middle" }, scene.logits, "logits");
  const nodes = make("g", {}, plot);
  scene.nodes = data.nodes.map((node, i) => buildNode(node, i, columnOf(data, node.group), data.switchable));
  const isOutside = (i) => !data.nodes[i].inCircuit;
  const order = [...data.nodes.keys()].sort((a, b) => isOutside(b) - isOutside(a));
  nodes.append(...order.map((i) => scene.nodes[i].group));
  scene.heads = data.columns.map((column) => buildHeading(column, part("heads")));
  scene.switches = data.switchable ? data.columns.map((column) => buildSwitch(column, part("switches"))) : [];
  buildLegend(data, part("legend"));
  return scene;
}

const columnOf = (data, group) => data.columns.find((column) => column.group === group);

/** One stem per source, one branch per target, one spine segment per layer crossed. */
function buildBundles(data, parent, pills, scene) {
  for (const column of data.columns) {
    const bundle = make("g", { class: `bundle ${column.composition}`, style: `--colour:${column.colour}` }, parent);
    const sources = data.nodes.flatMap((node, i) => (node.group === column.group && node.to.length ? [i] : []));
    const targets = [...new Set(sources.flatMap((i) => data.nodes[i].to))];
    const link = { column, sources, targets };
    scene.spines.push({ ...link, segments: data.rows.map(() => make("path", { class: "spine" }, bundle)) });
    for (const i of sources) scene.stems.push({ i, ...link, path: make("path", { class: "stem" }, bundle) });
    for (const i of targets) {
      const path = make("path", { class: "branch", "marker-end": `url(#arrow-${column.group})` }, bundle);
      scene.branches.push({ i, ...link, path });
    }
    if (sources.length && column.composition !== "logits") {
      const pill = make("g", { class: "pill", stroke: column.colour }, pills);
      make("circle", { r: 11 }, pill);
      make("text", { y: 4.5, "text-anchor": "middle" }, pill, column.composition);
      scene.pills.push({ group: column.group, pill });
    }
  }
}

/** An edge with a score: as wide as it is strong, and wider still to the pointer. */
function buildMeasured({ source, target, strength, helps }, i, column, parent) {
  const look = `--colour:${column.colour};--strength:${strength}`;
  const path = make("path", {
    class: `measured ${column.composition} ${helps ? "helps" : "hinders"}`, style: look,
    "stroke-width": 1 + 6.5 * strength, "marker-end": `url(#arrow-${column.group})`,
  }, parent);
  const reach = make("path", { class: "reach", "data-edge": i }, parent);
  return { source, target, path, reach };
}

function buildNode(node, i, column, switchable) {
  const group = make("g", {
    class: `head ${node.inCircuit ? "member" : "outside"}${node.hinders ? " hinders" : ""}`, role: switchable ? "switch" : "img", tabindex: "-1",
    "aria-label": node.spoken, "data-node": i, "data-id": node.id,
    style: `--colour:${column.colour}`,
  });
  if (node.adds) weigh(group, node.share);
  const hit = make("rect", { class: "hit" }, group);
  const halo = make("path", { class: "halo", d: column.shape }, group);
  const shape = make("path", { class: "shape", d: column.shape }, group);
  const strike = make("line", { class: "strike" }, group);
  const label = make("text", { class: "label", "text-anchor": "middle" }, group);
  return { group, hit, halo, shape, strike, label };
}

/** Colour a head by what it adds to the logits; one that adds nothing keeps its outline only. */
function weigh(group, share) {
  group.classList.add("weighed");
  const colour = share > 0 ? "--helps" : "--hinders", strength = Math.round(10 + 90 * Math.abs(share));
  const fill = share === null ? "var(--paper)" : `color-mix(in srgb, var(${colour}) ${strength}%, var(--paper))`;
  group.style.setProperty("--fill", fill);
}

function buildHeading(column, parent) {
  const heading = make("div", { class: "heading" }, parent);
  if (column.word) make("div", { class: "word" }, heading, column.word);
  const title = make("div", { class: "title" }, heading);
  glyph(column, 26, title);
  make("span", {}, title, column.name);
  return heading;
}

function buildSwitch(column, parent) {
  const button = make("button", { type: "button", "data-group": column.group, class: "group-switch", style: `--colour:${column.colour}` }, parent);
  make("span", { class: "track" }, button);
  return { column, button, text: make("span", {}, button) };
}

function buildLegend(data, parent) {
  const entry = (text) => {
    const item = make("span", { class: "entry" }, parent);
    const svg = make("svg", { width: 44, height: 22, viewBox: "0 0 44 22", "aria-hidden": "true" }, item);
    make("span", {}, item, text);
    return svg;
  };
  for (const column of data.columns) {
    const named = make("span", { class: "entry name" }, parent);
    glyph(column, 22, named);
    make("span", {}, named, column.name);
  }
  const scale = entry("weak – strong score, one scale for all groups");
  [[6, 3], [18, 5.5], [35, 8.5]].forEach(([cx, r]) => make("circle", { cx, cy: 11, r, class: "sample" }, scale));
  if (data.columns.some((column) => column.composition === "v")) {
    const value = entry("read as value (v)");
    make("path", { d: "M2,11H34", class: "sample-line" }, value);
    make("path", { d: "M33,6L42,11L33,16Z", class: "sample-tip" }, value);
  }
  if (data.columns.some((column) => column.composition === "q")) {
    const query = entry("read as query (q)");
    make("path", { d: "M2,11H38", class: "sample-line dashed" }, query);
    make("path", { d: "M34,6L41,11L34,16", class: "sample-line" }, query);
  }
  if (data.columns.some((column) => column.composition === "k")) {
    const key = entry("read as key (k)");
    make("path", { d: "M2,11H38", class: "sample-line dotted" }, key);
    make("path", { d: "M41,5V17", class: "sample-line" }, key);
  }
  if (data.isMeasured) {
    const edge = entry("weak – strong edge");
    [[2, 1], [16, 3], [30, 7]].forEach(([x, width]) => make("path", { d: `M${x},15L${x + 11},7`, class: "sample-edge", "stroke-width": width }, edge));
  } else {
    make("path", { d: "M2,11H42", class: "sample-edge", "stroke-width": 1 }, entry("edges: not measured, or none clear"));
  }
  if (data.switchable) {
    const off = entry(data.offWord);
    make("circle", { cx: 28, cy: 11, r: 8, class: "sample-off" }, off);
    make("line", { x1: 20, y1: 19, x2: 36, y2: 3, class: "sample-line" }, off);
  }
  if (data.nodes.some((node) => node.hinders)) {
    make("circle", { cx: 28, cy: 11, r: 7, class: "sample-hinders" }, entry("positive score: hinders the answer"));
  }
  if (data.contributions) {
    const scale = entry(`contribution, ${data.contributions} logits`);
    [["--hinders", 100], ["--hinders", 40], ["--helps", 40], ["--helps", 100]].forEach(([colour, share], i) => {
      make("rect", { x: 11 * i, y: 4, width: 11, height: 14, style: `fill: color-mix(in srgb, var(${colour}) ${share}%, var(--paper))` }, scale);
    });
    make("circle", { cx: 28, cy: 11, r: 7, class: "sample-none" }, entry("none clear, or another token"));
  }
  if (data.nodes.some((node) => !node.inCircuit)) {
    make("circle", { cx: 28, cy: 11, r: 5, class: "sample-outside" }, entry(data.outsideWord + (data.switchable ? `: ${data.outsideOn ? "on as well" : "click to add"}` : "")));
  }
}

/** Put every element where it belongs at this size and zoom; returns the heads' places. */
function placeScene(scene, data, frame) {
  const clip = scene.svg.querySelector("#plot rect");
  setAll(clip, { x: frame.left, y: frame.top - 8, width: frame.width + 20, height: frame.height + 10 });
  const places = data.nodes.map((node) => ({
    x: frame.x(node.x), y: frame.y(node.y), r: radiusOf(node, frame), size: node.size,
  }));
  const spines = spinesOf(data, frame);
  const toLogits = spines[data.columns.findLast((column) => column.composition === "logits").group];
  placeAxis(scene, data, frame);
  placeBundles(scene, data, frame, places, spines);
  placeNodes(scene, data, frame, places);
  const logits = { x: Math.min(toLogits, frame.right) - LOGITS.width / 4, y: frame.top - 7, r: 0 };
  for (const { source, target, path, reach } of scene.measured) {
    const way = directPath(places[source], places[target] ?? logits);
    path.setAttribute("d", way);
    reach.setAttribute("d", way);
  }
  scene.logits.style.visibility = toLogits < frame.right + 4 ? "visible" : "hidden";
  scene.logits.setAttribute("transform", `translate(${Math.min(toLogits, frame.right)},${frame.top - 22})`);
  return { places, spines };
}

function setAll(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

/** How large the words of the headings are tried; at last without the groups' names, which are in the legend then. */
const HEADINGS = [1, 0.9, 0.8, 0];

/** Headings come first: how they wrap says how much room is left for the rest. */
function placeHeadings(scene, data, frame) {
  const { root, heads } = scene;
  for (const size of HEADINGS) {
    root.classList.toggle("short", !size);
    root.style.setProperty("--fit", size || 1);
    heads.forEach((heading, i) => placeHeading(heading, data, frame, i, !size));
    if (heads.every((heading) => heading.scrollWidth <= heading.clientWidth)) break;
  }
  const height = Math.max(0, ...heads.map((heading) => heading.offsetHeight));
  return root.classList.contains("short") ? height + LOGITS.height : height;
}

/** Above its column, and beside the logits, or above them if it is short. */
function placeHeading(heading, data, frame, i, isShort) {
  const column = data.columns[i], next = data.columns[1]?.left ?? data.width;
  const gap = frame.x(next) - frame.x(data.columns[0].right) - (isShort ? 2 : 8);
  const x0 = Math.max(frame.x(column.left) - gap / 2, frame.left - gap / 2);
  const besideLogits = isShort ? Infinity : frame.x(data.width) - LOGITS.width / 2 - 4;
  const x1 = Math.min(frame.x(column.right) + gap / 2, frame.right, besideLogits);
  heading.style.left = `${(x0 + x1) / 2}px`;
  heading.style.width = `${Math.max(x1 - x0, 0)}px`;
  heading.style.display = hasRoom(column, frame, x1 - x0) ? "" : "none";
}

/** Whether so many pixels of a column are in sight that it can be headed and have its switch. */
const hasRoom = (column, frame, pixels) => pixels > Math.min(80, 0.7 * (column.right - column.left) * frame.unitX);

function placeAxis(scene, data, frame) {
  scene.root.classList.toggle("short-switches", pitchOf(data) * frame.unitX < SWITCH_WIDTH);
  scene.bands.forEach((band, i) => {
    const { left, right } = data.columns[i];
    const x0 = Math.max(frame.x(left) - 8, frame.left), x1 = Math.min(frame.x(right) + 8, frame.right);
    setAll(band, { x: x0, y: frame.top, width: Math.max(x1 - x0, 0), height: frame.height });
    const middle = (x0 + x1) / 2;
    if (!scene.switches[i]) return;
    scene.switches[i].button.style.left = `${middle}px`;
    scene.switches[i].button.style.visibility = hasRoom(data.columns[i], frame, x1 - x0) ? "visible" : "hidden";
  });
  const byWeight = [...scene.rows].sort((a, b) => a.row.empty - b.row.empty || a.row.bottom - b.row.bottom);
  const shown = [];
  for (const { row, line, text } of byWeight) {
    const y = frame.y((row.bottom + row.top) / 2), edge = frame.y(row.top);
    setAll(line, { x1: frame.left - 8, x2: frame.right, y1: edge, y2: edge });
    line.style.display = edge > frame.top + 1 && edge < frame.bottom ? "" : "none";
    const fits = y > frame.top && y < frame.bottom && shown.every((other) => Math.abs(other - y) >= 14);
    if (fits) shown.push(y);
    text.style.display = fits ? "" : "none";
    text.classList.toggle("empty", row.empty);
    setAll(text, { x: frame.left - 14, y: y + 5, "text-anchor": "end" });
  }
}

function placeBundles(scene, data, frame, places, spines) {
  const joinY = (i) => frame.y(data.rows[data.nodes[i].layer].top);
  const leaveY = (i) => frame.y(data.rows[data.nodes[i].layer].bottom);
  for (const { i, column, path } of scene.stems) path.setAttribute("d", stemPath(places[i], spines[column.group], joinY(i), frame.hasLanes));
  for (const { i, column, path } of scene.branches) {
    const x = spines[column.group];
    const isLogits = i === data.nodes.length;
    path.setAttribute("d", isLogits ? `M${point(x, frame.y(data.height) + 8)}V${frame.top - 6}` : branchPath(places[i], x, leaveY(i), frame.hasLanes));
  }
  for (const { column, sources, targets, segments } of scene.spines) {
    const x = spines[column.group];
    segments.forEach((segment, layer) => {
      const { bottom, top } = data.rows[layer];
      const crossed = sources.some((i) => data.nodes[i].layer < layer)
        && targets.some((i) => i === data.nodes.length || data.nodes[i].layer > layer);
      segment.setAttribute("d", crossed ? `M${point(x, frame.y(bottom))}V${frame.y(top).toFixed(1)}` : "");
    });
    const pill = scene.pills.find((item) => item.group === column.group);
    if (pill) {
      const low = Math.max(...sources.map(joinY)), high = Math.min(...targets.map(leaveY));
      pill.pill.setAttribute("transform", `translate(${x},${(low + high) / 2})`);
    }
  }
}

function placeNodes(scene, data, frame, places) {
  scene.svg.style.setProperty("--label", `${frame.font}px`);
  const inFrame = ({ x, y }) => x > frame.left && x < frame.right && y > frame.top && y < frame.bottom;
  const isShown = (i) => inFrame(places[i]) && (data.nodes[i].inCircuit || frame.unitX > 44);
  const full = placeLabels(places, (i) => isShown(i) && data.nodes[i].name, frame);
  const wanted = data.nodes.filter((_, i) => isShown(i)).length;
  const useFull = full.size === wanted;
  const shortName = (i) => data.nodes[i].name.replace(/^L\d+/, "");
  const labels = useFull ? full : placeLabels(places, (i) => isShown(i) && shortName(i), frame);
  scene.nodes.forEach(({ group, hit, halo, shape, strike, label }, i) => {
    const { x, y, r } = places[i];
    group.setAttribute("transform", `translate(${point(x, y)})`);
    const w = Math.min(Math.max(frame.unitX, 12), 60), h = Math.min(Math.max(frame.unitY, 12), 64);
    setAll(hit, { x: -w / 2, y: -h / 2, width: w, height: h });
    halo.setAttribute("transform", `scale(${r + 2.5})`);
    shape.setAttribute("transform", `scale(${r})`);
    setAll(strike, { x1: -r - 4, y1: r + 4, x2: r + 4, y2: -r - 4 });
    const at = labels.get(i);
    label.textContent = at ? (useFull ? data.nodes[i].name : shortName(i)) : "";
    if (at) setAll(label, { x: at.x.toFixed(1), y: at.y.toFixed(1) });
  });
}
