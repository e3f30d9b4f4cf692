// Geometry: from abstract units to pixels. Pure functions of the picture's data; no DOM.

const MARGIN = { left: 52, right: 48 };
const NARROW = { width: 480, margin: { left: 40, right: 36 }, slot: 16, column: 54 };
const LOGITS = { width: 66, height: 30 };
const SWITCH_WIDTH = 104;
const LABEL = { advance: 0.53, height: 1.08 };
const LANE_ROW = 44;

/** Least distance between the middles of two columns, in units. */
function pitchOf({ columns }) {
  const middles = columns.map((column) => (column.left + column.right) / 2);
  return Math.min(...middles.slice(1).map((middle, i) => middle - middles[i]));
}

/** The least width on a phone at which a finger hits a head and a group's switch has its words. */
function leastWidth(data) {
  const unit = Math.max(data.switchable ? NARROW.slot : 0, NARROW.column / pitchOf(data));
  return NARROW.margin.left + data.width * unit + NARROW.margin.right;
}

/** The pixel frame of a picture: how units map to pixels at this size and zoom. */
function makeFrame(data, box, view) {
  const { left } = box.margin, top = box.top, width = box.width - left - box.margin.right;
  const height = box.bottom - top;
  const unitX = (width * view.zoom) / data.width, unitY = (height * view.zoom) / data.height;
  const font = Math.min(unitX, unitY) > 56 ? 16 : 14;
  return {
    font, hasLanes: unitY < LANE_ROW, leastRadius: data.switchable ? 6 : 0,
    left, top, width, height, unitX, unitY, right: left + width, bottom: box.bottom,
    x: (units) => left + units * unitX - view.x,
    y: (units) => box.bottom - units * unitY + view.y,
  };
}

/** Keep the zoomed picture from leaving the frame. */
function clampView(view, frame) {
  const slack = view.zoom - 1;
  view.x = Math.min(Math.max(view.x, 0), frame.width * slack);
  view.y = Math.min(Math.max(view.y, 0), frame.height * slack);
}

/** Radius in pixels: area follows the score, within what a slot holds and, if it is a switch, a finger can hit. */
function radiusOf(node, frame) {
  const withName = Math.min(frame.unitX * 0.37, (frame.unitY - frame.font) * 0.42);
  const alone = Math.min(frame.unitX * 0.37, frame.unitY * 0.4, 9);
  const largest = Math.min(Math.max(withName, alone, 3), 26);
  const smallest = Math.max(largest * 0.4, Math.min(largest, frame.leastRadius));
  if (!node.inCircuit && !node.hinders) return Math.min(smallest, 7);
  return smallest + (largest - smallest) * node.size;
}

/** Where the edges of each group are gathered: the middle of the gap to the next column. */
function spinesOf(data, frame) {
  const spines = {};
  data.columns.forEach((column, i) => {
    const next = data.columns[i + 1];
    spines[column.group] = frame.x(next ? (column.right + next.left) / 2 : data.width);
  });
  return spines;
}

const point = (x, y) => `${x.toFixed(1)},${y.toFixed(1)}`;

const CORNER = 7;
const LANE_SHIFT = 2;

/** A curve from a head up to where its layer joins the spine, in low rows along a lane above. */
function stemPath(at, spineX, joinY, hasLanes) {
  const dx = spineX - at.x, dy = at.y - joinY;
  const end = point(spineX, joinY);
  if (hasLanes) {
    const lane = joinY + LANE_SHIFT, reach = at.x + Math.min(dy * 1.5, dx - CORNER);
    const rise = `C${point(at.x, lane)} ${point(at.x, lane)} ${point(reach, lane)}`;
    return `M${point(at.x, at.y)}${rise}H${(spineX - CORNER).toFixed(1)}Q${point(spineX, lane)} ${point(spineX, lane - CORNER)}`;
  }
  const first = point(at.x + dx * 0.3, at.y - dy * 0.75);
  return `M${point(at.x, at.y)}C${first} ${point(spineX, joinY + dy * 0.85)} ${end}`;
}

/** A curve from the point where a layer leaves the spine into a head; ends at the head's rim. */
function branchPath(at, spineX, leaveY, hasLanes) {
  const dx = at.x - spineX, dy = leaveY - at.y;
  const start = `M${point(spineX, leaveY)}`;
  if (hasLanes) {
    const lane = leaveY - LANE_SHIFT, reach = Math.max(at.x - dy * 1.5, spineX + CORNER);
    const corner = `V${(lane + CORNER).toFixed(1)}Q${point(spineX, lane)} ${point(spineX + CORNER, lane)}`;
    const rim = point(at.x - (at.r + 2) * 0.6, at.y + (at.r + 2) * 0.8);
    return `${start}${corner}H${reach.toFixed(1)}Q${point(Math.max(at.x - dy * 0.7, reach), lane)} ${rim}`;
  }
  const control = { x: at.x - dx * 0.3, y: at.y + dy * 0.75 };
  const gap = (at.r + 3) / (Math.hypot(control.x - at.x, control.y - at.y) || 1);
  const rim = point(at.x + (control.x - at.x) * gap, at.y + (control.y - at.y) * gap);
  const first = point(spineX, leaveY - dy * 0.85);
  return `${start}C${first} ${point(control.x, control.y)} ${rim}`;
}

