// One image through the layers of networks, computed here: switch a channel off and see what the layers behind
// it and the class scores make of that.

import { DigitsNetwork } from "./network.js";
import { bytesOf, followAll, frame, h, percent, put, slider, tieToPage } from "./shared.js";

const LAYERS = ["first convolution", "second", "third"];
const ACROSS = 16; // maps in a row
const GAP = 2; // pixels between two maps

/** The networks of a figure, from their numbers as float32, and what is dead in them. */
export function networksOf({ names, channels, classes, inputs, height, width, weights }) {
  const numbers = new Float32Array(weights.slice().buffer);
  let at = 0;
  const take = (into) => into.set(numbers.subarray(at, (at += into.length)));
  return names.map((name) => {
    const network = new DigitsNetwork({ channels, classes, inputs, height, width, capacity: 1 });
    for (const block of network.blocks) {
      for (const into of [block.weight.data, block.scale.data, block.shift.data, block.runningMean, block.runningVariance]) take(into);
    }
    take(network.linear.data);
    take(network.bias.data);
    return { name, network, unread: unread(network), unmade: unmade(network) };
  });
}

/** For each block, whether a channel is read by nobody: all kernels that would read it are zero. */
function unread({ blocks, channels, classes, linear }) {
  const readers = [...blocks.slice(1).map(({ weight, outputs }) => [weight.data, outputs, 9]), [linear.data, classes, 1]];
  return readers.map(([data, rows, elements], block) => {
    const columns = channels[block];
    return Array.from({ length: columns }, (_, c) => {
      for (let row = 0; row < rows; row++) {
        for (let e = 0; e < elements; e++) if (data[(row * columns + c) * elements + e] !== 0) return false;
      }
      return true;
    });
  });
}

/** For each block, whether a channel is made by nobody: its whole filter is zero. */
function unmade({ blocks }) {
  return blocks.map(({ weight, inputs, outputs }) =>
    Array.from({ length: outputs }, (_, c) => weight.data.subarray(9 * inputs * c, 9 * inputs * (c + 1)).every((value) => value === 0)));
}

/** The maps behind each block (a list of pixels a channel) and the shares of the classes, with channels off. */
export function passThrough({ network }, pixels, off) {
  const maps = [];
  network.forward(pixels, 1, false, (block, output) => {
    const { grid, outputs } = network.blocks[block];
    for (const c of off[block]) output.fill(0, c * grid.channel, (c + 1) * grid.channel);
    maps.push(Array.from({ length: outputs }, (_, c) => grid.inside.map((place) => output[c * grid.channel + place])));
    return output;
  });
  return { maps, shares: network.shares(0) };
}

function render({ model, el }) {
  const names = model.get("names");
  const channels = model.get("channels");
  const size = { inputs: model.get("inputs"), height: model.get("height"), width: model.get("width"), classes: model.get("classes") };
  const bytes = bytesOf(model.get("images"));
  const pixels = new Float32Array(bytes.slice().buffer);
  const labels = model.get("labels");
  const networks = networksOf({ names, channels, ...size, weights: bytesOf(model.get("weights")) });
  const { body, say } = frame(el, {
    title: "One image through the layers",
    lead: "Press a channel to switch it off for the layers behind it (or walk with the arrow keys and press Enter). Crossed: off. Hatched: nobody reads it. Framed: the same at every position.",
    model,
    python: () => pythonLines(model),
  });
  const isOff = (n, block, c) => model.get("off").some(([a, b, d]) => a === n && b === block && d === c);
  const toggle = (n, block, c) => {
    const rest = model.get("off").filter(([a, b, d]) => !(a === n && b === block && d === c));
    put(model, "off", rest.length === model.get("off").length ? [...rest, [n, block, c]] : rest);
    say(`${names[n]}, channel ${c} of the ${LAYERS[block]}: ${isOff(n, block, c) ? "off" : "on"}`);
  };
  const all = (what) => {
    const found = networks.flatMap(({ [what]: dead }, n) => dead.flatMap((block, b) => block.flatMap((is, c) => (is ? [[n, b, c]] : []))));
    put(model, "off", found);
    say(`${found.length} channels are off`);
  };
  const image = h("canvas", { role: "img", "aria-label": "the image", style: "width:64px;height:64px;image-rendering:pixelated" });
  const panels = networks.map((found, n) => networkPanel(found, (block, c) => toggle(n, block, c), (block, c) => isOff(n, block, c)));
  body.append(
    h("div", { class: "controls" },
      h("span", {}, image),
      slider(model, "number", "image", { min: 0, max: model.get("count") - 1, step: 1, words: (number) => `number ${number}: a ${labels[number]}` }),
      h("button", { type: "button", onclick: () => all("unread") }, "switch off what nobody reads"),
      h("button", { type: "button", onclick: () => all("unmade") }, "switch off what nobody makes"),
      h("button", { type: "button", onclick: () => put(model, "off", []) }, "all on")),
    h("div", { class: "panels" }, ...panels.map(({ element }) => element)));

  followAll(model, ["number", "off"], () => {
    const number = Math.min(model.get("number"), model.get("count") - 1);
    const length = size.inputs * size.height * size.width;
    const seen = pixels.subarray(number * length, (number + 1) * length);
    paintImage(image, seen.subarray(0, size.height * size.width), size.width);
    panels.forEach((panel, n) => {
      const off = channels.map((_, block) => model.get("off").filter(([a, b]) => a === n && b === block).map(([, , c]) => c));
      panel.draw(number, seen, off, labels[number]);
    });
  });
}

