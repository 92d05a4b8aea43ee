// What every figure shares: elements, controls with names, colours for light and dark pages, the state in the
// address, and the model that stands in where no Python session answers.

export const SVG = "http://www.w3.org/2000/svg";

/** An element with its attributes (on...: a listener) and children. */
export function h(tag, attributes = {}, ...children) {
  return dressed(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return dressed(document.createElementNS(SVG, tag), attributes, children);
}

function dressed(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const STYLE = `
.hgsr { --ink:#1b1f24; --soft:#57606a; --line:#d0d7de; --page:#ffffff; --panel:#f6f8fa; --main:#0072b2; --warm:#c2500a;
  --green:#007a5a; --pink:#a3487e; --gold:#7d6200; --focus:#0550ae; --dead:#1a1a1a;
  font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; color:var(--ink);
  background:var(--page); border:1px solid var(--line); border-radius:10px; padding:14px 16px; max-width:1000px;
  box-sizing:border-box; text-align:left; container-type:inline-size; overflow-wrap:anywhere; }
.hgsr[data-dark] { --ink:#e6edf3; --soft:#a5b0bb; --line:#3d444d; --page:#14181d; --panel:#1d232a; --main:#58b4ee;
  --warm:#ff9a57; --green:#42c79c; --pink:#e39ac6; --gold:#d9b93b; --focus:#79c0ff; --dead:#000; color-scheme:dark; }
.hgsr *, .hgsr *::before { box-sizing:border-box; }
.hgsr p { margin:0; padding:0; color:var(--soft); } .hgsr p b, .hgsr output { color:var(--ink); }
.hgsr p.title { font-size:15px; line-height:1.3; margin-bottom:2px; font-weight:650; color:var(--ink); }
.hgsr .pane > p.title { font-size:13px; margin-bottom:4px; }
.hgsr .controls { display:flex; flex-wrap:wrap; gap:8px 18px; align-items:flex-end; margin:10px 0; }
.hgsr label, .hgsr fieldset { display:flex; flex-direction:column; gap:3px; font-size:12.5px; color:var(--soft);
  border:0; padding:0; margin:0; min-width:0; }
.hgsr legend { padding:0; font-size:12.5px; color:var(--soft); margin-bottom:3px; }
.hgsr .value { color:var(--ink); font-variant-numeric:tabular-nums; font-weight:600; }
.hgsr select, .hgsr button { font:inherit; font-size:13.5px; color:var(--ink); background:var(--panel);
  border:1px solid var(--line); border-radius:6px; padding:4px 10px; min-height:30px; max-width:100%; }
.hgsr button { cursor:pointer; } .hgsr button:hover:not(:disabled) { border-color:var(--main); }
.hgsr button:disabled { opacity:.55; cursor:default; }
.hgsr button.first { background:var(--main); border-color:var(--main); color:#fff; font-weight:600; }
.hgsr[data-dark] button.first { color:#06121c; }
.hgsr button[aria-pressed=true], .hgsr button[aria-checked=true] { border-color:var(--main); color:var(--main);
  font-weight:650; box-shadow:inset 0 -2px 0 var(--main); }
.hgsr .choice { display:inline-flex; flex-wrap:wrap; gap:4px; }
.hgsr input[type=range] { width:160px; max-width:100%; accent-color:var(--main); margin:4px 0; height:20px; }
.hgsr input[type=checkbox] { accent-color:var(--main); width:16px; height:16px; margin:0; }
.hgsr label.check { flex-direction:row; align-items:center; gap:6px; min-height:30px; color:var(--ink); }
.hgsr :focus-visible { outline:2px solid var(--focus); outline-offset:2px; border-radius:4px; }
.hgsr .panels { display:flex; flex-wrap:wrap; gap:14px; align-items:flex-start; }
.hgsr .pane { flex:1 1 270px; min-width:0; max-width:100%; }
.hgsr svg { display:block; width:100%; max-width:460px; height:auto; overflow:visible; touch-action:pan-y; }
.hgsr svg text { fill:var(--soft); font-size:12px; font-family:inherit; }
.hgsr svg .strong { fill:var(--ink); font-weight:600; }
.hgsr .grab { cursor:grab; touch-action:none; } .hgsr .grab:active { cursor:grabbing; }
.hgsr canvas { display:block; max-width:100%; image-rendering:pixelated; }
.hgsr table { border-collapse:collapse; font-size:13px; width:100%; font-variant-numeric:tabular-nums; color:var(--ink); }
.hgsr th, .hgsr td { text-align:right; padding:3px 8px; border-bottom:1px solid var(--line); background:var(--page); }
.hgsr th:first-child { text-align:left; } .hgsr th { font-weight:600; color:var(--soft); white-space:normal; }
.hgsr .scroll { overflow-x:auto; max-width:100%; overflow-wrap:normal; }
.hgsr ul.facts { display:flex; flex-wrap:wrap; gap:6px 18px; margin:8px 0 0; padding:0; list-style:none; }
.hgsr .facts li { margin:0; font-size:13px; color:var(--soft); }
.hgsr .formula { font-family:Georgia,"Times New Roman",serif; font-size:17px; color:var(--ink); overflow-x:auto; padding:4px 0; }
.hgsr .note { border-left:3px solid var(--warm); padding:2px 0 2px 10px; margin:8px 0; color:var(--ink); }
.hgsr .foot { display:flex; flex-wrap:wrap; gap:8px; margin-top:12px; align-items:center; }
.hgsr .foot button { font-size:12.5px; min-height:26px; padding:2px 9px; }
.hgsr .key { display:inline-block; width:12px; height:12px; border:1px solid var(--soft); border-radius:2px; margin-right:5px;
  vertical-align:-1px; }
.hgsr pre.as-python { background:var(--panel); color:var(--ink); border-radius:6px; padding:8px 10px; margin:8px 0 0; overflow-x:auto;
  font-size:12.5px; }
.hgsr progress { width:100%; height:8px; accent-color:var(--main); }
.hgsr .unseen { position:absolute; width:1px; height:1px; overflow:hidden; clip-path:inset(50%); white-space:nowrap; }
@container (max-width: 420px) { .hgsr .controls > :not(button) { flex:1 1 100%; } .hgsr input[type=range] { width:100%; } }
`;

/**
 * The frame of a figure in `el`: a heading, a place for its parts, a foot. `python()` gives the lines that do the
 * same with the package. Returns { root, body, say }.
 */
export function frame(el, { title, lead, model, python }) {
  const body = h("div");
  const status = h("p", { class: "unseen", role: "status" });
  // No heading: a figure may stand under a heading of any level, and the section carries its name.
  const root = h("section", { class: "hgsr", "aria-label": title }, h("style", {}, STYLE), h("p", { class: "title" }, title));
  if (lead) root.append(h("p", {}, lead));
  root.append(body, foot(python, model, (text) => (status.textContent = text)), status);
  el.replaceChildren(root);
  followPage(root);
  return { root, body, say: (text) => (status.textContent = text) };
}

function foot(python, model, say) {
  const shown = h("pre", { class: "as-python", hidden: true, tabindex: 0, "aria-label": "the same in Python" });
  const copy = async (button, text) => {
    const label = button.textContent;
    const copied = await writeClipboard(text);
    button.textContent = copied ? "copied" : "select and copy";
    say(copied ? "copied" : "copy it by hand from the lines shown");
    setTimeout(() => (button.textContent = label), 1500);
  };
  const asPython = h("button", {
    type: "button",
    onclick: () => {
      shown.hidden = false;
      shown.textContent = python();
      copy(asPython, python());
    },
  }, "copy as Python");
  const parts = [asPython];
  if (model.inAddress) {
    const link = h("button", { type: "button", onclick: () => copy(link, location.href) }, "copy link to this state");
    parts.push(link);
  }
  return h("div", {}, h("div", { class: "foot" }, ...parts), shown);
}

async function writeClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Keep data-dark in step with the page behind the figure, whichever way the page says that it is dark. */
function followPage(root) {
  const look = () => root.toggleAttribute("data-dark", isDark(root.parentElement));
  look();
  requestAnimationFrame(look);
  const watch = new MutationObserver(look);
  const options = { attributes: true, attributeFilter: ["class", "style", "data-theme", "data-jp-theme-light", "data-jp-theme-name"] };
  for (const element of [document.documentElement, document.body]) watch.observe(element, options);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", look);
}

function isDark(element) {
  for (let at = element; at; at = at.parentElement) {
    const [r, g, b, alpha = 1] = (getComputedStyle(at).backgroundColor.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    if (alpha > 0.5) return 0.299 * r + 0.587 * g + 0.114 * b < 128;
  }
  return getComputedStyle(document.documentElement).colorScheme.includes("dark") && matchMedia("(prefers-color-scheme: dark)").matches;
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// ---- numbers in words ----

/** Three digits that matter, without an exponent where a reader needs none. */
export function short(value) {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : String(value);
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e").replace("-", "−").replace("e-", "e−");
  return Number(value.toPrecision(3)).toString().replace("-", "−");
}

export const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : "–");

/** A number as Python reads it. */
export const pythonNumber = (value) => Number(value.toPrecision(4)).toString();

// ---- controls: each has a name, says its value in words, and works from the keyboard ----

export function select(model, key, label, options) {
  const box = h("select", { onchange: () => put(model, key, box.value) });
  for (const [value, text] of options) box.append(h("option", { value }, text));
  follow(model, key, (value) => (box.value = value));
  return h("label", {}, label, box);
}

/** `words(value)` is what is shown and announced; `logarithmic`: the slider moves the exponent. */
export function slider(model, key, label, { min, max, step, words = short, logarithmic = false, live = true }) {
  const inner = logarithmic ? Math.log10 : (value) => value;
  const outer = logarithmic ? (value) => Number((10 ** value).toPrecision(3)) : (value) => value;
  const shown = h("span", { class: "value" });
  const write = (value) => {
    shown.textContent = words(value);
    range.setAttribute("aria-valuetext", words(value));
  };
  const range = h("input", { type: "range", min: inner(min), max: inner(max), step, "aria-label": label });
  range.addEventListener("input", () => {
    write(outer(Number(range.value)));
    if (live) put(model, key, outer(Number(range.value)));
  });
  if (!live) range.addEventListener("change", () => put(model, key, outer(Number(range.value))));
  follow(model, key, (value) => {
    if (outer(Number(range.value)) !== value) range.value = inner(value);
    write(value);
  });
  const text = h("span", {}, `${label} `, shown);
  return h("label", {}, text, range);
}

/** Buttons of which one is chosen. */
export function choice(model, key, label, options) {
  const buttons = options.map(([value, text]) => {
    const button = h("button", { type: "button", role: "radio", onclick: () => put(model, key, value) }, text);
    button.value = value;
    return button;
  });
  const group = h("span", { class: "choice", role: "radiogroup", "aria-label": label }, ...buttons);
  group.addEventListener("keydown", (event) => {
    const turn = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!turn) return;
    event.preventDefault();
    const at = options.findIndex(([value]) => value === model.get(key));
    const next = (at + turn + options.length) % options.length;
    put(model, key, options[next][0]);
    buttons[next].focus();
  });
  follow(model, key, (value) => {
    buttons.forEach((button, n) => {
      button.setAttribute("aria-checked", options[n][0] === value);
      button.tabIndex = options[n][0] === value ? 0 : -1;
    });
  });
  return h("label", {}, label, group);
}

export function checkbox(model, key, label) {
  const box = h("input", { type: "checkbox", onchange: () => put(model, key, box.checked) });
  follow(model, key, (value) => (box.checked = value));
  return h("label", { class: "check" }, box, label);
}

export function put(model, key, value) {
  model.set(key, value);
  model.save_changes();
}

export function follow(model, key, act) {
  act(model.get(key));
  model.on(`change:${key}`, () => act(model.get(key)));
}

/** Call `act` once now, and after each change of one of the keys. */
export function followAll(model, keys, act) {
  act();
  for (const key of keys) model.on(`change:${key}`, act);
}

/**
 * Make an element draggable by pointer and keyboard: it acts as a slider named `label`. `move(dx, dy)` is told
 * steps in units of the drawing, `words()` says where it stands. `unit(element)`: pixels of one unit.
 */
export function draggable(element, { label, words, move, unit, step = 0.05 }) {
  for (const [name, value] of Object.entries({ tabindex: 0, role: "slider", "aria-label": label, class: "grab" })) {
    element.setAttribute(name, value);
  }
  const tell = () => {
    element.setAttribute("aria-valuetext", words());
    element.setAttribute("aria-valuenow", 0);
  };
  let last = null;
  element.addEventListener("pointerdown", (event) => {
    last = [event.clientX, event.clientY];
    element.setPointerCapture(event.pointerId);
    element.focus({ preventScroll: true });
    event.preventDefault();
  });
  element.addEventListener("pointermove", (event) => {
    if (!last) return;
    const size = unit();
    move((event.clientX - last[0]) / size, (event.clientY - last[1]) / size);
    last = [event.clientX, event.clientY];
    tell();
  });
  const release = () => (last = null);
  element.addEventListener("pointerup", release);
  element.addEventListener("pointercancel", release);
  element.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const size = event.shiftKey ? 4 * step : step;
    move(way[0] * size, way[1] * size);
    tell();
  });
  tell();
  return tell;
}

