// One penalty of the table: value, force, gradient and proximal step, for a layer's weight in a flat array.
//
//   penalty(W) = sum over groups g of ( sum over kernels k in g of |w_k|_r ^ p ) ^ q
//
// A row of the table is { key, title, norm: r, inner: p, outer: q }; rows come from Python as data. A layer is
// { outputs, inputs, elements }, its weight an array with kernel (o, i) at (o * inputs + i) * elements.
// grouping "feature": a group holds the kernels of one input channel; "neuron": of one output channel.

/** base ** exponent for base >= 0, with 0 instead of infinity at zero: the zero subgradient. */
export function power(base, exponent) {
  if (exponent === 1) return base;
  if (exponent === 0) return 1;
  if (exponent === 2) return base * base;
  if (exponent === 0.5) return Math.sqrt(base);
  return base === 0 && exponent < 0 ? 0 : base ** exponent;
}

export function kernelNorms(weight, layer, norm) {
  const { elements } = layer;
  const norms = new Float64Array(layer.outputs * layer.inputs);
  for (let k = 0, at = 0; k < norms.length; k++) {
    let sum = 0;
    for (let e = 0; e < elements; e++, at++) sum += norm === 1 ? Math.abs(weight[at]) : weight[at] * weight[at];
    norms[k] = norm === 1 ? sum : Math.sqrt(sum);
  }
  return norms;
}

export const groupOf = (kernel, layer, grouping) =>
  grouping === "feature" ? kernel % layer.inputs : Math.floor(kernel / layer.inputs);

export const groupCount = (layer, grouping) => (grouping === "feature" ? layer.inputs : layer.outputs);

/** S_g, the sum inside each group. */
export function groupSums(row, grouping, norms, layer) {
  const sums = new Float64Array(groupCount(layer, grouping));
  for (let k = 0; k < norms.length; k++) sums[groupOf(k, layer, grouping)] += power(norms[k], row.inner);
  return sums;
}

export function penaltyValue(row, grouping, weight, layer) {
  const sums = groupSums(row, grouping, kernelNorms(weight, layer, row.norm), layer);
  return sums.reduce((total, sum) => total + power(sum, row.outer), 0);
}

/** One number a kernel: q S^(q-1) p n^exponent. With exponent p - 1 it is the force on the kernel's norm. */
function coefficients(row, grouping, norms, layer, exponent) {
  const pulls = groupSums(row, grouping, norms, layer).map((sum) => row.outer * power(sum, row.outer - 1));
  return norms.map((norm, k) => pulls[groupOf(k, layer, grouping)] * row.inner * power(norm, exponent));
}

export function forces(row, grouping, weight, layer) {
  return coefficients(row, grouping, kernelNorms(weight, layer, row.norm), layer, row.inner - 1);
}

/** Add factor times the penalty's gradient to `gradient`. */
export function addGradient(row, grouping, weight, layer, factor, gradient) {
  if (factor === 0) return;
  // d n / d w is w / n for the l2 norm: its 1 / n lowers the exponent instead of dividing by 0.
  const norms = kernelNorms(weight, layer, row.norm);
  const coefficient = coefficients(row, grouping, norms, layer, row.inner - row.norm);
  for (let k = 0, at = 0; k < norms.length; k++) {
    const pull = factor * coefficient[k];
    for (let e = 0; e < layer.elements; e++, at++) {
      gradient[at] += pull * (row.norm === 1 ? Math.sign(weight[at]) : weight[at]);
    }
  }
}

// The proximal step: argmin over V of 0.5 |V - W|^2 + step * penalty(V). Thresholds of magnitudes `sorted` in
// falling order, for the pairs of exponents whose solution is a closed form.
const THRESHOLDS = {
  "1,1": (sorted, step) => step,
  "1,2": exclusiveThreshold,
  "1,0.5": halfThreshold,
};

function exclusiveThreshold(sorted, step) {
  let [sum, threshold] = [0, 0];
  for (let m = 1; m <= sorted.length; m++) {
    sum += sorted[m - 1];
    threshold = Math.max(threshold, (2 * step * sum) / (1 + 2 * step * m));
  }
  return threshold;
}

