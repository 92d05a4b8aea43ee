// A layer of a few kernels under the hand: drag their bars, turn the dials r, p and q. The penalty's value, its
// force on every kernel, the formula with its numbers and its degree as a slope answer.

import { forces, groupCount, groupOf, groupSums, kernelNorms, penaltyValue, power } from "./penalty.js";
import { choice, clamp, draggable, followAll, frame, h, put, s, short, tieToPage } from "./shared.js";

const LARGEST = 3; // times as long as the kernel was given
const [WIDE, HIGH, GAP] = [124, 96, 14];
const BAR = 72; // the height of the largest scale
const EXPONENTS = { 0.5: "½", 1: "1", 2: "2" };
const RAISED = { 0.5: "½", 1: "", 2: "2" };

function render({ model, el }) {
  const rows = model.get("rows");
  const shape = model.get("shape");
  const layer = { outputs: shape[0], inputs: shape[1], elements: shape[2] };
  const given = model.get("weight");
  const { body } = frame(el, {
    title: "A penalty and its force on every kernel",
    lead: "Drag a bar up or down (or use the arrow keys on it) to scale that kernel; colour tells how its force changed.",
    model,
    python: () => pythonLines(model),
  });
  const rowNow = () => {
    const dials = { norm: model.get("norm"), inner: model.get("inner"), outer: model.get("outer") };
    const same = (row) => row.norm === dials.norm && row.inner === dials.inner && row.outer === dials.outer;
    return rows.find(same) ?? { key: "", title: "not one of the eleven", ...dials };
  };
  const weightNow = () => {
    const scales = model.get("scales");
    return given.map((value, at) => value * scales[Math.floor(at / layer.elements)]);
  };
  body.append(controls(model, rows, rowNow));
  const name = h("p", { role: "status" });
  const formula = h("div", { class: "formula", role: "math" });
  const bars = makeBars(model, layer);
  const slope = makeSlope();
  body.append(name, formula, h("div", { class: "panels" }, bars.element, slope.element));
  followAll(model, ["norm", "inner", "outer", "grouping", "scales"], () => {
    const [row, weight, grouping] = [rowNow(), weightNow(), model.get("grouping")];
    name.replaceChildren(h("b", {}, row.key ? `${row.key}: ${row.title}` : row.title),
      `, penalty ${short(penaltyValue(row, grouping, weight, layer))}, degree ${short(row.inner * row.outer)}`);
    formula.replaceChildren(...written(row, grouping, weight, layer));
    bars.draw(row, grouping, weight, given);
    slope.draw(row, grouping, weight, layer);
  });
}

function controls(model, rows, rowNow) {
  const pick = h("select", {
    onchange: () => {
      const row = rows.find(({ key }) => key === pick.value);
      for (const dial of ["norm", "inner", "outer"]) model.set(dial, row[dial]);
      model.save_changes();
    },
  }, h("option", { value: "", disabled: true }, "not one of the eleven"));
  for (const row of rows) pick.append(h("option", { value: row.key }, `${row.key}: ${row.title}`));
  followAll(model, ["norm", "inner", "outer"], () => (pick.value = rowNow().key));
  const dial = (key, label, values) => choice(model, key, label, values.map((value) => [value, EXPONENTS[value]]));
  const reset = h("button", { type: "button", onclick: () => put(model, "scales", model.get("scales").map(() => 1)) }, "all back to scale 1");
  return h("div", { class: "controls" },
    h("label", {}, "penalty", pick),
    dial("norm", "r, norm of a kernel", [1, 2]),
    dial("inner", "p, inside the group", [0.5, 1, 2]),
    dial("outer", "q, outside", [0.5, 1, 2]),
    choice(model, "grouping", "groups", [["feature", "feature-wise"], ["neuron", "neuron-wise"]]),
    reset);
}

