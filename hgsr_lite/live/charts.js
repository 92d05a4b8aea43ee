// Two drawings that several figures share: the map of a layer's kernels, and the curves of a run.

import { h, percent, s, short } from "./shared.js";

// ---- the kernel map ----

const BARS = 44; // room for the groups' bars, in pixels
/** A colour as one number, as the bytes of a canvas's picture lie in memory. */
const pixel = ([red, green, blue]) => new Uint32Array(Uint8Array.of(red, green, blue, 255).buffer)[0];
const STROKE = pixel([0x8a, 0x8f, 0x98]); // through what lies below the threshold

/**
 * Norms on a logarithmic scale as bytes: 0 is exactly zero, 1 the smallest that is told apart, 255 the largest.
 * `scale`: { smallest, largest }.
 */
export function levelOf(norm, { smallest, largest }) {
  if (norm === 0) return 0;
  const share = Math.log(norm / smallest) / Math.log(largest / smallest);
  return 1 + Math.round(254 * Math.min(1, Math.max(0, share)));
}

export const normOf = (level, { smallest, largest }) =>
  level === 0 ? 0 : smallest * (largest / smallest) ** ((level - 1) / 254);

/**
 * A map of kernels, a row an output and a column an input channel, with a bar for every group at its edges.
 * `colors`: 256 colours as bytes. `onpoint(text)` is told what lies under the pointer or the keys' cursor.
 */
