// Three one-weight kernels in two planes: a and b share a group, c is alone in another. Drag the point; the
// penalty's level line, its pull, and where one proximal step lands answer.

import { forces, hasClosedProx, penaltyValue, power, proximalStep } from "./penalty.js";
import { choice, clamp, draggable, followAll, frame, h, pythonNumber, s, select, short, slider, tieToPage } from "./shared.js";

const REACH = 2;
const SIZE = 300; // of a panel, in units of its drawing
const CELLS = 121;
const STEPS = 60;
const SMALL = 0.1; // share of the step, for each of the repeated ones
const NAMES = ["a", "b", "c"];
const PLANES = [
  { names: ["a", "b"], title: "a and b share a group" },
  { names: ["a", "c"], title: "a and c are in different groups" },
];
const PAIR = { outputs: 2, inputs: 1, elements: 1 };
const ALONE = { outputs: 1, inputs: 1, elements: 1 };
const LANDINGS = [
  ["neither", [200, 208, 216, 90]],
  ["a", [86, 180, 233, 190]],
  ["b or c", [230, 159, 0, 190]],
  ["both", [30, 34, 40, 225]],
];

/** The penalty of (a, b) in one group and c in another. */
const valueAt = (row, a, b, c) => penaltyValue(row, "feature", [a, b], PAIR) + penaltyValue(row, "feature", [c], ALONE);

function landingOf(row, a, b, c, step) {
  const [pair, alone] = [[a, b], [c]];
  proximalStep(row, "feature", pair, PAIR, step);
  proximalStep(row, "feature", alone, ALONE, step);
  return { a: pair[0], b: pair[1], c: alone[0] };
}

function pullAt(row, a, b, c) {
  const pair = forces(row, "feature", [a, b], PAIR);
  return { a: pair[0], b: pair[1], c: forces(row, "feature", [c], ALONE)[0] };
}

function render({ model, el }) {
  const rows = model.get("rows");
  const rowNow = () => rows.find((row) => row.key === model.get("key")) ?? rows[0];
  const point = () => Object.fromEntries(NAMES.map((name) => [name, model.get(name)]));
  const { body } = frame(el, {
    title: "Norms that make zeros",
    lead: "Drag the point (or use the arrow keys on it). Coloured regions: from there, one proximal step sets that kernel to zero.",
    model,
    python: () => pythonLines(model),
  });
  body.append(
    h("div", { class: "controls" },
      select(model, "key", "penalty", rows.map((row) => [row.key, `${row.key}: ${row.title}`])),
      slider(model, "step", "step", { min: 0.05, max: 1, step: 0.05 }),
      choice(model, "three", "kernels", [[false, "a, b"], [true, "a, b and c"]]),
    ),
  );
  const planes = PLANES.map((plane) => makePlane(plane, model));
  const race = makeRace();
  body.append(h("div", { class: "panels" }, ...planes.map(({ element }) => element), race.element));
  const facts = h("ul", { class: "facts" });
  const missing = h("p", { class: "note", hidden: true });
  body.append(legend(), facts, missing);

  followAll(model, ["key", "step", "three", ...NAMES], () => {
    const [row, step, at] = [rowNow(), model.get("step"), point()];
    if (!model.get("three")) at.c = 0;
    const landing = hasClosedProx(row) ? landingOf(row, at.a, at.b, at.c, step) : null;
    planes[1].element.hidden = !model.get("three");
    for (const plane of planes) if (!plane.element.hidden) plane.draw(row, step, at, landing);
    race.draw(row, step, at, model.get("three") ? NAMES : ["a", "b"]);
    facts.replaceChildren(...factsOf(row, at, landing, model.get("three") ? NAMES : ["a", "b"]));
    missing.hidden = landing !== null;
    missing.textContent = `The proximal step of ${row.key} is no closed form, so the page does not take it: Penalty("${row.key}").prox in Python does.`;
  });
}

