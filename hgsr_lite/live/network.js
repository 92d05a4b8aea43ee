// The digits network of the series in plain loops: three 3x3 convolutions, each with batch norm and ReLU, a
// pool after the first, an average over the last map, a linear layer. It computes what PyTorch computes.
//
// Activations lie as [channel][pixel of a map with a border of zeros][image]: the innermost loops run along a
// row of pixels times images, and none asks whether it stands at an edge. Places for images that a smaller
// batch leaves empty hold zeros in every gradient. A kernel of nothing but zeros is skipped.

const EPSILON = 1e-5; // of the batch norm's variance
const MOMENTUM = 0.1; // of the batch norm's running statistics

/** A map's pixels inside its border, as offsets into a channel. */
class Grid {
  constructor(height, width, capacity) {
    this.width = width;
    this.height = height;
    this.column = capacity;
    this.row = (width + 2) * capacity;
    this.channel = (height + 2) * this.row;
    this.inside = [];
    for (let y = 1; y <= height; y++) {
      for (let x = 1; x <= width; x++) this.inside.push(y * this.row + x * capacity);
    }
  }
}

class Parameter {
  constructor(name, shape) {
    this.name = name;
    this.shape = shape;
    this.size = shape.reduce((product, length) => product * length, 1);
    this.data = new Float64Array(this.size);
    this.gradient = new Float64Array(this.size);
    this.velocity = new Float64Array(this.size);
  }
}

/** A convolution, its batch norm and its ReLU. */
class Block {
  constructor(number, inputs, outputs, grid, capacity) {
    Object.assign(this, { inputs, outputs, grid, capacity, elements: 9, name: `features.conv${number}` });
    this.weight = new Parameter(`${this.name}.weight`, [outputs, inputs, 3, 3]);
    this.scale = new Parameter(`features.norm${number}.weight`, [outputs]);
    this.shift = new Parameter(`features.norm${number}.bias`, [outputs]);
    this.runningMean = new Float64Array(outputs);
    this.runningVariance = new Float64Array(outputs).fill(1);
    this.deviation = new Float64Array(outputs);
    this.before = new Float64Array((outputs + 1) * grid.channel); // the convolution's output, then the normalised one
    this.output = new Float64Array(outputs * grid.channel);
    this.gradient = new Float64Array(outputs * grid.channel); // of the output, then of the convolution's output
    this.inputGradient = new Float64Array((inputs + 1) * grid.channel);
  }

  forward(input, count, training) {
    this.input = input;
    this.before.fill(0);
    const { inputs, outputs, weight } = this;
    correlate(this.before, outputs, input, inputs, weight.data, 9 * inputs, 9, false, this.grid);
    for (let c = 0; c < outputs; c++) this.normalise(c, count, training);
    return this.output;
  }

  normalise(c, count, training) {
    const { grid, before, output } = this;
    const start = c * grid.channel;
    let [mean, variance] = [this.runningMean[c], this.runningVariance[c]];
    if (training) {
      [mean, variance] = moments(before, start, grid.inside, count);
      const total = grid.inside.length * count;
      this.runningMean[c] += MOMENTUM * (mean - this.runningMean[c]);
      this.runningVariance[c] += MOMENTUM * ((variance * total) / (total - 1) - this.runningVariance[c]);
    }
    const factor = 1 / Math.sqrt(variance + EPSILON);
    const [scale, shift] = [this.scale.data[c], this.shift.data[c]];
    this.deviation[c] = factor;
    for (const place of grid.inside) {
      for (let at = start + place, end = at + count; at < end; at++) {
        const normal = (before[at] - mean) * factor;
        before[at] = normal;
        const value = scale * normal + shift;
        output[at] = value > 0 ? value : 0;
      }
    }
  }

  /** From `gradient` of the output to the parameters' gradients and, unless this is the first block, the input's. */
  backward(count, isFirst) {
    const { inputs, outputs, grid, weight, gradient } = this;
    if (count < this.capacity) clearAfter(gradient, grid, outputs, count);
    for (let c = 0; c < outputs; c++) this.backwardNorm(c, count);
    weightGradient(weight.gradient, gradient, outputs, this.input, inputs, grid);
    if (isFirst) return;
    this.inputGradient.fill(0);
    correlate(this.inputGradient, inputs, gradient, outputs, weight.data, 9, 9 * inputs, true, grid);
  }

