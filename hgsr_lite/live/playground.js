// The playground: PyTorch trains in Python, on any data and network; this shows the run and its buttons.

import { runButtons, runView, seconds } from "./runs.js";
import { bytesOf, checkbox, choice, followAll, frame, h, percent, pythonNumber, select, slider, tieToPage } from "./shared.js";

const SETTINGS = ["penalty", "grouping", "strength", "l1_mix", "warmup", "proximal"];
const PATIENCE = 4000; // milliseconds
const NO_PYTHON = "No Python session answers here: it was restarted, or the notebook was only opened. Run the notebook up to this cell again.";

function render({ model, el }) {
  const rows = model.get("rows");
  const { body, root } = frame(el, {
    title: `Playground: ${model.get("subject")}`,
    lead: "Choose a penalty and press Train: PyTorch trains the network anew from the same first weights.",
    model,
    python: () => pythonLines(model),
  });
  const buttons = runButtons(press);
  const calibrate = h("button", { type: "button", onclick: () => press("calibrate"), title: "set the strength so that penalty and loss pull equally hard at the start" }, "Calibrate");
  buttons.element.append(calibrate);
  const view = runView({ colors: bytesOf(model.get("colors")), layers: model.get("layers"), csvName: "playground.csv" });
  const later = { live: false };
  body.append(
    h("div", { class: "controls" },
      select(model, "penalty", "penalty", rows.map((row) => [row.key, `${row.key}: ${row.title}`])),
      choice(model, "grouping", "groups", [["feature", "feature-wise"], ["neuron", "neuron-wise"]]),
      slider(model, "strength", "strength", { min: 1e-7, max: 1, step: 0.1, logarithmic: true }),
      slider(model, "l1_mix", "l1 mix", { min: 0, max: 1, step: 0.1 }),
      slider(model, "warmup", "warm-up", { min: 0, max: 1, step: 0.1 }),
      checkbox(model, "proximal", "proximal step")),
    buttons.element,
    h("div", { class: "controls" },
      slider(model, "tolerance", "tolerance", { min: 1e-6, max: 1, step: 0.5, logarithmic: true, ...later }),
      checkbox(model, "relative", "tolerance x layer's rms")),
    view.element);

  const isAlone = () => model.python === null;
  let asked = 0;
  function press(name) {
    if (isAlone()) return view.warn(NO_PYTHON);
    const settings = Object.fromEntries(SETTINGS.map((key) => [key, model.get(key)]));
    model.send({ do: name, settings });
    if (["train", "step"].includes(name)) view.say("Starting …", 0);
    asked += 1;
    const mine = asked;
    setTimeout(() => mine === asked && root.isConnected && view.warn("Python has not answered yet: it is busy with a cell, or it was restarted. In that case run the notebook up to this cell again."), PATIENCE);
    return null;
  }

  const runsNow = () => model.get("runs").map((run) => ({ ...run, norms: numbers(run.norms) }));
  followAll(model, ["progress"], () => {
    asked += 1;
    const progress = model.get("progress");
    buttons.draw(progress.phase);
    calibrate.disabled = progress.phase !== "idle";
    view.say(inWords(progress, model.get("records")), progress.share);
    warn();
  });
  followAll(model, ["records", "norms", "stale", "tolerance", "relative"], () => view.draw({
    records: model.get("records"), norms: numbers(model.get("norms")), epochs: model.get("epochs"), stale: model.get("stale"),
    tolerance: model.get("relative") ? 1e-3 : model.get("tolerance"),
  }));
  followAll(model, ["runs"], () => view.draw({ runs: runsNow() }));
  followAll(model, SETTINGS, warn);
  model.on("python", warn);

  function warn() {
    const progress = model.get("progress");
    const words = [];
    if (isAlone()) words.push(NO_PYTHON);
    else if (progress.phase !== "idle" && SETTINGS.some((key) => progress.settings[key] !== model.get(key))) {
      words.push("This run goes on with the settings it began with. Stop it, then press Train, to use the ones shown.");
    }
    view.warn(words.join(" "));
  }
}

function inWords(progress, records) {
  if (progress.phase === "idle") return progress.message || "Ready.";
  const last = records.at(-1);
  const figures = last ? `: validation accuracy ${percent(last["validation accuracy"])}, ${percent(last["dead kernels"])} of the kernels dead` : "";
  const left = progress.phase === "running" && progress.left > 0 ? `, ${seconds(progress.left)} left` : "";
  return `${progress.phase === "paused" ? "Paused: epoch" : "Epoch"} ${progress.epoch} of ${progress.epochs}${figures}${left}.`;
}

/** Bytes of float32 numbers, wherever they lie. */
const numbers = (value) => {
  const bytes = bytesOf(value);
  return new Float32Array(bytes.slice().buffer);
};

function pythonLines(model) {
  const get = (key) => model.get(key);
  return [
    "# bench: the Workbench with the data and the network",
    "from hgsr_lite import Penalised",
    `method = Penalised("${get("penalty")}", grouping="${get("grouping")}", strength=${pythonNumber(get("strength"))}, l1_mix=${pythonNumber(get("l1_mix"))}, warmup=${pythonNumber(get("warmup"))})`,
    `trained = bench.train(method, proximal=${get("proximal") ? "True" : "False"})`,
  ].join("\n");
}

export default { initialize: tieToPage, render };
