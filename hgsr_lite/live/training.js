// A training run in the page: batches, schedule, penalty and the figures of each epoch, as the package's `fit`.

import { DigitsNetwork, randomNumbers } from "./network.js";
import { addGradient, penaltyValue, proximalStep } from "./penalty.js";

const L1 = { norm: 1, inner: 1, outer: 1 };
export const TOLERANCE = 1e-3;

/** The learning rate of an epoch, counted from 1: times 0.2 after each third of the run. */
export const scheduledRate = (lr, epoch, epochs) => lr * 0.2 ** Math.floor((3 * (epoch - 1)) / epochs);

/** One step on one batch; returns the batch's mean loss and, of a gradient step, the penalty beside it. */
export function trainStep(network, images, labels, settings) {
  const { row, grouping, strength, l1Mix, proximal } = settings;
  const [share, l1Share] = [strength * (1 - l1Mix), strength * l1Mix];
  network.forward(images, labels.length, true);
  const { loss } = network.judge(labels, labels.length);
  network.backward(labels, labels.length);
  let penalty = 0;
  for (const block of strength > 0 && !proximal ? network.blocks : []) {
    const { data, gradient } = block.weight;
    penalty += share * penaltyValue(row, grouping, data, block);
    addGradient(row, grouping, data, block, share, gradient);
    if (l1Share > 0) {
      penalty += l1Share * penaltyValue(L1, grouping, data, block);
      addGradient(L1, grouping, data, block, l1Share, gradient);
    }
  }
  network.descend(settings);
  for (const block of strength > 0 && proximal ? network.blocks : []) {
    proximalStep(row, grouping, block.weight.data, block, settings.lr * share, settings.lr * l1Share);
  }
  return { loss, penalty };
}

/** Shares of all convolutions: small weights, exact zeros, dead kernels, dead inputs, dead outputs. */
export function sparsity(network, tolerance = TOLERANCE) {
  const counts = { weights: 0, small: 0, zeros: 0, kernels: 0, deadKernels: 0, inputs: 0, deadInputs: 0, outputs: 0, deadOutputs: 0 };
  for (const { weight, outputs, inputs } of network.blocks) {
    const liveInputs = new Set();
    const liveOutputs = new Set();
    let live = 0;
    for (let k = 0; k < outputs * inputs; k++) {
      let below = 0;
      for (let at = 9 * k; at < 9 * k + 9; at++) {
        below += Math.abs(weight.data[at]) < tolerance || weight.data[at] === 0;
        counts.zeros += weight.data[at] === 0;
      }
      counts.small += below;
      if (below === 9) continue;
      live += 1;
      liveInputs.add(k % inputs);
      liveOutputs.add(Math.floor(k / inputs));
    }
    counts.weights += weight.size;
    counts.kernels += outputs * inputs;
    counts.deadKernels += outputs * inputs - live;
    counts.inputs += inputs;
    counts.deadInputs += inputs - liveInputs.size;
    counts.outputs += outputs;
    counts.deadOutputs += outputs - liveOutputs.size;
  }
  return {
    "below tolerance": counts.small / counts.weights,
    "exact zeros": counts.zeros / counts.weights,
    "dead kernels": counts.deadKernels / counts.kernels,
    "dead inputs": counts.deadInputs / counts.inputs,
    "dead outputs": counts.deadOutputs / counts.outputs,
  };
}

/** Mean loss and share of images named rightly, with the statistics gathered in training. */
export function evaluate(network, { images, labels }) {
  const pixels = images.length / labels.length;
  let [loss, right] = [0, 0];
  for (let start = 0; start < labels.length; start += network.capacity) {
    const part = labels.subarray(start, start + network.capacity);
    network.forward(images.subarray(start * pixels, (start + part.length) * pixels), part.length);
    const judged = network.judge(part, part.length);
    loss += judged.loss * part.length;
    right += judged.right;
  }
  return { loss: loss / labels.length, accuracy: right / labels.length };
}