/** One network: its maps, a canvas a block, and what it says with all channels and with those that are on. */
function networkPanel(found, toggle, isOff) {
  const { name, network, unread: ignored, unmade: empty } = found;
  const blocks = network.blocks.map((block, b) => mosaic(`${name}, ${LAYERS[b]}`, block, ignored[b], empty[b], (c) => toggle(b, c), (c) => isOff(b, c)));
  const counts = network.blocks.map((_, b) => h("p", {}));
  const says = h("p", { style: "min-height:2.9em" });
  const element = h("div", { class: "pane" }, h("p", { class: "title" }, name),
    ...blocks.flatMap(({ canvas }, b) => [counts[b], canvas]), says);
  let [drawn, whole, before] = ["", -1, []];
  const draw = (number, pixels, off, label) => {
    const wanted = JSON.stringify([number, off]);
    if (wanted === drawn) return;
    drawn = wanted;
    const { maps, shares } = passThrough(found, pixels, off);
    if (off.every((block) => block.length === 0)) [whole, before] = [number, shares];
    if (whole !== number) [whole, before] = [number, passThrough(found, pixels, off.map(() => [])).shares];
    blocks.forEach((block, b) => {
      block.draw(maps[b]);
      const off = maps[b].filter((_, c) => isOff(b, c)).length;
      counts[b].textContent = `${LAYERS[b]}: ${maps[b].length} channels` + (off ? `, ${off} off` : "");
    });
    const best = (of) => of.indexOf(Math.max(...of));
    says.replaceChildren(
      "says ", h("b", {}, `${best(shares)} (${percent(shares[best(shares)])})`), `; with all channels ${best(before)} (${percent(before[best(before)])}); `,
      `largest change of a score's share ${percent(Math.max(...shares.map((share, k) => Math.abs(share - before[k]))))}; it is a ${label}`);
  };
  return { element, draw };
}

