/**
 * Follow the event stream of a job with `fetch`, slice by slice to its end.
 *
 * A response is one slice and ends; that is not the end of the stream. Libraries that parse event streams for `fetch`
 * need to be told: they stop at the first end of a response. This is what has to be done around any of them:
 *
 * - ask again, with the id of the last event as `Last-Event-ID`, after the milliseconds of `retry:`
 * - until 204, or an event whose id is `attempt:offset:end`
 *
 * It has no dependency: `node watch.mjs https://.../api hr_... job_...` prints the text of a job.
 */

import { fileURLToPath } from "node:url";

const END = /^\d+:\d+:end/;

/** The next whole event of an event stream, and what follows it; null if none is whole. */
const next = (text) => {
  const end = text.indexOf("\n\n");
  if (end < 0) return null;
  const fields = { data: [] };
  for (const line of text.slice(0, end).split("\n")) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (name === "data") fields.data.push(value);
    else if (name) fields[name] = value;
  }
  return [{ ...fields, data: fields.data.join("\n") }, text.slice(end + 2)];
};

/** Yields `{id, event, data}` of each event; `data` is the frame. Ends with the job. */
export async function* events(api, key, job, { lastEventId = "", wait = (ms) => new Promise((done) => setTimeout(done, ms)) } = {}) {
  for (let retry = 3000; ; await wait(retry)) {
    const headers = { Authorization: `Bearer ${key}`, ...(lastEventId && { "Last-Event-ID": lastEventId }) };
    const response = await fetch(`${api}/jobs/${job}/stream`, { headers });
    if (response.status === 204) return;
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
    let text = "";
    for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
      text += part;
      for (let found; (found = next(text)); ) {
        const [event, rest] = found;
        text = rest;
        if (event.retry) retry = Number(event.retry);
        if (event.data) yield { id: event.id, event: event.event, data: JSON.parse(event.data) };
        lastEventId = event.id ?? lastEventId;
        if (END.test(lastEventId)) return;
      }
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  let text = "";
  for await (const { event, data } of events(...process.argv.slice(2))) {
    if (event === "reset") text = ""; // another attempt begins
    if (event === "tokens") text += data.text;
  }
  console.log(text);
}