/** Accuracy once the weights below tolerance are set to zero; they are put back. */
export function accuracyAfterZeroing(network, part, tolerance = TOLERANCE) {
  const kept = network.blocks.map(({ weight }) => weight.data.slice());
  for (const { weight } of network.blocks) {
    weight.data.forEach((value, at) => {
      if (Math.abs(value) < tolerance) weight.data[at] = 0;
    });
  }
  const { accuracy } = evaluate(network, part);
  network.blocks.forEach(({ weight }, b) => weight.data.set(kept[b]));
  return accuracy;
}

/** A run that goes on one batch at a time; `record` holds the metrics of the epochs that are over. */
export class TrainingRun {
  /** `data`: { train, validation }, each { images, labels }; `settings`: see `trainStep`, with epochs and seed. */
  constructor(data, settings) {
    Object.assign(this, { data, settings, records: [], epoch: 0, lossSum: 0, penaltySum: 0, notes: "" });
    this.network = new DigitsNetwork({ capacity: settings.batchSize });
    this.network.initialise(settings.seed);
    this.random = randomNumbers(settings.seed + 1);
    this.pixels = data.train.images.length / data.train.labels.length;
    this.batches = Math.ceil(data.train.labels.length / settings.batchSize);
    this.batch = this.batches; // the first step begins an epoch
  }

  get isOver() {
    return this.epoch >= this.settings.epochs && this.batch >= this.batches;
  }

  get progress() {
    return (Math.max(0, this.epoch - 1) * this.batches + (this.epoch ? this.batch : 0)) / (this.settings.epochs * this.batches);
  }

  /** Train on one batch. Returns the epoch's record where it was the epoch's last, else null. */
  step() {
    if (this.isOver) return null;
    if (this.batch >= this.batches) this.beginEpoch();
    const { images, labels } = this.nextBatch();
    const lr = scheduledRate(this.settings.lr, this.epoch, this.settings.epochs);
    const result = trainStep(this.network, images, labels, { ...this.settings, lr, strength: this.strengthNow() });
    this.lossSum += result.loss * labels.length;
    this.penaltySum += result.penalty;
    return this.batch >= this.batches ? this.endEpoch() : null;
  }

  strengthNow() {
    const { strength, warmup } = this.settings;
    return warmup > 0 ? strength * Math.min(1, this.progress / warmup) : strength;
  }

  beginEpoch() {
    this.epoch += 1;
    [this.batch, this.lossSum, this.penaltySum] = [0, 0, 0];
    this.order = Uint32Array.from(this.data.train.labels, (_, n) => n);
    for (let n = this.order.length - 1; n > 0; n--) {
      const other = Math.floor(this.random() * (n + 1));
      [this.order[n], this.order[other]] = [this.order[other], this.order[n]];
    }
  }

  nextBatch() {
    const { batchSize } = this.settings;
    const chosen = this.order.subarray(this.batch * batchSize, (this.batch + 1) * batchSize);
    const { images, labels } = this.data.train;
    const shown = new Float64Array(chosen.length * this.pixels);
    chosen.forEach((image, n) => {
      shown.set(images.subarray(image * this.pixels, (image + 1) * this.pixels), n * this.pixels);
    });
    this.batch += 1;
    return { images: shown, labels: Uint8Array.from(chosen, (image) => labels[image]) };
  }

  endEpoch() {
    const loss = this.lossSum / this.data.train.labels.length;
    const judged = evaluate(this.network, this.data.validation);
    const record = {
      epoch: this.epoch,
      "training loss": loss,
      penalty: this.penaltySum / this.batches,
      "validation loss": judged.loss,
      "validation accuracy": judged.accuracy,
      "validation accuracy after zeroing": accuracyAfterZeroing(this.network, this.data.validation),
      ...sparsity(this.network),
    };
    if (!Number.isFinite(loss + record.penalty + judged.loss)) {
      throw new Error(`epoch ${this.epoch}: the loss is no longer a number; lower the strength`);
    }
    this.records.push(record);
    return record;
  }
}