  backwardNorm(c, count) {
    const { grid, before, output, gradient } = this;
    const start = c * grid.channel;
    let [sum, product] = [0, 0];
    for (const place of grid.inside) {
      for (let at = start + place, end = at + count; at < end; at++) {
        if (!(output[at] > 0)) gradient[at] = 0;
        sum += gradient[at];
        product += gradient[at] * before[at];
      }
    }
    this.scale.gradient[c] = product;
    this.shift.gradient[c] = sum;
    const total = grid.inside.length * count;
    const factor = this.scale.data[c] * this.deviation[c];
    const [mean, slope] = [sum / total, product / total];
    for (const place of grid.inside) {
      for (let at = start + place, end = at + count; at < end; at++) {
        gradient[at] = factor * (gradient[at] - mean - before[at] * slope);
      }
    }
  }
}

/** Set the places behind the last image to zero. */
function clearAfter(values, grid, channels, count) {
  for (let c = 0; c < channels; c++) {
    for (const place of grid.inside) values.fill(0, c * grid.channel + place + count, c * grid.channel + place + grid.column);
  }
}

function moments(values, start, inside, count) {
  let sum = 0;
  for (const place of inside) {
    for (let at = start + place, end = at + count; at < end; at++) sum += values[at];
  }
  const mean = sum / (inside.length * count);
  let squares = 0;
  for (const place of inside) {
    for (let at = start + place, end = at + count; at < end; at++) squares += (values[at] - mean) ** 2;
  }
  return [mean, squares / (inside.length * count)];
}

/**
 * out[o] += sum over i of kernel (o, i) slid over input[i]; the kernel lies at o * outStride + i * inStride.
 * Flipped, and with the strides exchanged, it is the gradient of the input.
 *
 * Living kernels are taken in pairs, so that two outputs share what is read of an input. An odd one is paired
 * with a kernel of zeros that writes to the spare channel `outs`.
 */
function correlate(out, outs, input, ins, weight, outStride, inStride, flip, grid) {
  const turn = flip ? 8 : 0;
  const tap = flip ? -1 : 1;
  for (let i = 0; i < ins; i++) {
    const living = [];
    for (let o = 0; o < outs; o++) if (isAlive(weight, o * outStride + i * inStride)) living.push(o);
    for (let n = 0; n < living.length; n += 2) {
      const [one, other] = [living[n], living[n + 1] ?? outs];
      for (let r = 0; r < 3; r++) {
        const a = one * outStride + i * inStride + turn + 3 * r * tap;
        const b = other === outs ? weight.length : other * outStride + i * inStride + turn + 3 * r * tap;
        slideTwoRows(
          out, one * grid.channel, other * grid.channel, input, i * grid.channel + (r - 1) * grid.row, grid,
          weight[a], weight[a + tap], weight[a + 2 * tap], weight[b] || 0, weight[b + tap] || 0, weight[b + 2 * tap] || 0,
        );
      }
    }
  }
}

function isAlive(weight, at) {
  for (let end = at + 9; at < end; at++) if (weight[at] !== 0) return true;
  return false;
}

/** One row of three taps of two kernels, slid over a whole channel. */
function slideTwoRows(out, one, other, input, from, grid, a0, a1, a2, b0, b1, b2) {
  const { height, width, row, column } = grid;
  const gap = other - one;
  for (let y = 1; y <= height; y++) {
    let to = one + y * row + column;
    let middle = from + y * row + column;
    for (const end = to + width * column; to < end; to++, middle++) {
      const left = input[middle - column], centre = input[middle], right = input[middle + column];
      out[to] += a0 * left + a1 * centre + a2 * right;
      out[to + gap] += b0 * left + b1 * centre + b2 * right;
    }
  }
}