export function kernelMap(colors, onpoint = () => {}) {
  const canvas = h("canvas", { role: "img", tabindex: 0, "aria-label": "kernel map, still empty" });
  const context = canvas.getContext("2d");
  const palette = Uint32Array.from({ length: 256 }, (_, level) => pixel(level === 0 ? [0, 0, 0] : colors.subarray(3 * level, 3 * level + 3)));
  let shown = null;
  let image = null; // kept from move to move
  let cursor = null;
  const point = (o, i) => {
    const { outputs, inputs, norms, threshold } = shown;
    cursor = { o: Math.min(outputs - 1, Math.max(0, o)), i: Math.min(inputs - 1, Math.max(0, i)) };
    const norm = norms[cursor.o * inputs + cursor.i];
    const row = shown.outputSums[cursor.o];
    const column = shown.inputSums[cursor.i];
    paint();
    onpoint(`kernel of output ${cursor.o}, input ${cursor.i}: norm ${short(norm)}${norm < threshold ? " (below)" : ""}; ` +
      `output ${cursor.o} sums to ${short(row)}, input ${cursor.i} to ${short(column)}`);
  };
  canvas.addEventListener("pointermove", (event) => {
    if (!shown) return;
    const box = canvas.getBoundingClientRect();
    const size = (box.width / canvas.width) * shown.cell;
    point(Math.floor((event.clientY - box.top) / size), Math.floor((event.clientX - box.left) / size));
  });
  canvas.addEventListener("pointerleave", () => {
    cursor = null;
    if (shown) paint();
    onpoint("");
  });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!way || !shown) return;
    event.preventDefault();
    point((cursor?.o ?? 0) + way[0], (cursor?.i ?? 0) + way[1]);
  });

  const paint = () => {
    const { outputs, inputs, cell } = shown;
    const style = getComputedStyle(canvas);
    const [ink, warm] = ["--soft", "--warm"].map((name) => style.getPropertyValue(name) || "#888");
    context.clearRect(0, 0, canvas.width, canvas.height);
    paintKernels();
    paintBars(shown.outputSums, shown.liveOutputs, true);
    paintBars(shown.inputSums, shown.liveInputs, false);
    if (!cursor) return;
    context.strokeStyle = warm;
    context.lineWidth = 2;
    context.strokeRect(cursor.i * cell, cursor.o * cell, cell, cell);
    context.lineWidth = 1;
    context.strokeRect(0.5, cursor.o * cell + 0.5, inputs * cell - 1, cell - 1);
    context.strokeRect(cursor.i * cell + 0.5, 0.5, cell - 1, outputs * cell - 1);

    function paintKernels() { // pixel by pixel into one picture: thousands of small rectangles take longer
      const { levels, norms, threshold } = shown;
      const across = inputs * cell;
      if (image?.width !== across || image.height !== outputs * cell) image = context.createImageData(across, outputs * cell);
      const pixels = new Uint32Array(image.data.buffer);
      for (let k = 0; k < outputs * inputs; k++) {
        const corner = Math.floor(k / inputs) * cell * across + (k % inputs) * cell;
        for (let y = 0; y < cell; y++) pixels.fill(palette[levels[k]], corner + y * across, corner + y * across + cell);
        if (norms[k] >= threshold || levels[k] === 0) continue;
        for (let n = 1; n < cell - 1; n++) pixels[corner + (cell - 1 - n) * across + n] = STROKE;
      }
      context.putImageData(image, 0, 0);
    }

    function paintBars(sums, lives, upright) {
      const most = Math.max(...sums) || 1;
      const start = (upright ? inputs : outputs) * cell + 5;
      sums.forEach((sum, n) => {
        const length = Math.max(1, ((BARS - 8) * sum) / most);
        const [along, thick] = [n * cell + 1, Math.max(1, cell - 2)];
        context.fillStyle = lives[n] ? ink : warm;
        if (!lives[n]) cross(upright ? start + 3 : along + thick / 2, upright ? along + thick / 2 : start + 3);
        else if (upright) context.fillRect(start, along, length, thick);
        else context.fillRect(along, start, thick, length);
      });
    }
  };

  function cross(x, y) {
    context.strokeStyle = context.fillStyle;
    context.lineWidth = 1.5;
    const r = Math.min(4, shown.cell / 2);
    context.beginPath();
    context.moveTo(x - r, y - r);
    context.lineTo(x + r, y + r);
    context.moveTo(x + r, y - r);
    context.lineTo(x - r, y + r);
    context.stroke();
  }

  /** Draw levels (bytes) of a layer; returns how many kernels and channels lie below the threshold. */
  const draw = (name, outputs, inputs, levels, scale, threshold) => {
    const cell = Math.max(4, Math.min(16, Math.floor(300 / Math.max(inputs, outputs))));
    const normsOfLevels = Float64Array.from({ length: 256 }, (_, level) => normOf(level, scale));
    const norms = Float64Array.from(levels, (level) => normsOfLevels[level]);
    const sums = summed(norms, outputs, inputs, threshold);
    shown = { outputs, inputs, levels, norms, threshold, cell, ...sums };
    const [width, height] = [inputs * cell + BARS, outputs * cell + BARS];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    paint();
    const counts = {
      kernels: norms.reduce((sum, norm) => sum + (norm < threshold), 0),
      outputs: sums.liveOutputs.filter((live) => !live).length,
      inputs: sums.liveInputs.filter((live) => !live).length,
    };
    canvas.setAttribute("aria-label", `${name}: map of ${outputs} by ${inputs} kernels; ${counts.kernels} of ` +
      `${norms.length} below ${short(threshold)}, ${counts.outputs} outputs and ${counts.inputs} inputs with none above. Arrow keys read single kernels.`);
    return counts;
  };
  return { element: canvas, draw };
}

function summed(norms, outputs, inputs, threshold) {
  const outputSums = Array(outputs).fill(0);
  const inputSums = Array(inputs).fill(0);
  const liveOutputs = Array(outputs).fill(false);
  const liveInputs = Array(inputs).fill(false);
  norms.forEach((norm, k) => {
    const [o, i] = [Math.floor(k / inputs), k % inputs];
    outputSums[o] += norm;
    inputSums[i] += norm;
    liveOutputs[o] ||= norm >= threshold && norm > 0;
    liveInputs[i] ||= norm >= threshold && norm > 0;
  });
  return { outputSums, inputSums, liveOutputs, liveInputs };
}

