/**
 * How a watcher puts the text of a job together from frames that may be lost, late, doubled or out of order.
 *
 * The twin of `cli/reducer.py`, held to the same rules by `tests/unit/reducer_cases.json`. No clock, no connection, no dependency:
 * tell it each frame with `receive`, send what an `ask` outcome says ({"action": "subscribe", job_id, attempt, offset}), and call
 * `askAgain` on a new connection, when an ask stays unanswered for some seconds and when nothing came for 30 s.
 *
 * Offsets and lengths count Unicode code points: `[...text].length`, not `text.length`.
 */

const TERMINAL = new Set(["completed", "incomplete", "failed", "cancelled", "expired"]);
const SURROGATE = /[\ud800-\udfff]/;

/** Code points in `text`; cheap for text without characters beyond U+FFFF. */
export const points = (text) => (SURROGATE.test(text) ? [...text].length : text.length);

const slice = (text, from, to) => (SURROGATE.test(text) ? [...text].slice(from, to).join("") : text.slice(from, to));

/** The status that a state frame tells; null for frames that tell none. */
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
  length = null; // of the text of `attempt`, once a terminal frame has told it
  lost = false;
  #pieces = [];
  #holeEnds = null; // an ask is under way until the position is here
  #announced = null;
  #newest = null; // the frame that told `status`

  get text() {
    if (this.#pieces.length > 1) this.#pieces = [this.#pieces.join("")];
    return this.#pieces[0] ?? "";
  }

  get done() {
    return TERMINAL.has(this.status) && this.position === this.length;
  }

  /** Whether listening on can add nothing. */
  get over() {
    return this.done || this.lost;
  }

  /** Whether text is known to be missing, and was asked for. */
  get hasHole() {
    return this.#holeEnds !== null;
  }

  /** What `frame` changes: a list of {kind: appended | started_over | ask | state | milestone | trimmed | lost | finished, ...}. */
  receive(frame) {
    if (!Number.isInteger(frame.attempt) || frame.attempt < this.attempt) return [];
    const outcomes = frame.attempt > this.attempt ? this.#startOver(frame) : [];
    if (frame.event === "tokens") return outcomes.concat(this.#take(frame.offset, frame.text));
    if (frame.event === "gap") return outcomes.concat(this.#lose(frame));
    if (frame.event === "milestone") return [...outcomes, { kind: "milestone", frame }];
    return outcomes.concat(this.#change(frame));
  }

  /** For a new connection, and for when a timer ran out: an ask went unanswered, or nothing came for long. */
  askAgain() {
    return this.over ? [] : [{ kind: "ask", attempt: this.attempt, offset: this.position }];
  }

  #startOver(frame) {
    const isFirst = this.attempt === 0; // nothing was shown before it
    Object.assign(this, { attempt: frame.attempt, position: 0, length: null, lost: false });
    this.#pieces = [];
    this.#holeEnds = null;
    return isFirst ? [] : [{ kind: "started_over", attempt: frame.attempt, reason: frame.reason ?? null }];
  }

  #take(offset, text) {
    if (this.position === this.length || this.lost) return []; // what lies beyond the end is not part of the text
    if (offset > this.position) return this.#ask(offset);
    const upTo = this.length === null ? undefined : this.length - offset;
    const added = slice(text, this.position - offset, upTo);
    if (!added) return [];
    this.#pieces.push(added);
    this.position += points(added);
    if (this.#holeEnds !== null && this.position >= this.#holeEnds) this.#holeEnds = null;
    return [{ kind: "appended", text: added }, ...this.#settle()];
  }

  #change(frame) {
    const status = statusOf(frame);
    const version = frame.version ?? 0;
    if (status === null || version < this.version) return [];
    // One version has one status, and nothing but a new version leaves the end.
    if (version === this.version && TERMINAL.has(this.status) && !TERMINAL.has(status)) return [];
    Object.assign(this, { status, version });
    this.#newest = frame;
    if (!TERMINAL.has(status)) this.#announced = null;
    if (String(frame.event).startsWith("job_")) this.length = frame.length ?? 0;
    return [{ kind: "state", status, frame }, ...this.#settle()];
  }

  /** Compare what is here with the length that the end told. */
  #settle() {
    if (this.length === null || !TERMINAL.has(this.status) || this.lost) return [];
    if (this.position < this.length) return this.#ask(this.length);
    const outcomes = [];
    if (this.position > this.length) {
      this.#pieces = [slice(this.text, 0, this.length)];
      this.position = this.length;
      outcomes.push({ kind: "trimmed", length: this.length });
    }
    this.#holeEnds = null;
    const end = `${this.attempt}:${this.status}:${this.length}`;
    if (this.#announced !== end) {
      this.#announced = end;
      outcomes.push({ kind: "finished", status: this.status, frame: this.#newest });
    }
    return outcomes;
  }

  /** Once for each hole: every frame above it shows it again, and each answer repeats everything behind it. */
  #ask(upTo) {
    if (this.hasHole || this.lost) return [];
    this.#holeEnds = upTo;
    return [{ kind: "ask", attempt: this.attempt, offset: this.position }];
  }

  #lose(frame) {
    if (this.over) return [];
    this.lost = true;
    this.#holeEnds = null;
    return [{ kind: "lost", earliest: frame.earliest ?? null }];
  }
}