/** The gradient of every kernel: four outputs (their number is a multiple of four) by one row of taps at a time. */
function weightGradient(result, gradient, outs, input, ins, grid) {
  const { height, width, row, channel, column } = grid;
  for (let o = 0; o < outs; o += 4) {
    for (let i = 0; i < ins; i++) {
      for (let r = 0; r < 3; r++) {
        let a0 = 0, a1 = 0, a2 = 0, b0 = 0, b1 = 0, b2 = 0, c0 = 0, c1 = 0, c2 = 0, d0 = 0, d1 = 0, d2 = 0;
        for (let y = 1; y <= height; y++) {
          let to = o * channel + y * row + column;
          let middle = i * channel + (y + r - 1) * row + column;
          for (const end = to + width * column; to < end; to++, middle++) {
            const left = input[middle - column], centre = input[middle], right = input[middle + column];
            const a = gradient[to], b = gradient[to + channel];
            const c = gradient[to + 2 * channel], d = gradient[to + 3 * channel];
            a0 += a * left; a1 += a * centre; a2 += a * right;
            b0 += b * left; b1 += b * centre; b2 += b * right;
            c0 += c * left; c1 += c * centre; c2 += c * right;
            d0 += d * left; d1 += d * centre; d2 += d * right;
          }
        }
        const at = (k) => ((o + k) * ins + i) * 9 + 3 * r;
        result.set([a0, a1, a2], at(0));
        result.set([b0, b1, b2], at(1));
        result.set([c0, c1, c2], at(2));
        result.set([d0, d1, d2], at(3));
      }
    }
  }
}

/** A max-pool of 2x2, of values not below zero: at an odd edge it sees the border's zeros. It remembers, for each output, which pixel won. */
class Pool {
  constructor(channels, from, to, capacity) {
    Object.assign(this, { channels, from, to });
    this.output = new Float64Array(channels * to.channel);
    this.winner = new Int32Array(channels * to.channel);
    this.corners = to.inside.map((_, p) => {
      const [y, x] = [2 * Math.floor(p / to.width), 2 * (p % to.width)];
      const first = from.inside[y * from.width + x];
      return [first, first + capacity, first + from.row, first + from.row + capacity];
    });
  }

  forward(input, count) {
    this.each(count, (at, corners) => {
      let best = corners[0];
      for (let c = 1; c < 4; c++) if (input[corners[c]] > input[best]) best = corners[c];
      this.winner[at] = best;
      this.output[at] = input[best];
    });
    return this.output;
  }

  backward(gradient, inputGradient, count) {
    inputGradient.fill(0);
    this.each(count, (at) => {
      inputGradient[this.winner[at]] += gradient[at];
    });
  }

  each(count, act) {
    const corners = new Int32Array(4);
    for (let c = 0; c < this.channels; c++) {
      this.corners.forEach((places, p) => {
        for (let n = 0; n < count; n++) {
          for (let k = 0; k < 4; k++) corners[k] = c * this.from.channel + places[k] + n;
          act(c * this.to.channel + this.to.inside[p] + n, corners);
        }
      });
    }
  }
}

/** Numbers in 0..1 that a seed fixes (mulberry32). */
export function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

export class DigitsNetwork {
  /** `channels`: of the three convolutions, `inputs`: of an image. `capacity`: the most images in a batch. */
  constructor({ channels = [16, 32, 32], classes = 10, inputs = 1, height = 8, width = 8, capacity = 64 } = {}) {
    Object.assign(this, { channels, classes, inputs, capacity, height, width });
    const [large, small] = [new Grid(height, width, capacity), new Grid(Math.ceil(height / 2), Math.ceil(width / 2), capacity)];
    const [first, second, third] = channels;
    this.large = large;
    this.small = small;
    this.images = new Float64Array(inputs * large.channel);
    this.pool = new Pool(first, large, small, capacity);
    this.blocks = [
      new Block(1, inputs, first, large, capacity),
      new Block(2, first, second, small, capacity),
      new Block(3, second, third, small, capacity),
    ];
    this.linear = new Parameter("classifier.output.weight", [classes, third]);
    this.bias = new Parameter("classifier.output.bias", [classes]);
    this.features = new Float64Array(third * capacity);
    this.scores = new Float64Array(classes * capacity);
    this.parameters = [
      ...this.blocks.flatMap((block) => [block.weight, block.scale, block.shift]),
      this.linear,
      this.bias,
    ];
  }

  /** PyTorch's own start: uniform within 1 / sqrt(fan-in); batch norms begin as the identity. */
  initialise(seed) {
    const random = randomNumbers(seed);
    const draw = (parameter, fanIn) => {
      for (let at = 0; at < parameter.size; at++) parameter.data[at] = (2 * random() - 1) / Math.sqrt(fanIn);
    };
    for (const block of this.blocks) {
      draw(block.weight, 9 * block.inputs);
      block.scale.data.fill(1);
      block.shift.data.fill(0);
      block.runningMean.fill(0);
      block.runningVariance.fill(1);
    }
    draw(this.linear, this.channels[2]);
    draw(this.bias, this.channels[2]);
    for (const parameter of this.parameters) parameter.velocity.fill(0);
  }

