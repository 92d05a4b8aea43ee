// Train the digits network here, in the page: a worker does the work, the page stays free and shows it.

import { hasClosedProx } from "./penalty.js";
import { runButtons, runView, seconds, settingsInWords } from "./runs.js";
import { bytesOf, checkbox, choice, followAll, frame, h, percent, pythonNumber, select, slider, tieToPage } from "./shared.js";
import { serve } from "./worker.js";

const KEYS = ["penalty", "grouping", "strength", "l1_mix", "proximal", "epochs", "seed"];

function render({ model, el }) {
  const rows = model.get("rows");
  const { body, root } = frame(el, {
    title: "Train it here",
    lead: "A convolutional network learns handwritten digits in this page while a penalty removes its kernels. Press Train, and turn a control.",
    model,
    python: () => pythonLines(model),
  });
  const rowNow = () => rows.find(({ key }) => key === model.get("penalty")) ?? rows[0];
  const settings = () => ({
    ...model.get("recipe"), row: rowNow(), grouping: model.get("grouping"), strength: model.get("strength"),
    l1Mix: model.get("l1_mix"), proximal: model.get("proximal") && hasClosedProx(rowNow()), warmup: 0,
    epochs: model.get("epochs"), seed: model.get("seed"),
  });
  const asRun = ({ row, grouping, strength, l1Mix, proximal }) =>
    ({ penalty: strength > 0 ? row.key : null, grouping, strength, l1_mix: l1Mix, warmup: 0, proximal, tolerance: model.get("tolerance") });

  const buttons = runButtons((name) => (name === "reset" ? reset() : press(name)));
  const view = runView({ colors: bytesOf(model.get("colors")), layers: model.get("layers"), csvName: "runs.csv" });
  body.append(
    buttons.element,
    h("div", { class: "controls" },
      select(model, "penalty", "penalty", rows.map((row) => [row.key, `${row.key}: ${row.title}`])),
      choice(model, "grouping", "groups", [["feature", "feature-wise"], ["neuron", "neuron-wise"]]),
      slider(model, "strength", "strength", { min: 1e-7, max: 10, step: 0.1, logarithmic: true }),
      slider(model, "l1_mix", "l1 mix", { min: 0, max: 1, step: 0.1 }),
      slider(model, "epochs", "epochs", { min: 2, max: 40, step: 1 }),
      checkbox(model, "proximal", "proximal step: exact zeros")),
    view.element);

  const engine = startEngine(model, received, () => root.isConnected);
  let [runs, phase, current, seen, asked] = [[], "idle", null, false, 0];
  const fresh = () => JSON.stringify(settings());
  const ask = (message) => engine.send({ ...message, number: ++asked });

  function press(name) {
    if (["train", "step"].includes(name) && phase === "idle") {
      current = { settings: settings(), text: fresh() };
      seen = false;
      view.draw({ epochs: current.settings.epochs, stale: runs.length > 0 });
      phase = "running"; // the worker's answer takes a moment, in which a second press must begin nothing
      buttons.draw(phase);
    }
    ask({ do: name, settings: current?.settings });
    warn();
  }
  function received(report) {
    if (report.heard < asked) return; // said before the last press was read: it is no longer so
    phase = report.phase;
    buttons.draw(phase);
    seen ||= report.records.length > 0;
    const shown = seen || runs.length === 0 ? { records: report.records, norms: report.norms, stale: false } : {};
    const over = current && report.ending !== "" && report.records.length > 0 && !report.ending.startsWith("epoch");
    if (over) runs = [...runs, asFinished(report)];
    view.draw({ ...shown, epochs: report.epochs, ...(over || !runs.length ? { runs } : {}) });
    view.say(inWords(report), report.share);
    if (phase === "idle") current = null;
    warn();
  }
  function asFinished(report) {
    const run = asRun(current.settings);
    return { ...run, name: `${runs.length + 1}: ${settingsInWords(run)}`, records: report.records, norms: report.norms, metrics: report.records.at(-1) };
  }
  function inWords(report) {
    if (report.ending) return `${report.ending}${report.records.length ? `: accuracy ${percent(report.records.at(-1)["validation accuracy"])}, ${percent(report.records.at(-1)["dead kernels"])} of the kernels dead` : ""}. Trained for ${seconds(report.spent)}.`;
    if (!current) return "Ready.";
    const speed = report.epochSeconds ? `, ${seconds(report.epochSeconds)} an epoch` : "";
    const left = phase === "running" && Number.isFinite(report.left) ? `, ${seconds(report.left)} left` : "";
    return `${phase === "paused" ? "Paused: epoch" : "Epoch"} ${report.epoch} of ${report.epochs}${speed}${left}.`;
  }
  function warn() {
    const words = [];
    if (model.get("proximal") && !hasClosedProx(rowNow())) words.push(`${rowNow().key} has no closed proximal step: the page trains it with its gradient (Python has the step).`);
    if (current && current.text !== fresh()) words.push("This run goes on with the settings it began with. Stop it, then press Train, to use the ones shown.");
    view.warn(words.join(" "));
  }
  function reset() {
    ask({ do: "stop" });
    [runs, current, seen] = [[], null, false];
    view.draw({ runs, records: [], stale: false });
    ask({ do: "look", settings: settings() });
  }
  ask({ do: "look", data: dataOf(model), settings: settings() });
  followAll(model, KEYS, warn);
}

/** The images as the network takes them, once for all runs. */
function dataOf(model) {
  const [pixels, labels] = [bytesOf(model.get("images")), bytesOf(model.get("labels"))];
  const [mean, std, side] = [model.get("mean"), model.get("std"), 64];
  const part = (from, to) => ({
    images: Float64Array.from(pixels.subarray(from * side, to * side), (value) => (value / model.get("white") - mean) / std),
    labels: Uint8Array.from(labels.subarray(from, to)),
  });
  return { train: part(0, model.get("train_count")), validation: part(model.get("train_count"), labels.length) };
}

/** A worker made from its text; where a page may not start one, the same loop between two frames of the page. */
function startEngine(model, received, isShown) {
  try {
    const address = URL.createObjectURL(new Blob([model.get("worker")], { type: "text/javascript" }));
    const worker = new Worker(address);
    worker.onerror = () => received({ heard: Infinity, phase: "idle", share: 0, spent: 0, epoch: 0, epochs: 1, records: [], norms: null, ending: "The page's worker failed: reload the page" });
    worker.onmessage = (event) => (isShown() ? received(event.data) : worker.terminate());
    return { send: (message) => worker.postMessage(message) };
  } catch {
    const answer = serve((report) => received(report), (act) => isShown() && setTimeout(act, 0));
    return { send: answer };
  }
}

function pythonLines(model) {
  const get = (key) => model.get(key);
  const recipe = get("recipe");
  return [
    'import hgsr_lite as hg',
    'data = hg.load_data("digits")',
    `model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, width=0.5, seed=${get("seed")})`,
    `reg = hg.Regularizer(model, "${get("penalty")}", grouping="${get("grouping")}", strength=${pythonNumber(get("strength"))}, l1_mix=${pythonNumber(get("l1_mix"))})`,
    `history = hg.fit(model, data, reg, epochs=${get("epochs")}, lr=${recipe.lr}, batch_size=${recipe.batchSize}, proximal=${get("proximal") ? "True" : "False"})`,
  ].join("\n");
}

export default { initialize: tieToPage, render };