export const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

/** `act`, at most once in so many milliseconds, and a last time at the end. */
export function seldom(act, milliseconds) {
  let waiting = null;
  return () => {
    waiting ??= setTimeout(() => {
      waiting = null;
      act();
    }, milliseconds);
  };
}

// ---- the model ----

/** The state of a figure that stands in a page; it has what figures use of a widget's model. */
export class PageModel {
  /** `allowed`: for each key that belongs in the page's address, its values or its least and most; {} in a notebook. */
  constructor(state, allowed = {}) {
    const keys = Object.keys(allowed);
    Object.assign(this, { state, allowed, keys, inAddress: keys.length > 0, listeners: new Map(), python: null });
    if (this.inAddress) this.readAddress();
    this.writeAddress = seldom(() => history.replaceState(null, "", `#${this.address()}`), 200);
  }

  get(key) {
    return this.state[key];
  }

  set(key, value) {
    if (this.state[key] === value) return;
    this.state[key] = value;
    this.python?.set(key, value);
    this.tell(`change:${key}`);
  }

  on(event, act) {
    if (!this.listeners.has(event)) this.listeners.set(event, new Set());
    this.listeners.get(event).add(act);
  }

  off(event, act) {
    this.listeners.get(event)?.delete(act);
  }

  tell(event, ...what) {
    for (const act of [...(this.listeners.get(event) ?? [])]) act(...what);
  }