/** With m elements above zero, u = sqrt(their sum) is the largest root of u^3 - S_m u + m step / 2 = 0. */
function halfThreshold(sorted, step) {
  const slack = 1 + 1e-12; // keeps a tie from losing both of its candidates
  let [sum, squares, best, threshold] = [0, 0, 0, sorted[0]];
  for (let m = 1; m <= sorted.length; m++) {
    sum += sorted[m - 1];
    squares += sorted[m - 1] ** 2;
    const cosine = (-0.75 * Math.sqrt(3) * m * step) / sum ** 1.5;
    if (!(cosine >= -1)) continue;
    const root = 2 * Math.sqrt(sum / 3) * Math.cos(Math.acos(cosine) / 3);
    const candidate = step / (2 * root);
    const next = m < sorted.length ? sorted[m] : 0;
    if (sorted[m - 1] * slack < candidate || next > candidate * slack) continue;
    const gain = 0.5 * (squares - m * candidate ** 2) - step * root; // against v = 0
    if (gain > best) [best, threshold] = [gain, candidate];
  }
  return threshold;
}

/** The exponents of the problem that is solved: a penalty of l2 norms is one of l1 norms on the norms. */
function solvedExponents(row) {
  return row.norm === 2 && row.inner === 2 ? [1, row.inner * row.outer] : [row.inner, row.outer];
}

export const isSquare = (row) => row.norm === 2 && row.inner === 2 && row.outer === 1;

/** Whether the row's proximal step is a closed form; of the eleven it is for seven. */
export const hasClosedProx = (row) => isSquare(row) || THRESHOLDS[solvedExponents(row).join()] !== undefined;

/** Overwrite `weight` by its proximal step, the l1 norm's (of size l1Step) first. */
export function proximalStep(row, grouping, weight, layer, step, l1Step = 0) {
  if (l1Step > 0) {
    for (let at = 0; at < weight.length; at++) weight[at] = softened(weight[at], l1Step);
  }
  if (!(step > 0)) return;
  if (isSquare(row)) {
    for (let at = 0; at < weight.length; at++) weight[at] /= 1 + 2 * step;
    return;
  }
  const solve = THRESHOLDS[solvedExponents(row).join()];
  if (!solve) throw new Error(`${row.title} has no closed proximal step: train with its gradient`);
  for (let g = 0; g < groupCount(layer, grouping); g++) {
    const kernels = kernelsOf(g, layer, grouping);
    if (row.norm === 1) softenGroup(weight, kernels, layer, solve, step);
    else scaleGroup(row, weight, kernels, layer, solve, step);
  }
}

const softened = (value, threshold) => (Math.abs(value) > threshold ? value - Math.sign(value) * threshold : 0);

function kernelsOf(group, layer, grouping) {
  return grouping === "feature"
    ? Array.from({ length: layer.outputs }, (_, o) => o * layer.inputs + group)
    : Array.from({ length: layer.inputs }, (_, i) => group * layer.inputs + i);
}

const falling = (values) => Float64Array.from(values).sort().reverse();

function softenGroup(weight, kernels, { elements }, solve, step) {
  const magnitudes = new Float64Array(kernels.length * elements);
  kernels.forEach((k, n) => {
    for (let e = 0; e < elements; e++) magnitudes[n * elements + e] = Math.abs(weight[k * elements + e]);
  });
  const threshold = solve(falling(magnitudes), step);
  for (const k of kernels) {
    for (let at = k * elements; at < (k + 1) * elements; at++) weight[at] = softened(weight[at], threshold);
  }
}

/** Where a penalty sees only a kernel's (or, with p = 2, the group's) l2 norm, the nearest point is a scaled one. */
function scaleGroup(row, weight, kernels, { elements }, solve, step) {
  const squares = kernels.map((k) => {
    let sum = 0;
    for (let at = k * elements; at < (k + 1) * elements; at++) sum += weight[at] ** 2;
    return sum;
  });
  const whole = Math.sqrt(squares.reduce((total, square) => total + square, 0));
  const norms = row.inner === 2 ? kernels.map(() => whole) : squares.map(Math.sqrt);
  const threshold = solve(row.inner === 2 ? [whole] : falling(norms), step);
  kernels.forEach((k, n) => {
    const factor = norms[n] > threshold ? 1 - threshold / norms[n] : 0;
    for (let at = k * elements; at < (k + 1) * elements; at++) weight[at] *= factor;
  });
}