/** The strip of colours under a map, with its ends named. */
export function colorKey(colors) {
  const canvas = h("canvas", { width: 256, height: 1, style: "width:120px;height:10px;display:inline-block;vertical-align:-1px;image-rendering:auto", "aria-hidden": "true" });
  const image = canvas.getContext("2d").createImageData(256, 1);
  for (let n = 0; n < 256; n++) image.data.set([...colors.subarray(3 * n, 3 * n + 3), 255], 4 * n);
  canvas.getContext("2d").putImageData(image, 0, 0);
  const ends = h("span", {});
  const element = h("p", { style: "font-size:12.5px" }, canvas, " ", ends);
  return {
    element,
    draw: ({ smallest, largest }) => (ends.textContent = `kernel norm (l1) from ${short(smallest)} to ${short(largest)}, logarithmic; black: exactly 0; stroke: below the threshold; bars: sums of rows and columns, ×: nothing above`),
  };
}

// ---- curves ----

export const CURVES = [
  ["validation accuracy", "accuracy", "var(--main)", "none"],
  ["below tolerance", "weights below tolerance", "var(--warm)", "7 3"],
  ["exact zeros", "exact zeros", "var(--ink)", "2 3"],
  ["dead kernels", "dead kernels", "var(--green)", "10 3 2 3"],
  ["dead inputs", "dead inputs", "var(--pink)", "4 4"],
  ["dead outputs", "dead outputs", "var(--gold)", "3 7"],
];

/** Shares between 0 and 1 over the epochs of a run; `earlier` runs stay behind it, thin. */
export function curves() {
  const [width, height] = [320, 200];
  const cursor = s("path", { stroke: "var(--soft)", "stroke-dasharray": "3 3" });
  const lines = s("g", { fill: "none" });
  const ends = [0, 0.5, 1].map((share) => s("text", { x: -5, y: height * (1 - share) + 4, "text-anchor": "end" }, `${100 * share} %`));
  const last = s("text", { x: width, y: height + 16, "text-anchor": "end" });
  const svg = s("svg", { viewBox: `-40 -8 ${width + 50} ${height + 28}`, role: "img", "aria-label": "curves, still empty" },
    ...[0, 0.5, 1].map((share) => s("path", { d: `M0 ${height * (1 - share)}H${width}`, stroke: "var(--line)" })),
    ...ends, s("text", { x: 0, y: height + 16 }, "epoch 1"), last, lines, cursor);
  const key = h("ul", { class: "facts", style: "gap:2px 14px" });
  const draw = (records, { epochs, epoch = null, earlier = [], stale = false } = {}) => {
    const across = (n) => (epochs > 1 ? (width * (n - 1)) / (epochs - 1) : width / 2);
    const path = (run, name) => run.map((record) => `${across(record.epoch).toFixed(1)} ${(height * (1 - record[name])).toFixed(1)}`).join("L");
    lines.replaceChildren(
      ...earlier.flatMap((run) => CURVES.slice(0, 2).map(([name, , stroke]) => s("path", { d: run.length ? `M${path(run, name)}` : "", stroke, "stroke-width": 1, opacity: 0.35 }))),
      ...CURVES.map(([name, , stroke, dash]) => s("path", {
        d: records.length ? `M${path(records, name)}${records.length === 1 ? "h.1" : ""}` : "", stroke,
        "stroke-width": records.length === 1 ? 5 : 2.2, "stroke-linecap": "round", "stroke-dasharray": dash, opacity: stale ? 0.4 : 1,
      })),
    );
    last.textContent = `epoch ${epochs}`;
    const at = records.find((record) => record.epoch === epoch) ?? records.at(-1);
    cursor.setAttribute("d", epoch ? `M${across(epoch)} 0V${height}` : "");
    key.replaceChildren(...CURVES.map(([name, text, stroke, dash]) => h("li", {},
      swatch(stroke, dash), `${text} `, h("span", { class: "value" }, at ? percent(at[name]) : "–"))));
    svg.setAttribute("aria-label", at ? `curves up to epoch ${at.epoch} of ${epochs}: ${CURVES.map(([name, text]) => `${text} ${percent(at[name])}`).join(", ")}` : "no epoch is over yet");
  };
  return { element: h("div", {}, svg, key), draw };
}

function swatch(stroke, dash) {
  return s("svg", { width: 26, height: 10, viewBox: "0 0 26 10", style: "display:inline-block;width:26px;vertical-align:1px;margin-right:5px", "aria-hidden": "true" },
    s("path", { d: "M0 5H26", stroke, "stroke-width": 2.5, "stroke-dasharray": dash }));
}