function factsOf(row, at, landing, names) {
  const pull = pullAt(row, at.a, at.b, at.c);
  const items = [`penalty ${short(valueAt(row, at.a, at.b, at.c))}`];
  for (const name of names) {
    const lands = landing ? `, lands at ${landing[name] === 0 ? "exactly 0" : short(landing[name])}` : "";
    items.push(`${name} = ${short(at[name])}: pull ${short(pull[name])}${lands}`);
  }
  return items.map((text) => h("li", {}, text));
}

function legend() {
  const items = LANDINGS.map(([name, shade]) =>
    h("li", {}, h("span", { class: "key", style: `background:rgba(${shade.slice(0, 3)},${shade[3] / 255})` }),
      name === "both" ? "both become zero" : name === "neither" ? "neither becomes zero" : `${name} becomes zero`));
  items.push(h("li", {}, "● start, ■ where one step lands, dashed: the unit ball, solid: the level line"));
  return h("ul", { class: "facts" }, ...items);
}

const toX = (value) => (SIZE * (value + REACH)) / (2 * REACH);
const toY = (value) => (SIZE * (REACH - value)) / (2 * REACH);

function makePlane({ names, title }, model) {
  const [first, second] = names;
  const canvas = h("canvas", { "aria-hidden": "true" });
  canvas.width = canvas.height = CELLS;
  const picture = s("image", { width: SIZE, height: SIZE, preserveAspectRatio: "none", style: "image-rendering:pixelated" });
  const ball = s("path", { fill: "none", stroke: "var(--soft)", "stroke-width": 1.5, "stroke-dasharray": "4 3" });
  const level = s("path", { fill: "none", stroke: "var(--main)", "stroke-width": 2.5 });
  const pull = s("line", { stroke: "var(--green)", "stroke-width": 2, "stroke-dasharray": "2 2" });
  const arrow = s("line", { stroke: "var(--ink)", "stroke-width": 2.5 });
  const end = s("rect", { width: 12, height: 12, fill: "var(--warm)", stroke: "var(--page)", "stroke-width": 1.5 });
  const start = s("circle", { r: 9, fill: "var(--main)", stroke: "var(--page)", "stroke-width": 2 });
  const clip = `hgsr-clip-${Math.random().toString(36).slice(2)}`;
  const svg = s("svg", { viewBox: `-14 -4 ${SIZE + 18} ${SIZE + 22}`, role: "group", "aria-label": `plane of ${first} and ${second}` },
    s("clipPath", { id: clip }, s("rect", { width: SIZE, height: SIZE })),
    s("g", { "clip-path": `url(#${clip})` }, foreign(canvas), ball, level),
    s("rect", { width: SIZE, height: SIZE, fill: "none", stroke: "var(--line)" }),
    s("path", { d: `M0 ${SIZE / 2}H${SIZE}M${SIZE / 2} 0V${SIZE}`, stroke: "var(--soft)", "stroke-width": 0.7 }),
    s("text", { x: SIZE / 2, y: SIZE + 14, "text-anchor": "middle" }, `kernel ${first}, from −2 to 2`),
    s("text", { x: -5, y: SIZE / 2, transform: `rotate(-90 -5 ${SIZE / 2})`, "text-anchor": "middle" }, `kernel ${second}`),
    pull, arrow, end, start,
  );
  const tell = draggable(start, {
    label: `kernels ${first} and ${second}`,
    words: () => `${first} ${short(model.get(first))}, ${second} ${short(model.get(second))}`,
    unit: () => (svg.getBoundingClientRect().width / (SIZE + 18)) * (SIZE / (2 * REACH)),
    move: (dx, dy) => {
      exact[first] = clamp(exact[first] + dx, -REACH, REACH);
      exact[second] = clamp(exact[second] - dy, -REACH, REACH);
      for (const name of names) model.set(name, Math.round(100 * exact[name]) / 100);
      model.save_changes();
    },
  });
  const exact = {}; // finer than what is shown, so that slow drags add up
  let drawn = "";
  const draw = (row, step, at, landing) => {
    for (const name of names) if (Math.abs((exact[name] ?? 9) - at[name]) > 0.006) exact[name] = at[name];
    const regions = [row.key, step, first === "a" && second === "b" ? "" : at.b].join();
    if (landing && regions !== drawn) paintRegions(canvas, row, step, second === "b" ? null : at.b);
    drawn = regions;
    canvas.style.visibility = landing ? "visible" : "hidden";
    const fixed = second === "b" ? null : at.b;
    ball.setAttribute("d", levelPath(row, fixed, 1));
    level.setAttribute("d", levelPath(row, fixed, levelHere(row, at, second)));
    place(start, { cx: toX(at[first]), cy: toY(at[second]) });
    const force = pullAt(row, at.a, at.b, at.c);
    const length = Math.hypot(force[first], force[second]) || 1;
    const drawnLength = 18 + 22 * Math.min(1, length / 4);
    place(pull, {
      x1: toX(at[first]), y1: toY(at[second]),
      x2: toX(at[first]) - (Math.sign(at[first]) * force[first] * drawnLength) / length,
      y2: toY(at[second]) + (Math.sign(at[second]) * force[second] * drawnLength) / length,
    });
    for (const part of [end, arrow]) part.style.display = landing ? "" : "none";
    if (!landing) return tell();
    place(end, { x: toX(landing[first]) - 6, y: toY(landing[second]) - 6 });
    place(arrow, { x1: toX(at[first]), y1: toY(at[second]), x2: toX(landing[first]), y2: toY(landing[second]) });
    return tell();
  };
  return { element: h("div", { class: "pane" }, h("p", { class: "title" }, title), svg), draw };
}