  save_changes() {
    // At once: the widget's model sends one message at a time and, while a change waits its turn, passes over what
    // Python repeats of the ones before. Of a change kept back here it would know nothing, and set it back.
    this.python?.save_changes();
    if (this.inAddress) this.writeAddress();
  }

  send(content) {
    this.python?.send(content);
  }

  /** Join a widget's model, whose Python session is alive: what it holds is shown, what is done here is told to it. */
  join(python) {
    if (this.python === python) return;
    this.python = python;
    for (const key of Object.keys(this.state)) {
      const adopt = () => {
        if (this.python !== python || python.get(key) === undefined || this.state[key] === python.get(key)) return;
        this.state[key] = python.get(key);
        this.tell(`change:${key}`);
      };
      adopt();
      python.on(`change:${key}`, adopt);
    }
    python.on("msg:custom", (content, buffers) => this.tell("msg:custom", content, buffers));
    for (const end of ["destroy", "comm:close"]) python.on(end, () => this.leave(python));
    this.tell("python");
  }

  leave(python) {
    if (this.python !== python) return;
    this.python = null;
    this.tell("python");
  }

  address() {
    return this.keys.map((key) => `${key}=${encodeURIComponent(this.state[key])}`).join("&");
  }

  readAddress() {
    for (const part of location.hash.slice(1).split("&")) {
      const [key, text] = part.split("=");
      if (!this.keys.includes(key) || text === undefined) continue;
      const value = parsed(decodeURIComponent(text), this.state[key]);
      if (isAllowed(value, this.allowed[key])) this.state[key] = value;
    }
  }
}

