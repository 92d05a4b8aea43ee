// Two paths of a study side by side: scrub the strength, see the accuracy and what would be removed.

import { follow, followAll, frame, h, percent, s, select, short, slider, tieToPage } from "./shared.js";

const [WIDTH, HEIGHT] = [320, 220];
const SIDES = [
  { key: "left", stroke: "var(--main)", dash: "none", mark: "●" },
  { key: "right", stroke: "var(--warm)", dash: "7 3", mark: "■" },
];
const ROWS = [["kernels", "kernels"], ["input_channels", "inputs"], ["output_channels", "outputs"]];
const GAINS = ["dead kernels", "below tolerance", "parameters removed", "MACs removed", "dead inputs", "dead outputs"];

function render({ model, el }) {
  const paths = model.get("paths");
  const names = paths.map(({ name }) => [name, name]);
  const most = Math.max(...paths.map(({ points }) => points.length)) - 1;
  const pathOf = (key) => paths.find(({ name }) => name === model.get(key)) ?? paths[0];
  const placeIn = ({ points }) => Math.min(model.get("at"), points.length - 1);
  const { body } = frame(el, {
    title: "What each strength removes, and what it costs",
    lead: "Two penalties, each on its own path of strengths. Scrub from weak to strong: the accuracy, and what compact would take away.",
    model,
    python: () => pythonLines(pathOf("left").name, model),
  });
  const chart = makeChart();
  const sides = SIDES.map((side) => makeSide(side, `${side.mark} ${side.key}`));
  const words = (at) => (at >= most ? "strongest" : at <= 0 ? "weakest" : `${at + 1} of ${most + 1}`);
  body.append(
    h("div", { class: "controls" },
      ...SIDES.map(({ key, mark }) => select(model, key, `${mark} ${key}`, names)),
      slider(model, "at", "strength", { min: 0, max: most, step: 1, words }),
      select(model, "after", "validation accuracy", [["fine-tuning", "after fine-tuning"], ["removal", "after removal"]]),
      select(model, "gain", "against", GAINS.map((gain) => [gain, gain]))),
    h("div", { class: "panels" }, chart.element, ...sides.map(({ element }) => element)));

  followAll(model, ["left", "right", "at", "after", "gain"], () => {
    const shown = SIDES.map((side) => ({ ...side, path: pathOf(side.key) }));
    chart.draw(shown.map((side) => ({ ...side, at: placeIn(side.path) })), model.get("gain"), model.get("after"));
    sides.forEach((side, n) => side.draw(shown[n].path, placeIn(shown[n].path), model.get("after")));
  });
  // An address or a Python session may name a path that this study has not: the list shows what is drawn.
  for (const { key } of SIDES) follow(model, key, () => model.get(key) !== pathOf(key).name && model.set(key, pathOf(key).name));
}

const inWords = ({ mean, "±": half, seeds }) => mean === null ? "not known for every seed" :
  `${percent(mean)} ± ${(100 * half).toFixed(1)} (95 %, ${seeds} seeds)`;

/** Accuracy against what goes, with the interval as a band; where the slider stands is marked. */
function makeChart() {
  const lines = s("g");
  const across = s("text", { x: WIDTH, y: HEIGHT + 32, "text-anchor": "end" });
  const grid = [0, 0.5, 1].flatMap((share) => [
    s("path", { d: `M0 ${HEIGHT * (1 - share)}H${WIDTH}`, stroke: "var(--line)" }),
    s("text", { x: -5, y: HEIGHT * (1 - share) + 4, "text-anchor": "end" }, `${100 * share} %`),
    s("text", { x: WIDTH * share, y: HEIGHT + 16, "text-anchor": "middle" }, `${100 * share} %`),
  ]);
  const svg = s("svg", { viewBox: `-42 -10 ${WIDTH + 62} ${HEIGHT + 48}`, role: "img", "aria-label": "paths, still empty" }, ...grid, across, lines);
  const title = h("p", { class: "title" });
  const draw = (sides, gain, after) => {
    lines.replaceChildren(...sides.flatMap((side) => drawPath(side, gain, after)));
    across.textContent = `${gain}, share`;
    title.textContent = `validation accuracy after ${after}`;
    svg.setAttribute("aria-label", sides.map(({ key, path, at }) =>
      `${key}, ${path.name}: ${inWords(path.points[at].accuracy[after])} at ${percent(path.points[at][gain])} ${gain}`).join("; "));
  };
  return { element: h("div", { class: "pane" }, title, svg), draw };
}

