/** Run the cases of `tests/unit/cli/reducer_cases.json` and print the result of each as JSON: `node run_cases.mjs FILE`. */

import { readFileSync } from "node:fs";
import { Assembly } from "./reducer.mjs";

function run({ name, frames }) {
  const assembly = new Assembly();
  const asks = [];
  for (const frame of frames) {
    const outcomes = frame.event === "timer" ? assembly.resubscribe() : assembly.receive(frame);
    for (const outcome of outcomes) if (outcome.kind === "ask") asks.push([outcome.attempt, outcome.offset]);
  }
  return { name, asks, text: assembly.text, status: assembly.status, done: assembly.done };
}

const cases = JSON.parse(readFileSync(process.argv[2], "utf8"));
process.stdout.write(JSON.stringify(cases.map(run)));