/** The maps of one block as a canvas that pointer and keys switch channels on. */
function mosaic(name, { outputs, grid }, ignored, empty, toggle, isOff) {
  const canvas = h("canvas", { role: "img", tabindex: 0, "aria-label": "channels, still empty", style: "width:100%;max-width:420px;image-rendering:pixelated;cursor:pointer;display:block" });
  const scale = Math.max(1, Math.round(24 / grid.width));
  const [wide, high] = [grid.width * scale, grid.height * scale];
  const rows = Math.ceil(outputs / ACROSS);
  Object.assign(canvas, { width: Math.min(outputs, ACROSS) * (wide + GAP), height: rows * (high + GAP) });
  const context = canvas.getContext("2d");
  let cursor = 0;
  let shown = [];
  const words = (c) => `channel ${c} is ${isOff(c) ? "off" : "on"}${ignored[c] ? ", nobody reads it" : ""}${empty[c] ? ", nobody makes it" : ""}`;
  const paint = () => {
    const style = getComputedStyle(canvas);
    const [warm, line] = ["--warm", "--line"].map((key) => style.getPropertyValue(key) || "#888");
    const place = (c) => [(c % ACROSS) * (wide + GAP), Math.floor(c / ACROSS) * (high + GAP)];
    const picture = context.createImageData(canvas.width, canvas.height);
    shown.forEach((map, c) => greys(picture, map, grid.width, scale, ...place(c)));
    context.putImageData(picture, 0, 0);
    shown.forEach((map, c) => {
      const tile = [...place(c), wide, high];
      if (ignored[c]) hatch(context, ...tile);
      if (!isOff(c) && Math.max(...map) - Math.min(...map) < 1e-6) stroke(context, warm, 2, ...tile);
      if (isOff(c)) cross(context, warm, ...tile);
      if (c === cursor && document.activeElement === canvas) stroke(context, line, 3, ...tile);
    });
    canvas.setAttribute("aria-label", `${name}: ${outputs} feature maps, ${ignored.filter(Boolean).length} that nobody reads, ${empty.filter(Boolean).length} that nobody makes, ${shown.filter((_, c) => isOff(c)).length} off; ${words(cursor)}`);
  };
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const size = box.width / canvas.width;
    const [row, column] = [(event.clientY - box.top) / (size * (high + GAP)), (event.clientX - box.left) / (size * (wide + GAP))];
    const c = Math.floor(row) * ACROSS + Math.floor(column);
    if (c >= outputs) return;
    cursor = c;
    toggle(c);
  });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -ACROSS, ArrowDown: ACROSS }[event.key];
    if (way) cursor = Math.min(outputs - 1, Math.max(0, cursor + way));
    else if (event.key === "Enter" || event.key === " ") toggle(cursor);
    else return;
    event.preventDefault();
    paint();
  });
  for (const event of ["focus", "blur"]) canvas.addEventListener(event, paint);
  const draw = (maps) => {
    shown = maps;
    paint();
  };
  return { canvas, draw };
}

/** Write a map into a picture, from black for 0 to white for its largest value. */
function greys({ data, width }, map, columns, scale, x, y) {
  const largest = Math.max(...map, 1e-12);
  for (let row = 0; row < (map.length / columns) * scale; row++) {
    for (let column = 0; column < columns * scale; column++) {
      const value = map[Math.floor(row / scale) * columns + Math.floor(column / scale)];
      const at = 4 * ((y + row) * width + x + column);
      data[at] = data[at + 1] = data[at + 2] = Math.round((255 * Math.max(0, value)) / largest);
      data[at + 3] = 255;
    }
  }
}

function stroke(context, color, width, x, y, wide, high) {
  context.strokeStyle = color;
  context.lineWidth = width;
  context.strokeRect(x + width / 2, y + width / 2, wide - width, high - width);
}

function hatch(context, x, y, wide, high) {
  context.fillStyle = "#ffffff";
  context.fillRect(x, y, wide, high);
  context.save();
  context.beginPath();
  context.rect(x, y, wide, high);
  context.clip();
  context.strokeStyle = "#8a8f98";
  context.lineWidth = 1;
  context.beginPath();
  for (let at = 4; at < wide + high; at += 6) {
    context.moveTo(x + at, y);
    context.lineTo(x + at - high, y + high);
  }
  context.stroke();
  context.restore();
}

function cross(context, color, x, y, wide, high) {
  context.strokeStyle = color;
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + wide, y + high);
  context.moveTo(x + wide, y);
  context.lineTo(x, y + high);
  context.stroke();
}

/** The first channel of an image, from its least to its largest value. */
function paintImage(canvas, values, width) {
  Object.assign(canvas, { width, height: values.length / width });
  const context = canvas.getContext("2d");
  const least = Math.min(...values);
  const picture = context.createImageData(canvas.width, canvas.height);
  greys(picture, values.map((value) => value - least), width, 1, 0, 0);
  context.putImageData(picture, 0, 0);
}

function pythonLines(model) {
  const lines = ["# models: the networks by name, data: what hg.load_data returned", `image = data.test.images[${model.get("number")}:${model.get("number") + 1}]`];
  const names = ["features.relu1", "features.relu2", "features.relu3"];
  model.get("names").forEach((name, n) => {
    const off = model.get("off").filter(([a]) => a === n);
    names.forEach((layer, block) => {
      const switched = off.filter(([, b]) => b === block).map(([, , c]) => c);
      if (!switched.length) return;
      lines.push(`models["${name}"].get_submodule("${layer}").register_forward_hook(lambda *seen: seen[2].index_fill(1, torch.tensor([${switched}]), 0.0))`);
    });
    lines.push(`print("${name}", models["${name}"].eval()(image).softmax(1))`);
  });
  return ["import torch", ...lines].join("\n");
}

export default { initialize: tieToPage, render };