/** The formula with the layer's numbers: a bracket a group. */
function written(row, grouping, weight, layer) {
  const norms = kernelNorms(weight, layer, row.norm);
  const parts = ["Σ", h("sub", {}, "g"), " ( Σ", h("sub", {}, "k"), " ‖w‖", h("sub", {}, String(row.norm)),
    h("sup", {}, RAISED[row.inner]), " )", h("sup", {}, RAISED[row.outer]), " = "];
  for (let g = 0; g < groupCount(layer, grouping); g++) {
    const terms = [...norms.keys()].filter((k) => groupOf(k, layer, grouping) === g);
    parts.push(g ? " + (" : "(");
    terms.forEach((k, n) => parts.push(n ? " + " : "", short(norms[k]), h("sup", {}, RAISED[row.inner])));
    parts.push(")", h("sup", {}, RAISED[row.outer]));
  }
  const sums = groupSums(row, grouping, norms, layer);
  const values = [...sums].map((sum) => short(power(sum, row.outer)));
  parts.push(" = ", values.join(" + "), " = ", h("b", {}, short([...sums].reduce((total, sum) => total + power(sum, row.outer), 0))));
  return parts;
}

function makeBars(model, layer) {
  const svg = s("svg", {
    viewBox: `-30 -22 ${layer.inputs * (WIDE + GAP) + 34} ${layer.outputs * (HIGH + GAP) + 26}`,
    role: "group", "aria-label": "the layer's kernels",
    style: `max-width:${Math.round(1.25 * layer.inputs * (WIDE + GAP) + 40)}px`,
  });
  const cells = [];
  const frames = s("g");
  svg.append(frames);
  for (let i = 0; i < layer.inputs; i++) {
    svg.append(s("text", { x: i * (WIDE + GAP) + WIDE / 2, y: -8, "text-anchor": "middle" }, `input ${i}`));
  }
  for (let o = 0; o < layer.outputs; o++) {
    const y = o * (HIGH + GAP);
    svg.append(s("text", { x: -12, y: y + HIGH / 2, transform: `rotate(-90 -12 ${y + HIGH / 2})`, "text-anchor": "middle" }, `output ${o}`));
    for (let i = 0; i < layer.inputs; i++) cells.push(makeCell(model, o, i, o * layer.inputs + i, svg, layer));
  }
  const draw = (row, grouping, weight, given) => {
    const [now, before] = [forces(row, grouping, weight, layer), forces(row, grouping, given, layer)];
    const norms = kernelNorms(weight, layer, row.norm);
    cells.forEach((cell, k) => cell(now[k], before[k], norms[k]));
    frames.replaceChildren(...groupFrames(grouping, layer));
  };
  return { element: h("div", { class: "pane" }, h("p", { class: "title" }, "Kernels (bars) and the force on each (number)"), svg), draw };
}

function groupFrames(grouping, layer) {
  const [across, down] = [WIDE + GAP, HIGH + GAP];
  const boxes = grouping === "feature"
    ? Array.from({ length: layer.inputs }, (_, i) => [i * across, 0, WIDE, layer.outputs * down - GAP])
    : Array.from({ length: layer.outputs }, (_, o) => [0, o * down, layer.inputs * across - GAP, HIGH]);
  return boxes.map(([x, y, width, height]) =>
    s("rect", { x: x - 5, y: y - 5, width: width + 10, height: height + 10, rx: 8, fill: "none", stroke: "var(--main)", "stroke-width": 1.8, "stroke-dasharray": "6 4" }));
}

function makeCell(model, o, i, k, svg, layer) {
  const [x, y] = [i * (WIDE + GAP), o * (HIGH + GAP)];
  const back = s("rect", { x, y, width: WIDE, height: HIGH, rx: 5, fill: "var(--panel)", stroke: "var(--line)" });
  const base = y + HIGH - 8;
  const bar = s("rect", { x: x + 12, width: 26, fill: "var(--main)", rx: 3 });
  const grip = s("rect", { x: x + 6, width: 38, height: 9, rx: 4, fill: "var(--ink)" });
  const one = s("path", { d: `M${x + 8} ${base - BAR / LARGEST}h34`, stroke: "var(--soft)", "stroke-dasharray": "2 2" });
  const force = s("text", { x: x + WIDE - 8, y: y + 38, "text-anchor": "end", class: "strong", style: "font-size:17px" });
  const label = s("text", { x: x + WIDE - 8, y: y + 20, "text-anchor": "end" }, "force");
  const change = s("text", { x: x + WIDE - 8, y: y + 57, "text-anchor": "end" });
  const size = s("text", { x: x + WIDE - 8, y: y + HIGH - 9, "text-anchor": "end" });
  svg.append(back, bar, one, grip, label, force, change, size);
  const scale = () => model.get("scales")[k];
  const tell = draggable(grip, {
    label: `scale of the kernel of output ${o}, input ${i}`,
    words: () => `${short(scale())} times`,
    unit: () => (svg.getBoundingClientRect().width / (layer.inputs * (WIDE + GAP) + 34)) * (BAR / LARGEST),
    move: (dx, dy) => {
      const next = Math.round(1000 * clamp(scale() + dx - dy, 0, LARGEST)) / 1000;
      put(model, "scales", model.get("scales").map((value, n) => (n === k ? next : value)));
    },
  });
  return (now, before, norm) => {
    const height = (BAR * scale()) / LARGEST;
    bar.setAttribute("y", base - height);
    bar.setAttribute("height", height);
    grip.setAttribute("y", base - height - 4);
    const times = before > 0 && now > 0 ? now / before : 1;
    force.textContent = short(now);
    change.textContent = Math.abs(times - 1) < 0.005 ? "" : `${times > 1 ? "▲" : "▼"} ×${short(times)}`;
    size.textContent = `norm ${short(norm)}`;
    const strength = Math.min(1, Math.abs(Math.log2(times)) / 2);
    back.style.fill = strength < 0.005 ? "" : `color-mix(in srgb, ${times > 1 ? "var(--warm)" : "var(--pink)"} ${Math.round(8 + 40 * strength)}%, var(--panel))`;
    tell();
  };
}