/** A text of the address as a value of the kind that `like` is; undefined if it is none. */
function parsed(text, like) {
  if (typeof like === "boolean") return text === "true";
  if (typeof like === "number") return Number.isFinite(Number(text)) && text !== "" ? Number(text) : undefined;
  return typeof like === "string" ? text : undefined;
}

function isAllowed(value, { values, least, most }) {
  if (value === undefined) return false;
  return values ? values.includes(value) : !(value < least || value > most);
}

/** Bytes arrive as a DataView from a widget, as base64 text in a page. */
export function bytesOf(value) {
  if (typeof value === "string") return Uint8Array.from(atob(value), (letter) => letter.charCodeAt(0));
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}

/** In a page: draw a figure into its place, once that is there, over the still picture. */
export function openInPage(place, render, allowed) {
  const state = JSON.parse(document.querySelector(`[data-hgsr-state="${place}"]`).textContent);
  const open = () => {
    const elements = document.querySelectorAll(`[data-hgsr="${place}"]:not([data-open])`);
    for (const el of elements) {
      el.setAttribute("data-open", "");
      const model = new PageModel(structuredClone(state), allowed);
      el.addEventListener("hgsr-python", (event) => model.join(event.detail));
      render({ model, el });
      document.dispatchEvent(new CustomEvent("hgsr-open", { detail: place }));
    }
    return elements.length > 0;
  };
  if (open()) return;
  const watch = new MutationObserver(() => open() && watch.disconnect());
  watch.observe(document.documentElement, { childList: true, subtree: true });
}

/** In a notebook: tie a widget's model to the figures that stand in the page for it. */
export function tieToPage({ model }) {
  const tie = () => {
    for (const el of document.querySelectorAll(`[data-hgsr="${model.get("place")}"]`)) {
      el.dispatchEvent(new CustomEvent("hgsr-python", { detail: model }));
    }
  };
  tie();
  const opened = (event) => event.detail === model.get("place") && tie();
  document.addEventListener("hgsr-open", opened);
  return () => document.removeEventListener("hgsr-open", opened);
}
