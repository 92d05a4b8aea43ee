// The kernels of a layer through a training run: scrub through its epochs, move the threshold, point at a kernel.

import { colorKey, curves, kernelMap } from "./charts.js";
import { bytesOf, calm, followAll, frame, h, put, select, short, slider, tieToPage } from "./shared.js";

const FRAME = 250; // milliseconds a snapshot while it plays

function render({ model, el }) {
  const layers = model.get("layers");
  const epochs = model.get("epochs");
  const records = model.get("records");
  const colors = bytesOf(model.get("colors"));
  const levels = bytesOf(model.get("levels"));
  const scale = model.get("scale");
  const { body, root } = frame(el, {
    title: "The kernels through the training run",
    lead: "Scrub through the epochs, move the threshold, point at a kernel (arrow keys work on the map).",
    model,
    python: () => pythonLines(model),
  });
  const reading = h("p", { style: "min-height:2.9em" });
  const now = kernelMap(colors, (text) => (reading.textContent = text || "Point at a kernel to read it."));
  const before = kernelMap(colors, (text) => (reading.textContent = text || "Point at a kernel to read it."));
  const key = colorKey(colors);
  const lines = curves();
  const count = h("p", {});
  const title = h("p", { class: "title" });
  const play = h("button", { type: "button", "aria-label": "play" }, "▶ play");
  play.addEventListener("click", () => (timer ? stop() : start()));
  body.append(
    h("div", { class: "controls" },
      select(model, "layer", "layer", layers.map(({ name }) => [name, name])),
      slider(model, "moment", "epoch", { min: 0, max: epochs.length - 1, step: 1, words: (moment) => `${epochs[moment]} of ${epochs.at(-1)}` }),
      play,
      // Two steps beyond the largest, so that the last stop lies above every kernel.
      slider(model, "threshold", "threshold", { min: scale.smallest, max: scale.largest * 10 ** 0.04, step: 0.02, logarithmic: true })),
    h("div", { class: "panels" },
      h("div", { class: "pane" }, h("p", { class: "title" }, "before training"), before.element),
      h("div", { class: "pane" }, title, now.element, count),
      h("div", { class: "pane" }, h("p", { class: "title" }, "the whole network"), lines.element)),
    reading, key.element);
  key.draw(scale);
  reading.textContent = "Point at a kernel to read it.";

  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶ play";
    play.setAttribute("aria-label", "play");
  };
  const start = () => {
    if (model.get("moment") === epochs.length - 1) put(model, "moment", 0);
    play.textContent = "pause";
    play.setAttribute("aria-label", "pause");
    timer = setInterval(() => {
      if (!root.isConnected) return stop();
      if (model.get("moment") < epochs.length - 1) put(model, "moment", model.get("moment") + 1);
      if (model.get("moment") === epochs.length - 1) stop();
      return null;
    }, calm() ? 4 * FRAME : FRAME);
  };

  followAll(model, ["layer", "moment", "threshold"], () => {
    const layer = layers.find(({ name }) => name === model.get("layer")) ?? layers[0];
    const moment = Math.min(model.get("moment"), epochs.length - 1);
    const size = layer.outputs * layer.inputs;
    const part = (n) => levels.subarray(layer.start + n * size, layer.start + (n + 1) * size);
    before.draw("before training", layer.outputs, layer.inputs, part(0), scale, model.get("threshold"));
    const found = now.draw(`epoch ${epochs[moment]}`, layer.outputs, layer.inputs, part(moment), scale, model.get("threshold"));
    title.textContent = `epoch ${epochs[moment]} of ${epochs.at(-1)}`;
    count.replaceChildren(h("b", {}, `${found.kernels} of ${size}`), " kernels below ", short(model.get("threshold")), "; ",
      h("b", {}, String(found.inputs)), ` of ${layer.inputs} inputs and `, h("b", {}, String(found.outputs)), ` of ${layer.outputs} outputs have none above it`);
    if (records.length) lines.draw(records, { epochs: epochs.at(-1), epoch: epochs[moment] });
  });
  if (!records.length) lines.element.parentElement.hidden = true;
}

function pythonLines(model) {
  return [
    "# history: what hg.fit returned",
    `norms = history.snapshots["${model.get("layer")}"][${model.get("moment")}].float()  # (output, input channels)`,
    `print((norms < ${model.get("threshold")}).sum(), "of", norms.numel(), "kernels lie below the threshold")`,
  ].join("\n");
}

export default { initialize: tieToPage, render };