function drawPath({ key, stroke, dash, path, at }, gain, after) {
  const height = (share) => HEIGHT * (1 - Math.min(1, Math.max(0, share)));
  const known = path.points.filter((point) => point.accuracy[after].mean !== null);
  const edge = (point, sign) => `${WIDTH * point[gain]} ${height(point.accuracy[after].mean + sign * point.accuracy[after]["±"])}`;
  const middle = known.map((point) => edge(point, 0));
  if (!known.length) return [];
  const band = [...known.map((point) => edge(point, 1)), ...[...known].reverse().map((point) => edge(point, -1))];
  const parts = [
    s("path", { d: `M${band.join("L")}Z`, fill: stroke, opacity: 0.15 }),
    s("path", { d: `M${middle.join("L")}`, fill: "none", stroke, "stroke-width": 2, "stroke-dasharray": dash }),
    ...known.map((point) => marker(key, point, 2.5, edge(point, 0), stroke)),
  ];
  const now = path.points[at];
  if (now.accuracy[after].mean === null) return parts;
  return [...parts, s("path", { d: `M${edge(now, 1)}L${edge(now, -1)}`, stroke, "stroke-width": 2.5 }), marker(key, now, 6, edge(now, 0), stroke)];
}

function marker(key, point, size, place, fill) {
  const [x, y] = place.split(" ").map(Number);
  return key === "left" ? s("circle", { cx: x, cy: y, r: size, fill }) :
    s("rect", { x: x - size, y: y - size, width: 2 * size, height: 2 * size, fill });
}

/** One path where the slider stands: its figures, and a bar for each layer's kernels, inputs and outputs. */
function makeSide({ stroke }, heading) {
  const name = h("p", { class: "title" });
  const facts = h("ul", { class: "facts", style: "gap:2px 14px" });
  const svg = s("svg", { role: "img", "aria-label": "maps, still empty" });
  const draw = (path, at, after) => {
    const point = path.points[at];
    name.textContent = `${heading}: ${path.name}`;
    const told = [
      ["accuracy", inWords(point.accuracy[after])], ["strength", point.strength === null ? "–" : short(point.strength)],
      ["compact removes", `${percent(point["parameters removed"])} of the parameters, ${percent(point["MACs removed"])} of the multiply-adds`],
    ];
    facts.replaceChildren(...told.map(([what, value]) => h("li", {}, `${what} `, h("span", { class: "value" }, value))));
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${point.layers.length * 70}`);
    svg.replaceChildren(...point.layers.flatMap((layer, n) => drawLayer(layer, 70 * n, stroke)));
    svg.setAttribute("aria-label", point.layers.map((layer) => `${layer.layer}: dead are ${ROWS.map(([key, what]) =>
      `${short(layer[`dead_${key}`])} of ${layer[key]} ${what}`).join(", ")}`).join("; "));
  };
  return { element: h("div", { class: "pane" }, name, facts, svg), draw };
}

function drawLayer(layer, top, stroke) {
  const [start, length] = [60, 130];
  return [
    s("text", { x: 0, y: top + 16, class: "strong" }, layer.layer),
    ...ROWS.flatMap(([key, what], n) => {
      const [y, dead] = [top + 22 + 15 * n, layer[`dead_${key}`]];
      return [
        s("text", { x: 0, y: y + 10 }, what),
        s("rect", { x: start, y, width: length, height: 11, fill: stroke, opacity: 0.35 }),
        s("rect", { x: start, y, width: (length * dead) / layer[key], height: 11, fill: "var(--ink)" }),
        s("text", { x: start + length + 6, y: y + 10 }, `${short(dead)} of ${layer[key]} dead`),
      ];
    }),
  ];
}

function pythonLines(name, model) {
  const [method, grouping, step] = name.split(", ");
  return [
    "# table: what read_table returned",
    "from hgsr_lite.study import prepared, summary",
    "runs = prepared(table)",
    `path = runs[(runs["method"] == "${method}") & (runs["grouping"] == "${grouping}") & (runs["step"] == "${step}")]`,
    `print(summary(path, "validation accuracy after ${model.get("after")}", ["fraction"]))`,
  ].join("\n");
}

export default { initialize: tieToPage, render };