function foreign(canvas) {
  canvas.style.cssText = "width:100%;height:100%";
  return s("foreignObject", { width: SIZE, height: SIZE }, canvas);
}

function place(element, numbers) {
  for (const [name, value] of Object.entries(numbers)) element.setAttribute(name, value.toFixed(2));
}

/** Which kernels one step sets to zero, from every start; `b` is held where the plane is that of a and c. */
function paintRegions(canvas, row, step, b) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(CELLS, CELLS);
  const half = (CELLS - 1) / 2;
  // Signs play no part, so a quarter of the plane tells the rest.
  for (let y = 0; y <= half; y++) {
    for (let x = 0; x <= half; x++) {
      const [u, v] = [((half - x) * REACH) / half, ((half - y) * REACH) / half];
      const landed = b === null ? landingOf(row, u, v, 0, step) : landingOf(row, u, b, v, step);
      const shade = LANDINGS[(landed.a === 0) + 2 * ((b === null ? landed.b : landed.c) === 0)][1];
      for (const column of [x, CELLS - 1 - x]) {
        for (const line of [y, CELLS - 1 - y]) image.data.set(shade, 4 * (line * CELLS + column));
      }
    }
  }
  context.putImageData(image, 0, 0);
}

/** The penalty that the level line of a plane stands for: in (a, b), c's own part is the same everywhere. */
function levelHere(row, at, second) {
  return second === "b" ? penaltyValue(row, "feature", [at.a, at.b], PAIR) : valueAt(row, at.a, at.b, at.c);
}

/** Where the penalty is `value`, for the first coordinate from -reach to reach, solved for the second. */
function levelPath(row, b, value) {
  const inGroup = (u) => penaltyValue(row, "feature", [u, b ?? 0], PAIR);
  const solve = (u) => {
    if (b !== null) return power(Math.max(0, value - inGroup(u)), 1 / (row.inner * row.outer));
    const left = power(value, 1 / row.outer) - power(Math.abs(u), row.inner); // of the sum inside the group
    return left < 0 ? NaN : power(left, 1 / row.inner);
  };
  const most = b === null ? power(value, 1 / (row.inner * row.outer)) : widest(row, b, value);
  if (!(most > 0)) return "";
  const upper = [];
  for (let n = 0; n <= 120; n++) {
    const turn = (Math.PI * n) / 120;
    const u = most * sharpened(Math.cos(turn)); // dense at the tips and around the middle, where thin balls bend
    const v = solve(clamp(u, -most, most));
    if (Number.isFinite(v)) upper.push([u, v]);
  }
  const lower = upper.map(([u, v]) => [u, -v]).reverse();
  return `M${[...upper, ...lower].map(([u, v]) => `${toX(u).toFixed(1)} ${toY(v).toFixed(1)}`).join("L")}Z`;
}