/** The whole way of one edge, along its spine; to the logits if the target is no head. */
function edgePath({ nodes, rows }, frame, places, spines, source, target) {
  const x = spines[nodes[source].group];
  const stem = stemPath(places[source], x, frame.y(rows[nodes[source].layer].top), frame.hasLanes);
  if (target === nodes.length) return `${stem}V${frame.top - 6}`;
  const leave = frame.y(rows[nodes[target].layer].bottom);
  const branch = branchPath(places[target], x, leave, frame.hasLanes);
  return `${stem}V${leave.toFixed(1)}${branch.replace(/^M[^CV]*/, "")}`;
}

/** A gentle curve from the rim of one place straight to the rim of another. */
function directPath(from, to) {
  const dx = to.x - from.x, dy = to.y - from.y;
  const first = { x: from.x + dx * 0.42, y: from.y + dy * 0.22 }, last = { x: to.x - dx * 0.42, y: to.y - dy * 0.22 };
  const toward = (a, b, distance) => {
    const share = distance / (Math.hypot(b.x - a.x, b.y - a.y) || 1);
    return point(a.x + (b.x - a.x) * share, a.y + (b.y - a.y) * share);
  };
  return `M${toward(from, first, from.r + 2)}C${point(first.x, first.y)} ${point(last.x, last.y)} ${toward(to, last, to.r + 4)}`;
}

/** Which labels can be read without touching a head or another label; strongest heads first. */
function placeLabels(places, textOf, frame) {
  const taken = places.map((p) => [p.x - p.r, p.y - p.r, p.x + p.r, p.y + p.r]);
  const hits = (a, own) => taken.some((b, i) =>
    i !== own && a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]);
  const labels = new Map();
  const order = places.map((_, i) => i).filter((i) => textOf(i));
  order.sort((a, b) => places[b].size - places[a].size);
  for (const i of order) {
    const p = places[i], w = textOf(i).length * LABEL.advance * frame.font + 2, h = LABEL.height * frame.font;
    const spots = [[p.x - w / 2, p.y + p.r + 1], [p.x + p.r + 2, p.y - h / 2]];
    for (const [x, y] of spots) {
      const box = [x, y, x + w, y + h];
      if (y + h <= frame.bottom + 4 && !hits(box, i)) {
        taken.push(box);
        labels.set(i, { x: x + w / 2 - p.x, y: y + h - 3.5 - p.y });
        break;
      }
    }
  }
  return labels;
}

/** The nearest head in a direction (dx, dy): straight ahead counts for more than near. */
function neighbour(places, from, dx, dy) {
  let best = -1, least = Infinity;
  places.forEach((p, i) => {
    const ahead = (p.x - places[from].x) * dx + (p.y - places[from].y) * dy;
    const aside = Math.abs((p.x - places[from].x) * dy) + Math.abs((p.y - places[from].y) * dx);
    if (ahead > 1 && ahead + 2.5 * aside < least) {
      least = ahead + 2.5 * aside;
      best = i;
    }
  });
  return best;
}

/** Where a box of this size beside a head hides the fewest other heads; `room` is what is in sight. */
function placeTip(places, at, size, room) {
  const away = at.r + 14;
  const spots = [
    [at.x + away, at.y - size.height / 2], [at.x - away - size.width, at.y - size.height / 2],
    [at.x - size.width / 2, at.y + away + 12], [at.x - size.width / 2, at.y - away - size.height],
    [at.x + away, at.y + away], [at.x - away - size.width, at.y - away - size.height],
  ].map(([x, y]) => ({
    x: Math.max(Math.min(x, room.right - size.width - 4), room.left + 4),
    y: Math.max(Math.min(y, room.bottom - size.height - 4), 4),
  }));
  const covers = (spot) => places.filter((p) => p.x + p.r > spot.x && p.x - p.r < spot.x + size.width
    && p.y + p.r > spot.y && p.y - p.r < spot.y + size.height).length
    + (places.some((p) => p === at && p.x > spot.x && p.x < spot.x + size.width
      && p.y > spot.y && p.y < spot.y + size.height) ? 1000 : 0);
  return spots.reduce((best, spot) => (covers(spot) < covers(best) ? spot : best));
}
