// The trainer's worker: trains one batch after the other and tells the page what it sees, a few times a second.

import { kernelNorms } from "./penalty.js";
import { TrainingRun } from "./training.js";

const TELL_EVERY = 60; // milliseconds

/** Serves the messages of `port`: { do: "train" | "pause" | "step" | "stop", ... }; answers through `tell`. */
export function serve(tell, soon) {
  let [data, run, phase, spent, told, epochStart, epochSeconds] = [null, null, "idle", 0, 0, 0, []];
  let number = 0; // of the loop that may go on: a new phase ends the old one
  let heard = 0; // of the last message that was read: a report says which one it knows of
  let ended = ""; // how the last run did, in words

  const norms = () => {
    const parts = run.network.blocks.map((block) => kernelNorms(block.weight.data, block, 1));
    const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((start, part) => (all.set(part, start), start + part.length), 0);
    return all;
  };
  const report = () => {
    told = performance.now();
    const share = run.progress;
    tell({ heard, phase, share, spent, left: share > 0 ? (spent / share) * (1 - share) : NaN, epoch: run.epoch, ending: ended,
      epochs: run.settings.epochs, records: run.records, norms: norms(), epochSeconds: epochSeconds.at(-1) });
  };
  const loop = (mine, untilEpochEnds) => {
    if (mine !== number) return;
    const start = performance.now();
    let record = null;
    try {
      record = run.step();
    } catch (error) {
      end(error.message);
      return;
    }
    spent += (performance.now() - start) / 1000;
    if (record) {
      epochSeconds.push(spent - epochStart);
      epochStart = spent;
    }
    if (run.isOver) {
      end(`finished after epoch ${run.epoch}`);
      return;
    }
    if (record && untilEpochEnds) phase = "paused";
    if (record || performance.now() - told > TELL_EVERY) report();
    if (phase === "running") soon(() => loop(mine, untilEpochEnds));
  };
  const begin = (settings) => {
    run = new TrainingRun(data, settings);
    [spent, epochStart, epochSeconds, ended] = [0, 0, [], ""];
  };
  const end = (words) => {
    phase = "idle";
    ended = words;
    report();
  };
  const go = (untilEpochEnds) => {
    phase = "running";
    number += 1;
    const mine = number;
    report();
    soon(() => loop(mine, untilEpochEnds));
  };
  return (message) => {
    heard = message.number;
    if (message.data) data = message.data;
    if (message.do === "look") {
      begin(message.settings);
      report();
    } else if (message.do === "train" && phase === "idle") {
      begin(message.settings);
      go(false);
    } else if (message.do === "step" && phase !== "running") {
      if (phase === "idle") begin(message.settings);
      go(true);
    } else if (message.do === "pause" && phase !== "idle") {
      if (phase === "paused") go(false);
      else {
        phase = "paused";
        number += 1;
        report();
      }
    } else if (message.do === "stop" && phase !== "idle") {
      number += 1;
      end(`stopped in epoch ${run.epoch} of ${run.settings.epochs}`);
    } else report(); // nothing to do, but an answer is waited for
  };
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  // A channel lets messages in between two batches without the 4 ms that a timer waits.
  const channel = new MessageChannel();
  const waiting = [];
  channel.port1.onmessage = () => waiting.shift()?.();
  const soon = (act) => {
    waiting.push(act);
    channel.port2.postMessage(0);
  };
  const answer = serve((report) => self.postMessage(report, [report.norms.buffer]), soon);
  self.onmessage = (event) => answer(event.data);
}
