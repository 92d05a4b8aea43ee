// The part that every figure with a training run shares: buttons, progress, curves, maps, and a table of runs.

import { colorKey, curves, kernelMap, levelOf } from "./charts.js";
import { h, percent, short } from "./shared.js";

export const SCALE = { smallest: 1e-4, largest: 10 };
const TIME = "milliseconds an image";
const COLUMNS = [
  ["validation accuracy", "accuracy"], ["validation accuracy after zeroing", "after zeroing"], ["below tolerance", "below tolerance"],
  ["exact zeros", "exact zeros"], ["dead kernels", "dead kernels"], ["dead inputs", "dead inputs"],
  ["dead outputs", "dead outputs"], [TIME, "ms an image"],
];
const RUN_SETTINGS = ["penalty", "grouping", "strength", "l1_mix", "warmup", "proximal", "tolerance"];

export const seconds = (time) => (time < 10 ? `${time.toFixed(1)} s` : time < 90 ? `${Math.round(time)} s` : `${Math.round(time / 60)} min`);

export const settingsInWords = (run) => run.penalty === null ? "dense: no penalty" :
  `${run.penalty}, ${run.grouping}-wise, strength ${short(run.strength)}` + (run.l1_mix ? `, l1 mix ${short(run.l1_mix)}` : "") +
  (run.warmup ? `, warm-up ${short(run.warmup)}` : "") + (run.proximal ? ", proximal" : "");

/** Buttons whose state follows the phase: idle, running, paused. `act(name)` is told which was pressed. */
export function runButtons(act) {
  const make = (name, text, title, first) => h("button", { type: "button", title, class: first ? "first" : "", onclick: () => act(name) }, text);
  const buttons = {
    train: make("train", "▶ Train", "start a run with the settings shown", true),
    pause: make("pause", "Pause", "hold the run; press again to go on"),
    step: make("step", "One epoch", "train for one epoch, then hold"),
    stop: make("stop", "Stop", "end the run here and keep what it reached"),
    reset: make("reset", "↺ Reset", "forget all runs"),
  };
  const draw = (phase) => {
    const under = phase !== "idle";
    buttons.train.disabled = under;
    buttons.pause.disabled = buttons.stop.disabled = !under;
    buttons.step.disabled = phase === "running";
    buttons.pause.textContent = phase === "paused" ? "Go on" : "Pause";
  };
  draw("idle");
  return { element: h("div", { class: "controls", role: "group", "aria-label": "training" }, ...Object.values(buttons)), draw, buttons };
}

/** Progress, curves, the map of a layer beside that of an earlier run, and the table of runs. */
export function runView({ colors, layers, csvName }) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": "share of the run that is done" });
  const status = h("p", { role: "status", "aria-live": "polite", style: "min-height:1.5em" });
  const stale = h("p", { class: "note", hidden: true });
  const lines = curves();
  const reading = h("p", { style: "min-height:2.9em;font-size:12.5px" }, "Point at a kernel to read it.");
  const point = (text) => (reading.textContent = text || "Point at a kernel to read it.");
  const [now, other] = [kernelMap(colors, point), kernelMap(colors, point)];
  const [nowTitle, otherCount, nowCount] = [h("p", { class: "title" }), h("p"), h("p")];
  const key = colorKey(colors);
  const layer = h("select", { "aria-label": "layer shown" }, ...layers.map(({ name }, n) => h("option", { value: n }, name)));
  const against = h("select", { "aria-label": "run compared with" });
  const table = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "table of runs" });
  const csv = h("button", { type: "button" }, "save the table as CSV");
  layer.value = Math.floor(layers.length / 2);
  let shown = { records: [], norms: null, epochs: 1, runs: [], tolerance: 1e-3, stale: false };
  const redraw = () => draw(shown);
  layer.addEventListener("change", redraw);
  against.addEventListener("change", redraw);
  csv.addEventListener("click", () => save(csvName, asCsv(shown.runs)));

  const element = h("div", {},
    bar, status, stale,
    h("div", { class: "controls" }, h("label", {}, "layer", layer), h("label", {}, "compare with", against)),
    h("div", { class: "panels" },
      h("div", { class: "pane" }, h("p", { class: "title" }, "the run"), lines.element),
      h("div", { class: "pane" }, nowTitle, now.element, nowCount),
      h("div", { class: "pane" }, h("p", { class: "title" }, "compared with"), other.element, otherCount)),
    reading, key.element, table, h("div", { class: "foot" }, csv));
  key.draw(SCALE);

  const drawMap = (map, count, name, norms) => {
    const { outputs, inputs, start, elements } = layers[Number(layer.value)];
    const part = norms.subarray(start, start + outputs * inputs);
    const levels = Uint8Array.from(part, (norm) => levelOf(norm, SCALE));
    const found = map.draw(name, outputs, inputs, levels, SCALE, shown.tolerance * elements);
    count.textContent = `${found.kernels} of ${part.length} kernels have a mean |weight| below ${short(shown.tolerance)}; ${found.inputs} inputs and ${found.outputs} outputs have none above`;
  };
  /** `runs`: { name, settings..., records, norms, metrics }, the newest last. */
  const draw = (next) => {
    shown = { ...shown, ...next };
    if (next.runs || !against.options.length) fillRuns(against, shown.runs);
    const { records, norms, epochs, runs } = shown;
    const compared = against.value === "" ? undefined : runs[Number(against.value)];
    lines.draw(records, { epochs, earlier: compared ? [compared.records] : [], stale: shown.stale });
    nowTitle.textContent = shown.stale ? "the last run, until the new one has its own" : "kernels now";
    if (norms) drawMap(now, nowCount, "kernels now", norms);
    other.element.parentElement.hidden = !compared;
    if (compared) drawMap(other, otherCount, compared.name, compared.norms);
    if (next.runs) drawTable(table, runs);
    csv.disabled = runs.length === 0;
  };
  const say = (text, share) => {
    if (status.textContent !== text) status.textContent = text;
    if (share !== undefined) bar.value = share;
  };
  const warn = (text) => {
    stale.hidden = !text;
    stale.textContent = text;
  };
  return { element, draw, say, warn };
}

function fillRuns(box, runs) {
  const chosen = box.value;
  box.replaceChildren(h("option", { value: "" }, "no other run"), ...runs.map((run, n) => h("option", { value: n }, run.name)));
  box.value = chosen !== "" && Number(chosen) < runs.length ? chosen : runs.length > 1 ? "0" : "";
}

function drawTable(place, runs) {
  const columns = COLUMNS.filter(([name]) => runs.some((run) => name in run.metrics));
  const written = (name, value) => (name === TIME && Number.isFinite(value) ? short(value) : percent(value));
  const head = h("tr", {}, h("th", { scope: "col" }, "run"), ...columns.map(([, text]) => h("th", { scope: "col" }, text)));
  const rows = [...runs].reverse().map((run) => h("tr", {},
    h("th", { scope: "row" }, run.name), ...columns.map(([name]) => h("td", {}, written(name, run.metrics[name])))));
  place.replaceChildren(h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows)));
  place.hidden = runs.length === 0;
}

export function asCsv(runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))];
  const cell = (value) => (value === undefined || value === null ? "" : /[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  const lines = [["run", ...RUN_SETTINGS, ...names], ...runs.map((run) => [run.name, ...RUN_SETTINGS.map((key) => run[key]), ...names.map((name) => run.metrics[name])])];
  return lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
}

function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