  /**
   * Scores [class][image] of `count` images, given one behind the other, each of inputs * height * width pixels.
   * `between(block, maps)` may change a block's output before it is read.
   */
  forward(pixels, count, training = false, between = (block, maps) => maps) {
    const { large, small, blocks, channels, inputs } = this;
    const size = large.inside.length;
    for (let i = 0; i < inputs; i++) {
      large.inside.forEach((place, p) => {
        for (let n = 0; n < count; n++) this.images[i * large.channel + place + n] = pixels[(n * inputs + i) * size + p];
      });
    }
    let maps = this.pool.forward(between(0, blocks[0].forward(this.images, count, training)), count);
    maps = between(1, blocks[1].forward(maps, count, training));
    maps = between(2, blocks[2].forward(maps, count, training));
    this.features.fill(0);
    for (let c = 0; c < channels[2]; c++) {
      for (const place of small.inside) {
        for (let n = 0; n < count; n++) {
          this.features[c * this.capacity + n] += maps[c * small.channel + place + n] / small.inside.length;
        }
      }
    }
    this.classify(count);
    return this.scores;
  }

  classify(count) {
    const { capacity, channels, features, linear, scores } = this;
    for (let k = 0; k < this.classes; k++) {
      for (let n = 0; n < count; n++) {
        let score = this.bias.data[k];
        for (let c = 0; c < channels[2]; c++) score += linear.data[k * channels[2] + c] * features[c * capacity + n];
        scores[k * capacity + n] = score;
      }
    }
  }

  /** Mean cross-entropy of the last forward pass, and how many images were named rightly. */
  judge(labels, count) {
    let [loss, right] = [0, 0];
    for (let n = 0; n < count; n++) {
      const shares = this.shares(n);
      loss -= Math.log(shares[labels[n]]) / count;
      right += shares.indexOf(Math.max(...shares)) === labels[n];
    }
    return { loss, right };
  }

  /** The softmax of one image's scores. */
  shares(image) {
    const scores = Array.from({ length: this.classes }, (_, k) => this.scores[k * this.capacity + image]);
    const largest = Math.max(...scores);
    const raised = scores.map((score) => Math.exp(score - largest));
    const total = raised.reduce((sum, value) => sum + value, 0);
    return raised.map((value) => value / total);
  }

  /** Gradients of the mean cross-entropy of the last forward pass, which must have been one of training. */
  backward(labels, count) {
    const { blocks, channels, small, capacity, features, linear } = this;
    const pulls = new Float64Array(this.classes * count);
    for (let n = 0; n < count; n++) {
      this.shares(n).forEach((share, k) => {
        pulls[k * count + n] = (share - (k === labels[n] ? 1 : 0)) / count;
      });
    }
    linear.gradient.fill(0);
    const last = blocks[2].gradient;
    last.fill(0);
    for (let k = 0; k < this.classes; k++) {
      let sum = 0;
      for (let n = 0; n < count; n++) sum += pulls[k * count + n];
      this.bias.gradient[k] = sum;
      for (let c = 0; c < channels[2]; c++) {
        for (let n = 0; n < count; n++) {
          linear.gradient[k * channels[2] + c] += pulls[k * count + n] * features[c * capacity + n];
        }
      }
    }
    for (let c = 0; c < channels[2]; c++) {
      for (let n = 0; n < count; n++) {
        let pull = 0;
        for (let k = 0; k < this.classes; k++) pull += pulls[k * count + n] * linear.data[k * channels[2] + c];
        for (const place of small.inside) last[c * small.channel + place + n] = pull / small.inside.length;
      }
    }
    blocks[2].backward(count, false);
    blocks[1].gradient.set(blocks[2].inputGradient.subarray(0, blocks[1].gradient.length));
    blocks[1].backward(count, false);
    this.pool.backward(blocks[1].inputGradient, blocks[0].gradient, count);
    blocks[0].backward(count, true);
  }

  /** One step of stochastic gradient descent, as PyTorch takes it. */
  descend({ lr, momentum, weightDecay }) {
    for (const { data, gradient, velocity, size } of this.parameters) {
      for (let at = 0; at < size; at++) {
        velocity[at] = momentum * velocity[at] + gradient[at] + weightDecay * data[at];
        data[at] -= lr * velocity[at];
      }
    }
  }
}