/** The penalty of t times the layer against t, both logarithmic: a line whose slope is the degree. */
function makeSlope() {
  const [width, height] = [300, 240];
  const line = s("path", { fill: "none", stroke: "var(--main)", "stroke-width": 2.5 });
  const now = s("circle", { r: 5, fill: "var(--warm)" });
  const text = s("text", { x: 12, y: 18, class: "strong" });
  const svg = s("svg", { viewBox: `-34 -6 ${width + 44} ${height + 32}`, role: "img", "aria-label": "slope, still empty" },
    s("path", { d: `M0 0V${height}H${width}`, fill: "none", stroke: "var(--soft)" }),
    ...[0.1, 1, 10].flatMap((t, n) => [
      s("text", { x: (width * n) / 2, y: height + 16, "text-anchor": "middle" }, String(t)),
      s("path", { d: `M${(width * n) / 2} 0V${height}`, stroke: "var(--line)" })]),
    ...[["×100", 0.25], ["×1", 0.5], ["÷100", 0.75]].map(([label, share]) =>
      s("text", { x: -4, y: height * share + 4, "text-anchor": "end" }, label)),
    s("text", { x: width / 2, y: height + 28, "text-anchor": "middle" }, "the layer times t"),
    line, now, text);
  const draw = (row, grouping, weight, layer) => {
    const own = penaltyValue(row, grouping, weight, layer);
    const at = (exponent) => {
      const value = penaltyValue(row, grouping, weight.map((w) => w * 10 ** exponent), layer);
      return [(width * (exponent + 1)) / 2, height / 2 - (Math.log10(value / own) * height) / 8];
    };
    const points = own > 0 ? Array.from({ length: 21 }, (_, n) => at(n / 10 - 1)) : [];
    line.setAttribute("d", points.length ? `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}` : "");
    now.setAttribute("cx", width / 2);
    now.setAttribute("cy", height / 2);
    text.textContent = own > 0 ? `slope = degree = p · q = ${short(row.inner * row.outer)}` : "the layer is zero";
    svg.setAttribute("aria-label", `penalty of t times the layer against t: ${text.textContent}`);
  };
  return { element: h("div", { class: "pane" }, h("p", { class: "title" }, "Penalty of the layer times t"), svg), draw };
}

function pythonLines(model) {
  const rows = model.get("rows");
  const row = rows.find((each) => ["norm", "inner", "outer"].every((dial) => each[dial] === model.get(dial)));
  const [outputs, inputs, elements] = model.get("shape");
  const scales = model.get("scales");
  const numbers = model.get("weight").map((value, at) => Number((value * scales[Math.floor(at / elements)]).toPrecision(4)));
  return [
    "import torch, hgsr_lite as hg",
    `weight = torch.tensor(${JSON.stringify(numbers)}).reshape(${outputs}, ${inputs}, ${elements})`,
    row ? `hg.Penalty("${row.key}", grouping="${model.get("grouping")}").force(weight)` : "# these dials are not one of the eleven penalties",
  ].join("\n");
}

export default { initialize: tieToPage, render };
