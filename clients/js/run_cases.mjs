/** Runs the cases of a file like `tests/unit/reducer_cases.json` and prints what the client made of each: `node run_cases.mjs FILE`. */

import { readFileSync } from "node:fs";
import { Assembly } from "./reducer.mjs";

function run({ name, frames }) {
  const assembly = new Assembly();
  const asks = [];
  for (const frame of frames) {
    const outcomes = frame.event === "timer" ? assembly.askAgain() : assembly.receive(frame);
    for (const outcome of outcomes) if (outcome.kind === "ask") asks.push([outcome.attempt, outcome.offset]);
  }
  return { name, asks, text: assembly.text, status: assembly.status, done: assembly.done };
}

const cases = JSON.parse(readFileSync(process.argv[2], "utf8"));
process.stdout.write(JSON.stringify(cases.map(run)));
