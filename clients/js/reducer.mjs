/**
 * Assemble the text of a job from frames that may be lost, late, repeated or out of order.
 *
 * Before a new connection, wait `reconnectDelay(failures)` seconds.
 *
 * Implements the same rules as `cli/reducer.py`; `tests/unit/cli/reducer_cases.json` tests both. It has no clock, no
 * connection and no dependency. Pass each frame to `receive`. For an `ask` outcome, send
 * {"action": "subscribe", job_id, attempt, offset}. Call `resubscribe` on a new connection, when an ask is not answered
 * within some seconds, and after 30 s without a frame.
 *
 * Offsets and lengths count Unicode code points: `[...text].length`, not `text.length`.
 */

const MAX_RECONNECT_DELAY = 20;

/**
 * Seconds until the next connection, after this many failed ones in a row. Half of it is random: when thousands of
 * sockets close at once, their clients must not come back at once.
 */
export const reconnectDelay = (failures, random = Math.random()) => Math.min(0.5 * 2 ** failures, MAX_RECONNECT_DELAY) * (0.5 + random / 2);

const TERMINAL = new Set(["completed", "incomplete", "failed", "cancelled", "expired"]);
const SURROGATE = /[\ud800-\udfff]/;

/** The number of code points in `text`. Text without surrogates is counted without a copy. */
export const points = (text) => (SURROGATE.test(text) ? [...text].length : text.length);

const slice = (text, from, to) => (SURROGATE.test(text) ? [...text].slice(from, to).join("") : text.slice(from, to));

/** The status that a frame carries; null if it carries none. */
function statusOf(frame) {
  const event = String(frame.event);
  if (event.startsWith("job_")) return event.slice(4);
  if (event === "retrying" || event === "held") return event;
  return typeof frame.status === "string" ? frame.status : null;
}

export class Assembly {
  attempt = 0;
  position = 0;
  version = -1;
  status = null;
  length = null; // of the text of `attempt`; known from its terminal frame
  lost = false;
  #pieces = [];
  #holeEnd = null; // an ask is pending until the position reaches this offset
  #announcedEnd = null; // attempt, status and length of the last `finished`, to send it once
  #stateFrame = null; // the frame that `status` is from

  get text() {
    if (this.#pieces.length > 1) this.#pieces = [this.#pieces.join("")];
    return this.#pieces[0] ?? "";
  }

  get done() {
    return TERMINAL.has(this.status) && this.position === this.length;
  }

  /** Whether no further frame can add text. */
  get over() {
    return this.done || this.lost;
  }

  /** Whether text is known to be missing and has been asked for. */
  get hasHole() {
    return this.#holeEnd !== null;
  }

  /**
   * Apply `frame` and return what it changed, as a list of
   * {kind: appended | started_over | ask | state | milestone | trimmed | lost | finished, ...}.
   */
  receive(frame) {
    if (!Number.isInteger(frame.attempt) || frame.attempt < this.attempt) return [];
    const outcomes = frame.attempt > this.attempt ? this.#startOver(frame) : [];
    if (frame.event === "tokens") return outcomes.concat(this.#append(frame.offset, frame.text));
    if (frame.event === "gap") return outcomes.concat(this.#markLost(frame));
    if (frame.event === "milestone") return [...outcomes, { kind: "milestone", frame }];
    return outcomes.concat(this.#updateState(frame));
  }

  /** Ask for the rest: on a new connection, when an ask was not answered, and after a long silence. */
  resubscribe() {
    return this.over ? [] : [{ kind: "ask", attempt: this.attempt, offset: this.position }];
  }

  #startOver(frame) {
    const isFirst = this.attempt === 0; // nothing was shown before it
    Object.assign(this, { attempt: frame.attempt, position: 0, length: null, lost: false });
    this.#pieces = [];
    this.#holeEnd = null;
    return isFirst ? [] : [{ kind: "started_over", attempt: frame.attempt, reason: frame.reason ?? null }];
  }

  #append(offset, text) {
    if (this.position === this.length || this.lost) return []; // text beyond the end is not part of the result
    if (offset > this.position) return this.#askForRest(offset);
    const upTo = this.length === null ? undefined : this.length - offset;
    const added = slice(text, this.position - offset, upTo);
    if (!added) return [];
    this.#pieces.push(added);
    this.position += points(added);
    if (this.#holeEnd !== null && this.position >= this.#holeEnd) this.#holeEnd = null;
    return [{ kind: "appended", text: added }, ...this.#checkLength()];
  }

  #updateState(frame) {
    const status = statusOf(frame);
    const version = frame.version ?? 0;
    if (status === null || version < this.version) return [];
    // One version has one status: only a newer version (a manual retry) leaves a terminal status.
    if (version === this.version && TERMINAL.has(this.status) && !TERMINAL.has(status)) return [];
    Object.assign(this, { status, version });
    this.#stateFrame = frame;
    if (!TERMINAL.has(status)) this.#announcedEnd = null;
    if (String(frame.event).startsWith("job_")) this.length = frame.length ?? 0;
    return [{ kind: "state", status, frame }, ...this.#checkLength()];
  }

  /** Compare the received text with the length that the terminal frame named. */
  #checkLength() {
    if (this.length === null || !TERMINAL.has(this.status) || this.lost) return [];
    if (this.position < this.length) return this.#askForRest(this.length);
    const outcomes = [];
    if (this.position > this.length) {
      this.#pieces = [slice(this.text, 0, this.length)];
      this.position = this.length;
      outcomes.push({ kind: "trimmed", length: this.length });
    }
    this.#holeEnd = null;
    const end = `${this.attempt}:${this.status}:${this.length}`;
    if (this.#announcedEnd !== end) {
      this.#announcedEnd = end;
      outcomes.push({ kind: "finished", status: this.status, frame: this.#stateFrame });
    }
    return outcomes;
  }

  /** Ask once per hole: each later frame shows it again, and each answer repeats all text after it. */
  #askForRest(upTo) {
    if (this.hasHole || this.lost) return [];
    this.#holeEnd = upTo;
    return [{ kind: "ask", attempt: this.attempt, offset: this.position }];
  }

  #markLost(frame) {
    if (this.over) return [];
    this.lost = true;
    this.#holeEnd = null;
    return [{ kind: "lost", earliest: frame.earliest ?? null }];
  }
}