const sharpened = (cosine) => Math.sign(cosine) * Math.abs(cosine) ** 1.6;

/** The largest a that keeps the penalty of (a, b) within `value`, by halving. */
function widest(row, b, value) {
  if (penaltyValue(row, "feature", [0, b], PAIR) >= value) return 0;
  let [low, high] = [0, 2 * REACH];
  for (let n = 0; n < 40; n++) {
    const middle = (low + high) / 2;
    if (penaltyValue(row, "feature", [middle, b], PAIR) <= value) low = middle;
    else high = middle;
  }
  return low;
}

function makeRace() {
  const [width, height] = [300, 300];
  const lines = NAMES.map((name, n) =>
    s("path", { fill: "none", stroke: ["var(--main)", "var(--warm)", "var(--green)"][n], "stroke-width": 2.5,
      "stroke-dasharray": ["none", "7 4", "2 3"][n] }));
  const labels = NAMES.map((name, n) => s("text", { style: `fill:${["var(--main)", "var(--warm)", "var(--green)"][n]};font-weight:600` }, `|${name}|`));
  const nothing = s("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "no closed form");
  const svg = s("svg", { viewBox: `-24 -4 ${width + 34} ${height + 22}`, role: "img", "aria-label": "curves, still empty" },
    s("path", { d: `M0 0V${height}H${width}`, fill: "none", stroke: "var(--soft)" }),
    s("text", { x: width / 2, y: height + 14, "text-anchor": "middle" }, `${STEPS} steps, each a tenth of the size`),
    s("text", { x: -6, y: 10, "text-anchor": "end" }, "2"), s("text", { x: -6, y: height, "text-anchor": "end" }, "0"),
    ...lines, ...labels, nothing);
  const draw = (row, step, at, names) => {
    const closed = hasClosedProx(row);
    nothing.style.display = closed ? "none" : "";
    let [a, b, c] = [at.a, at.b, at.c];
    const paths = NAMES.map(() => []);
    for (let n = 0; closed && n <= STEPS; n++) {
      [a, b, c].forEach((value, k) => paths[k].push(`${((width * n) / STEPS).toFixed(1)} ${((height * (REACH - Math.abs(value))) / REACH).toFixed(1)}`));
      ({ a, b, c } = landingOf(row, a, b, c, SMALL * step));
    }
    NAMES.forEach((name, k) => {
      const shown = closed && names.includes(name);
      lines[k].setAttribute("d", shown ? `M${paths[k].join("L")}` : "");
      labels[k].style.display = shown ? "" : "none";
      place(labels[k], { x: 8 + 30 * k, y: Math.max(12, (height * (REACH - Math.abs(at[name]))) / REACH - 6) });
    });
    svg.setAttribute("aria-label", closed ? `after ${STEPS} small steps: ${names.map((name, k) => `${name} ${short([a, b, c][k])}`).join(", ")}` : "no closed form");
  };
  return { element: h("div", { class: "pane" }, h("p", { class: "title" }, "Sizes under repeated small steps"), svg), draw };
}

function pythonLines(model) {
  const numbers = NAMES.map((name) => pythonNumber(model.get(name)));
  return [
    "import torch, hgsr_lite as hg",
    `same_group = torch.tensor([[${numbers[0]}], [${numbers[1]}]])  # kernels a and b`,
    `hg.Penalty("${model.get("key")}").prox(same_group, step=${pythonNumber(model.get("step"))})`,
  ].join("\n");
}

export default { initialize: tieToPage, render };
