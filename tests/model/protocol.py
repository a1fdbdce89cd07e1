# ruff: noqa: B905, C408, E501, N803, N806, RUF005, RUF012, RUF021, T201 - a specification: R is the set of rules, as on paper
"""Headrace's protocol as an executable specification.

    python -m tests.model.protocol            every model with all rules (must hold), then without each rule (must fail): < 60 s
    python -m tests.model.protocol --quiet    the same, without the counterexamples
    python -m tests.model.protocol --deep     larger fault budgets: millions of states, minutes, some GB
    python -m tests.model.protocol core       only the models whose name starts with "core"

A model is a set of atomic steps: a write that AWS makes atomic, a frame, a token. `explore` walks
every interleaving of them, breadth first, so the first counterexample that it finds is a shortest
one. Some steps are *faults* (kill, stall, loss, delay). There are two kinds of properties:

  check  must hold in every reachable state, whatever faults happened;
  goals  must be reachable from every reachable state by steps that are not faults: the system
         recovers when the faults stop.

A *rule* is a line of the protocol that can be switched off. A model passes if it has no violation
with all its rules, and one without each single rule: the rules are sufficient, and each is
necessary. The faults have budgets, so this is an exhaustive search of small cases and not a proof.
A goal is something that stays possible, which does not show that a fair scheduler reaches it.
`Resend` is the only livelock that is modelled.

A worker may stop for any time between any two steps, and its lease may expire meanwhile. This
covers a zombie, a slow network, a frozen Lambda and a skewed clock. A conditional write whose
response is lost is "the write, then a kill", because the worker does not learn of it. A message may
be delivered any number of times, at any time, or never.

`search.py` has the search, `waiting.py` the models of jobs that wait in lines.
"""

import multiprocessing
import sys
import time
from typing import NamedTuple

from tests.model.search import Small, explore, put
from tests.model.waiting import TOGETHER, TOGETHER_DEEP, WAITING, Together

TERMINAL = ("completed", "failed", "cancelled")


# ------------------------------------------------------------------------------ the core: record, wake-up, lease, transcript, subscriber
N = 2  # tokens in every OpenAI response; token i of response r sits at position i of a text and is stored there as r

# rule: (its text, the smallest fault budget that violates the protocol without it)
CORE_RULES = {
    "fence": (
        "every write of a worker to the record is conditional on status = processing AND generation = the one it claimed",
        dict(stall=1),
    ),
    "attempt": ("the claim itself takes a new attempt number, unless it continues a stored OpenAI response", dict(stall=1)),
    "record": ("a retry inside one claim takes its attempt number by a fenced write before it calls OpenAI again", dict(stall=1, error=1)),
    "reuse": ("attempt numbers of a job are never reused, even after a manual retry", dict(error=1, retry=1)),
    "nonce": ("owner is a fresh nonce per claim call, not per process or message", {}),
    "save": (
        "durable: a fenced write stores the response id in the record before any text of that response is logged or pushed",
        dict(durable=True, crash=1, stall=1),
    ),
    "append": (
        "a chunk is put only at the acknowledged end of the log, if no chunk is there; on conflict: stop if fenced, else re-read the end",
        dict(durable=True, stall=1),
    ),
    "flush": ("a worker ends an attempt only after all of its text is in the log and acknowledged", {}),
    "clip": ("the terminal write records (attempt, length), and readers never read past it", dict(stall=1, cancel=1)),
    "commit": ("no frame reports a state before the write of that state is acknowledged", {}),
    "newer": ("a subscriber drops frames of a lower attempt or generation than its own", dict(stall=1)),
    "length": (
        "a subscriber is done only when it holds exactly `length` of `attempt`: it asks for a missing rest, and trims a surplus",
        dict(error=1),
    ),
    "flag": ("cancelling a processing job sets a flag; its owner, or the sweeper after the lease, writes cancelled", dict(cancel=1)),
    "clear": ("a manual retry clears the cancel flag", dict(cancel=1, retry=1)),
    "sweepcond": ("the sweeper takes a job only if its lease is unchanged since it was read", dict(stall=1)),
    "dlq": ("a dead letter is a hint: it never fails a job, but may wake it again", {}),
}
# The rules of the original design, and those that it leaves open.
ORIGINAL_DESIGN = frozenset(CORE_RULES) - {"fence", "attempt", "save", "append", "newer", "flag", "clip"}


class Worker(NamedTuple):
    pc: str = "idle"  # idle, claimed, created (a response exists, its id is not saved yet), stream, announce
    gen: int = 0  # the generation it claimed: its fencing token
    att: int = 0
    resp: int = 0  # the OpenAI response it reads
    got: int = 0  # tokens received, logged, pushed so far
    logged: int = 0
    pushed: int = 0
    end: tuple = ()  # (status, length) to announce


IDLE = Worker()


class Job(NamedTuple):
    """One job: record, wake-up, workers, transcript, one subscriber, remaining faults."""

    status: str = "queued"  # waiting, held and retrying are `queued` with another timer: see the small models
    gen: int = 1
    att: int = 0
    lease: bool = False  # live, or expired
    cancel: bool = False
    resp: int = 0  # durable: the stored response id
    result: tuple = ()  # (attempt, length)
    wake: bool = True  # a message of this generation is in the queue; older ones can never claim and are not modelled
    saw: int = 0  # the sweeper has read this generation's lease as expired and is about to act (only without `sweepcond`)
    workers: tuple = (IDLE, IDLE)
    log: tuple = ()  # chunks (attempt, offset, text)
    made: int = 0  # OpenAI responses created, each of them billed
    view: tuple = (0, (), ())  # the subscriber's attempt, text and done = (generation, status, trimmed)
    late: tuple = ()  # one frame that the network delays
    left: tuple = ()  # the remaining faults
    # not part of the system, but of its properties:
    truth: tuple = ()  # the text at the moment of the terminal write
    ended: tuple = ()  # every (generation, status) that was terminal
    asked: bool = False  # the user has cancelled this run
    wrong: str = ""  # a forbidden step was taken


FAULTS = ("crash", "stall", "error", "cancel", "retry", "late", "reply", "handover")


def text_of(log, att, upto=None):
    text = ()
    for a, offset, piece in log:  # sorted by attempt and offset, as a query returns them
        if a == att and offset <= len(text):
            text += piece[len(text) - offset :]
    return text[:upto]


def receive(R, view, frame):
    """Return the subscriber's view after a frame (generation, attempt, offset, text, end).

    At a hole the view does not change; subscribing again is another step.
    """
    att, text, done = view
    gen, a, offset, piece, end = frame
    if "newer" in R and (a < att or done and a == att and (not end or gen <= done[0])):
        return view
    if a != att:
        att, text, done = a, (), ()
    if offset <= len(text):
        text += piece[len(text) - offset :]
    if end:
        status, length = end
        if "length" not in R:
            done = (gen, status, False)
        elif len(text) >= length:
            text, done = text[:length], (gen, status, len(text) > length)
    return att, text, done


class Core:
    def __init__(self, name, durable=False, **faults):
        self.name, self.durable, self.faults, self.rules = name, durable, faults, tuple(CORE_RULES)

    def init(self):
        return Job(left=tuple(self.faults.get(f, 0) for f in FAULTS))

    # ---- steps
    def steps(self, s, R):
        yield from self.queue(s, R)
        for w in s.workers:
            if w.pc != "idle":
                yield from self.worker(s, R, w)
        yield from self.sweep(s, R)
        yield from self.users(s, R)
        yield from self.subscriber(s, R)

    def queue(self, s, R):
        idle = IDLE in s.workers
        if s.status == "queued" and s.wake:
            yield "the wake-up is lost", s._replace(wake=False), True
            if idle:
                att = self.claimed_attempt(s, R)
                job = s._replace(status="processing", lease=True, att=att, workers=swap(s, IDLE, Worker("claimed", s.gen, att)))
                yield f"a worker claims generation {s.gen}: attempt {att}", job, False
        if "nonce" not in R and s.status == "processing" and s.wake and idle and any(w.gen == s.gen for w in s.workers):
            job = s._replace(workers=swap(s, IDLE, Worker("claimed", s.gen, s.att)))
            yield 'a duplicate in the same batch: its claim fails, but "the owner is me", so it continues', job, False

    def claimed_attempt(self, s, R):
        if self.durable and s.resp:
            return s.att
        if "attempt" in R or s.att == 0 or text_of(s.log, s.att):
            return s.att + 1
        return s.att  # the original design: "after visible tokens a retry begins a new attempt"

    def worker(self, s, R, w):
        me = f"worker g{w.gen}a{w.att}"
        owns = s.status == "processing" and s.gen == w.gen
        may = owns if "fence" in R else s.status not in TERMINAL

        def to(new, **kw):
            return s._replace(workers=swap(s, w, new), **kw)

        if left(s, "crash"):
            yield f"{me} is killed", to(IDLE, left=spend(s, "crash")), True
        if w.pc == "announce":
            yield from self.deliver(s, R, f"{me} pushes job_{w.end[0]}", w, IDLE, (w.gen, w.att, 0, (), w.end))
        elif w.pc == "claimed":
            yield from self.open_stream(s, R, me, w, owns, to)
        elif w.pc == "created":
            if may:
                yield f"{me} saves response id {w.resp}", to(w._replace(pc="stream"), resp=w.resp), False
            else:
                yield f"{me} is fenced while saving response id {w.resp}: stops", to(IDLE), False
        elif w.pc == "stream":
            yield from self.stream(s, R, me, w, owns, to)
            yield from self.finish(s, R, me, w, may, to)
        if w.pc != "announce" and owns and not s.lease:
            yield f"{me} renews its lease", s._replace(lease=True), False

    def open_stream(self, s, R, me, w, owns, to):
        if not (self.durable and s.resp):
            r = s.made + 1
            pc = "created" if self.durable and "save" in R else "stream"
            yield f"{me} calls OpenAI: response {r}", to(w._replace(pc=pc, resp=r), made=r), False
        elif not owns:
            yield f"{me} is fenced: stops", to(IDLE), False
        else:
            n = len(text_of(s.log, w.att))
            yield f"{me} re-attaches to response {s.resp} after token {n}", to(w._replace(pc="stream", resp=s.resp, got=n, logged=n)), False
            if left(s, "error"):
                yield f"{me} cannot re-attach (too old, deleted): a new attempt", self.again(s, R, w, to), True

    def stream(self, s, R, me, w, owns, to):
        """Steps that a zombie takes too: only the key of a chunk depends on the owner."""
        if w.got < N:
            yield f"{me} gets token {w.got} of response {w.resp}", to(w._replace(got=w.got + 1)), False
        if w.pushed < w.got:
            frame = (w.gen, w.att, w.pushed, (w.resp,) * (w.got - w.pushed), ())
            yield from self.deliver(s, R, f"{me} pushes {w.pushed}:{w.got} of response {w.resp}", w, w._replace(pushed=w.got), frame)
        if w.logged < w.got:
            there = [c for c in s.log if c[:2] == (w.att, w.logged)]
            if not there or "append" not in R:
                chunk = (w.att, w.logged, (w.resp,) * (w.got - w.logged))
                kw = dict(log=tuple(sorted([c for c in s.log if c not in there] + [chunk])))
                if self.durable and "save" not in R:
                    kw["resp"] = w.resp  # the original design: the id is stored "with each log write"
                label = f"{me} logs {w.logged}:{w.got} of response {w.resp}"
                yield label, to(w._replace(logged=w.got), **kw), False
                if left(s, "reply"):
                    yield f"{label}: the response is lost", s._replace(left=spend(s, "reply"), **kw), True
            elif owns:
                end = len(text_of(s.log, w.att))
                yield (
                    f"{me} finds another chunk, still owns the job: continues at {end}",
                    to(w._replace(logged=end, got=max(w.got, end))),
                    False,
                )
            else:
                yield f"{me} finds another chunk and is fenced: stops", to(IDLE), False

    def finish(self, s, R, me, w, may, to):
        flushed = w.logged == w.got
        if w.got == N and (flushed or "flush" not in R):
            if may and not s.cancel:
                yield f"{me} writes completed", end(to(announcing(w, "completed", N)), "completed", w.att, N), False
            elif not may:
                yield f"{me} is fenced: stops", to(IDLE), False
            if "commit" not in R:
                yield f"{me} pushes job_completed before the write", show(s, R, (w.gen, w.att, 0, (), ("completed", N))), False
        if not (flushed and may):
            return
        if s.cancel:
            yield (
                f"{me} sees the cancel flag: writes cancelled",
                end(to(announcing(w, "cancelled", w.got)), "cancelled", w.att, w.got),
                False,
            )
        elif left(s, "error"):
            used = spend(s, "error")
            yield f"{me} fails permanently: writes failed", end(to(announcing(w, "failed", w.got), left=used), "failed", w.att, w.got), True
            yield from requeue(to(IDLE, left=used, resp=0), f"{me} fails: requeues", True)
            yield f"{me} fails: retries in place", self.again(s, R, w, to), True
        if self.durable and left(s, "handover") and not s.cancel:
            yield from requeue(to(IDLE, left=spend(s, "handover")), f"{me} hands over")

    def again(self, s, R, w, to):
        """A new attempt inside the same claim."""
        att = (s.att if "record" in R else w.att) + 1
        return to(Worker("claimed", w.gen, att), left=spend(s, "error"), resp=0, att=att if "record" in R else s.att)

    def deliver(self, s, R, label, w, after, frame):
        sent = s._replace(workers=swap(s, w, after))
        yield label, show(sent, R, frame), False
        yield f"{label}: lost", sent, True
        if left(s, "late") and not s.late:
            yield f"{label}: delayed", sent._replace(late=frame, left=spend(s, "late")), True

    def sweep(self, s, R):
        if s.status == "queued" and not s.wake:
            yield "the sweeper re-sends the wake-up", s._replace(wake=True), False
        if "dlq" not in R and s.status in ("queued", "processing"):
            yield "the dead-letter consumer marks the job failed", end(without_owner(s), "failed", s.att), False
        if s.status != "processing":
            return
        if s.lease:
            alive = any(w.gen == s.gen and w.pc not in ("idle", "announce") for w in s.workers)
            if not alive:
                yield "the lease of a dead owner expires", s._replace(lease=False), False
            elif left(s, "stall"):
                yield "the owner stalls and its lease expires", s._replace(lease=False, left=spend(s, "stall")), True
        if "sweepcond" not in R and not s.lease and s.saw != s.gen:
            yield "the sweeper reads an expired lease", s._replace(saw=s.gen), False
        if not s.lease if "sweepcond" in R else s.saw == s.gen:
            taken = without_owner(s)._replace(saw=0)
            if s.cancel:
                yield "the sweeper finds the lease expired and the cancel flag: cancelled", end(taken, "cancelled", s.att), False
            else:
                yield from requeue(taken, "the sweeper requeues")

    def users(self, s, R):
        if left(s, "cancel") and s.status in ("queued", "processing"):
            job = s._replace(left=spend(s, "cancel"), asked=True)
            if s.status == "processing" and "flag" in R:
                yield "the user cancels: flag", job._replace(cancel=True), True
            else:
                yield f"the user cancels a {s.status} job: cancelled at once", end(job, "cancelled", s.att), True
        if left(s, "retry") and s.status in ("failed", "cancelled"):
            job = s._replace(
                left=spend(s, "retry"),
                cancel=s.cancel and "clear" not in R,
                asked=False,
                resp=0,
                result=(),
                truth=(),
                att=s.att if "reuse" in R else 0,
            )
            yield from requeue(job, "the user retries", True)

    def subscriber(self, s, R):
        """Answer a subscription, an SSE request or a poll from the record and the log."""
        att, text, _ = s.view
        offset = len(text) if att == s.att else 0
        over = (s.status, s.result[1]) if s.status in TERMINAL else ()
        answer = (s.gen, s.att, offset, text_of(s.log, s.att, over[1] if over and "clip" in R else None)[offset:], over)
        after = show(s, R, answer)
        if after.view != s.view:
            yield f"the subscriber subscribes from attempt {att}, offset {len(text)}", after, False
            if left(s, "late") and not s.late:
                yield "the subscriber subscribes: the response is delayed", s._replace(late=answer, left=spend(s, "late")), True
        if s.late:
            yield "the delayed frame arrives", show(s, R, s.late)._replace(late=()), False

    # ---- properties
    def check(self, s, R):
        if s.wrong:
            return s.wrong
        if len({g for g, _ in s.ended}) < len(s.ended):
            return "two terminal writes in one run"
        return self.check_log(s) or self.check_result(s, R) or self.check_subscriber(s)

    def check_log(self, s):
        ends = {}
        for a, offset, piece in s.log:
            if offset != ends.get(a, 0):
                return "the log of an attempt has a hole or an overlap"
            ends[a] = offset + len(piece)
        if any(len(set(text_of(s.log, a))) > 1 for a in ends):
            return "the log of one attempt mixes two OpenAI responses"
        return ""

    def check_result(self, s, R):
        if not s.result:
            return ""
        att, length = s.result
        text = text_of(s.log, att, length if "clip" in R else None)
        if len(text) < length or s.status == "completed" and len(text) < N:
            return "the log is shorter than the result"
        if text != s.truth:
            return "the result changed after the terminal write"
        return f"the result is of attempt {att}, the record is at attempt {s.att}" if att != s.att else ""

    def check_subscriber(self, s):
        att, text, done = s.view
        if len(set(text)) > 1:
            return "the subscriber holds a mix of two OpenAI responses"
        if not done:
            return ""
        if done[:2] not in s.ended:
            return f"the subscriber received {done[1]}, which was never true"
        if done[:2] == s.ended[-1] and s.result and (att, text) != (s.result[0], s.truth[: s.result[1]]):
            return "the subscriber is done and its text is not the result"
        if done[2] and all(left(s, f) == self.faults.get(f, 0) for f in ("crash", "stall")):
            return "a text that was shown is not stored, though no worker died or stalled"
        return ""

    def goals(self):
        return (
            ("ended, and the subscriber knows", lambda s: True, lambda s: s.status in TERMINAL and s.view[2][:2] == (s.gen, s.status)),
            ("completed", lambda s: s.status not in TERMINAL and not s.asked, lambda s: s.status == "completed"),
        )


def left(s, fault):
    return s.left[FAULTS.index(fault)]


def spend(s, fault):
    return tuple(n - (f == fault) for f, n in zip(FAULTS, s.left))


def swap(s, old, new):
    """Replace a worker.

    Workers are interchangeable, so they are sorted: symmetric states are one state.
    """
    workers = list(s.workers)
    workers[workers.index(old)] = new
    return tuple(sorted(workers))


def announcing(w, status, length):
    return Worker("announce", w.gen, w.att, end=(status, length))


def show(s, R, frame):
    view = receive(R, s.view, frame)
    went_back = view != s.view and s.status in TERMINAL and s.view[2][:2] == (s.gen, s.status)
    return s._replace(view=view, wrong="a subscriber that had the end went back" if went_back else s.wrong)


def without_owner(s):
    return s._replace(wrong="a job was taken from a worker with a live lease" if s.lease else s.wrong)


def end(s, status, att, length=None):
    """The terminal write. The sweeper and the API do not know the text, so they use the log."""
    length = len(text_of(s.log, att)) if length is None else length
    return s._replace(
        status=status, lease=False, result=(att, length), truth=text_of(s.log, att, length), ended=s.ended + ((s.gen, status),)
    )


def requeue(s, label, fault=False):
    """Write the record, then send the message. The process may die in between."""
    job = s._replace(status="queued", gen=s.gen + 1, lease=False)
    yield label, job._replace(wake=True), fault
    yield f"{label} (dies before the send)", job._replace(wake=False), True


# ------------------------------------------------------------------------------------------- small models beside the core
class Subscribe(Small):
    name = "subscribe: while the worker finishes; no fault, no timeout"
    rules = {
        "row-then-read": "the subscribe handler writes its row, then reads the record (consistently); if the job has ended, it sends the end itself",
        "write-then-query": "the worker writes the terminal status, then queries the subscribers (consistently), then announces",
    }
    faults = ()

    class State(NamedTuple):
        over: bool = False
        row: bool = False
        cached: bool = False  # the worker's list of subscribers, as of its last refresh
        handler: int = 0
        read_end: bool = False  # the handler has read the end
        worker: str = "run"
        record: bool = False  # a change record waits
        informed: bool = False  # the subscriber knows the end
        left: bool = True  # the single fault has not happened yet

    def steps(self, s, R):
        R = {*R, *self.given}
        if s.worker == "run":
            yield "the worker refreshes its subscribers", s._replace(cached=s.row), False
            yield "the worker writes completed", s._replace(over=True, worker="over", record=True), False
        if s.worker == "over":
            knows = s.row if "write-then-query" in R else s.cached
            yield from self.push(s._replace(worker="gone"), "the worker announces to the subscribers it knows", knows)
            if s.left and "kill" in self.faults:
                yield "the worker is killed", s._replace(worker="gone", left=False), True
        if s.handler < 2:
            act = ("row", "read")[s.handler] if "row-then-read" in R else ("read", "row")[s.handler]
            nxt = s._replace(handler=s.handler + 1, row=s.row or act == "row", read_end=s.over if act == "read" else s.read_end)
            yield f"the subscribe handler: {act}", nxt, False
        if s.handler == 2:
            yield from self.push(s._replace(handler=3), "the subscribe handler answers", s.read_end)
        if s.record and "projection" in R:
            yield from self.push(s._replace(record=False), "the change-stream function announces", s.row)
        if "ask-again" in R and s.handler == 3 and s.over:
            yield "the subscriber subscribes again", s._replace(informed=True), False

    def push(self, s, label, goes):
        yield label, s._replace(informed=s.informed or goes), False
        if goes and s.left and "loss" in self.faults:
            yield label + ": lost", s._replace(left=False), True

    def goals(self):
        return (("the subscriber knows", lambda s: True, lambda s: s.informed),)


class SubscribeKill(Subscribe):
    name = "subscribe: the worker is killed after the terminal write"
    rules = {"projection": "the change-stream function announces the end as well"}
    given, faults = ("row-then-read", "write-then-query"), ("kill",)


class SubscribeLoss(Subscribe):
    name = "subscribe: any one frame is lost"
    rules = {"ask-again": "a subscriber that receives nothing for a while subscribes again from its position"}
    given, faults = ("row-then-read", "write-then-query", "projection"), ("kill", "loss")


class Resume(Small):
    name = "resume: the last token is buffered; the worker is killed and its successor re-attaches"
    rules = {"whole-event": "each chunk stores the sequence number of the last event whose text is wholly in the log, in the same item"}

    class State(NamedTuple):
        got: int = 0  # events received, of 3; until the stream ends, the emitted text lacks the last one
        log: tuple = ()  # tokens
        cursor: int = 0  # stored with the log: re-attach after this event
        text: tuple = ()  # in memory
        left: bool = True

    def steps(self, s, R):
        if s.got < 3:
            got = s.got + 1
            ready = got if got == 3 else got - 1
            text = s.text + tuple(t for t in range(ready) if t not in s.text and t >= s.cursor)
            yield f"event {s.got} arrives", s._replace(got=got, text=text), False
        if len(s.text) > len(s.log):
            cursor = s.got if "whole-event" not in R else s.text[-1] + 1
            yield f"the log is written up to {len(s.text)}, with cursor {cursor}", s._replace(log=s.text, cursor=cursor), False
        if s.left and s.got:
            after = s._replace(got=s.cursor, text=s.log, left=False)
            yield f"the worker is killed, its successor re-attaches after {s.cursor} events", after, True

    def check(self, s, R):
        return "a token is missing from the log" if s.log != tuple(range(len(s.log))) else ""

    def goals(self):
        return (("the whole text is in the log", lambda s: True, lambda s: s.log == (0, 1, 2)),)


class Parents(Small):
    name = "parents: two finish while the child is created; the change-stream function may be killed"
    rules = {
        "row-then-read": "the child and its edges are written before its parents are read",
        "set": "the parents that a child waits for are a set of ids, not a number that counts down",
    }
    kill_creator = False

    class State(NamedTuple):
        done: tuple = (False, False)
        record: tuple = ("", "")  # the change record of each parent: none, new, taken
        creator: int = 0
        read: tuple = (False, False)  # what the creator read
        child: str = ""
        unmet: object = None  # the parents that have not ended: a frozenset, or without rule `set` their number
        left: bool = True

    def steps(self, s, R):
        R = {*R, *self.given}
        for i in (0, 1):
            if not s.done[i]:
                yield f"parent {i} completes", s._replace(done=put(s.done, i, True), record=put(s.record, i, "new")), False
            if s.record[i] == "new":
                seen = s._replace(unmet=remove_ended(s.unmet, {i})) if s.child else s
                yield f"the change-stream function handles parent {i}", seen._replace(record=put(s.record, i, "taken")), False
                if s.left:
                    yield (
                        f"the change-stream function handles parent {i} and is killed: the record is delivered again",
                        seen._replace(left=False),
                        True,
                    )
        if s.child == "waiting" and not s.unmet:
            yield "release", s._replace(child="queued"), False
        if s.creator < 2:
            yield from self.create(s, R)
        if "due" in R and s.child == "waiting" and all(s.done):
            yield "the sweeper reads the parents: release", s._replace(child="queued"), False

    def create(self, s, R):
        act = ("row", "read")[s.creator] if "row-then-read" in R else ("read", "row")[s.creator]
        nxt = s._replace(creator=s.creator + 1)
        if act == "row":
            unmet = frozenset(i for i in (0, 1) if not s.read[i])
            yield (
                "the creator writes the child and its edges",
                nxt._replace(child="waiting", unmet=unmet if "set" in R else len(unmet)),
                False,
            )
        elif not s.child:
            yield "the creator reads the parents", nxt._replace(read=s.done), False
        else:
            done = {i for i in (0, 1) if s.done[i]}
            yield "the creator reads the parents and removes those that have ended", nxt._replace(unmet=remove_ended(s.unmet, done)), False
            if s.left and self.kill_creator:
                yield "the creator is killed before it reads the parents", s._replace(creator=2, left=False), True

    def check(self, s, R):
        return "the child is released before its parents are done" if s.child == "queued" and not all(s.done) else ""

    def goals(self):
        return (("the child is released", lambda s: True, lambda s: s.child == "queued"),)


class ParentsKill(Parents):
    name = "parents: the creator may be killed between its write and its read"
    rules = {"due": "the sweeper reads the parents of a child that waits"}
    given, kill_creator = ("row-then-read", "set"), True


def remove_ended(unmet, ids):
    return max(0, unmet - len(ids)) if isinstance(unmet, int) else unmet - ids


class Counter(Small):
    name = "counter: a change record is delivered twice"
    rules = {"marker": 'a counter and its mark "this job is counted up to this version" are written in one transaction'}

    class State(NamedTuple):
        record: str = "new"
        marker: bool = False
        count: int = 0
        left: bool = True

    def steps(self, s, R):
        if s.record == "new":
            counted = s if s.marker and "marker" in R else s._replace(count=s.count + 1, marker=True)
            yield "the change-stream function counts", counted._replace(record="taken"), False
            if s.left:
                yield "the change-stream function counts and is killed: the record is delivered again", counted._replace(left=False), True

    def check(self, s, R):
        return "counted twice" if s.count > 1 else ""

    def goals(self):
        return (("counted", lambda s: True, lambda s: s.count == 1 and s.record == "taken"),)


class Outbox(Small):
    name = "outbox: a job ends, is retried and ends again; change records are lost, and a reader stalls"
    rules = {
        "due": "the write that ends a job leaves it due, until its notifications are stored",
        "first": "a retry stores the notifications of the end before it starts the next run",
        "same-run": "whoever has stored the notifications ends the due time only of the run that it read",
    }

    class State(NamedTuple):
        run: int = 1
        ended: bool = False
        due: bool = False
        records: tuple = ("", "")  # the change record of each run's end: none, new, stored (by a reader that stalls), taken
        stored: frozenset = frozenset()  # the runs of whose ends the notifications are stored

    def steps(self, s, R):
        if not s.ended:
            yield f"run {s.run} ends", s._replace(ended=True, due="due" in R, records=put(s.records, s.run - 1, "new")), False
        if s.ended and s.run == 1:
            stored = s.stored | {1} if "first" in R else s.stored
            yield "the owner retries it", s._replace(run=2, ended=False, due=False, stored=stored), False
        if s.due:
            yield f"the sweep notifies of run {s.run}", s._replace(stored=s.stored | {s.run}, due=False), False
        for run in (1, 2):
            if s.records[run - 1] == "new":
                yield f"the change record of run {run} is lost", s._replace(records=put(s.records, run - 1, "taken")), True
                stored = s._replace(stored=s.stored | {run}, records=put(s.records, run - 1, "stored"))
                yield f"the reader stores the notifications of run {run}", stored, False
            if s.records[run - 1] == "stored":
                same = s.run == run and s.ended or "same-run" not in R
                taken = s._replace(records=put(s.records, run - 1, "taken"))
                yield f"the reader of run {run} ends the due time", taken._replace(due=s.due and not same), False

    def goals(self):
        return (("the end of each run is notified of", lambda s: True, lambda s: s.stored == {1, 2}),)


class Budget(Small):
    name = "budget: reserve, run, settle, with a kill anywhere"
    rules = {
        "row": "a reservation is a row (job, attempt), created in one transaction with the budget and closed at most once",
        "projection": "a row that is open after its attempt is settled by the change stream or the sweeper, not by the worker alone",
    }

    class State(NamedTuple):
        attempt: int = 0
        pc: str = "idle"
        rows: tuple = ()  # (attempt, open)
        reserved: int = 0
        settled: int = 0
        over: bool = False
        left: bool = True

    def steps(self, s, R):
        if s.pc == "idle" and not s.over:
            a = s.attempt + 1
            yield (
                f"claim attempt {a} and reserve",
                s._replace(pc="run", attempt=a, reserved=s.reserved + 1, rows=s.rows + ((a, True),)),
                False,
            )
        if s.pc == "run":
            yield "terminal write", s._replace(pc="over", over=True), False
        if s.pc == "over":
            yield "the worker settles", self.settle(s._replace(pc="gone"), s.attempt, R), False
        if s.pc in ("run", "over") and s.left:
            yield "the worker is killed", s._replace(pc="gone" if s.over else "idle", left=False), True
        for a, open_ in s.rows:
            if "projection" in R and open_ and (s.over or a < s.attempt):
                yield f"the change stream settles attempt {a}", self.settle(s, a, R), False

    def settle(self, s, attempt, R):
        if "row" in R and (attempt, True) not in s.rows:
            return s
        rows = tuple((a, o and a != attempt) for a, o in s.rows)
        return s._replace(rows=rows, reserved=s.reserved - 1, settled=s.settled + 1)

    def check(self, s, R):
        return "settled more often than reserved" if s.settled > s.attempt else ""

    def goals(self):
        return (("nothing reserved, all settled", lambda s: True, lambda s: s.over and s.reserved == 0 and s.settled == s.attempt),)


class Submit(Small):
    name = "submit: two requests with one idempotency key"
    rules = {"one-transaction": 'the idempotency row and the job are put in one transaction, both "if absent"'}

    class State(NamedTuple):
        pc: tuple = (0, 0)
        key: int = 0  # the job in the idempotency record
        jobs: tuple = ()
        returned: tuple = (0, 0)  # the job in the response to each caller
        left: bool = True

    def steps(self, s, R):
        for i in (0, 1):
            job, over = i + 1, put(s.pc, i, 9)
            if s.pc[i] == 0 and s.key:
                yield f"request {i}: the key exists, returns job {s.key}", s._replace(pc=over, returned=put(s.returned, i, s.key)), False
            elif s.pc[i] == 0 and "one-transaction" in R:
                yield (
                    f"request {i}: puts key and job",
                    s._replace(pc=over, key=job, jobs=s.jobs + (job,), returned=put(s.returned, i, job)),
                    False,
                )
            elif s.pc[i] == 0:
                yield f"request {i}: puts the key if absent", s._replace(pc=put(s.pc, i, 1), key=job), False
            elif s.pc[i] == 1:
                yield f"request {i}: puts job {job}", s._replace(pc=over, jobs=s.jobs + (job,), returned=put(s.returned, i, job)), False
                if s.left:
                    yield f"request {i} is killed before it puts job {job}", s._replace(pc=over, left=False), True

    def check(self, s, R):
        return "two jobs for one key" if len(s.jobs) > 1 else ""

    def goals(self):
        return (("every caller with a response has a job", lambda s: True, lambda s: s.jobs and all(j in s.jobs for j in s.returned if j)),)


class Resend(Small):
    name = "resend: the sweeper re-sends into a queue that is two sweeps long"
    rules = {
        "same-generation": "a wake-up is re-sent with the same generation; only a transition that must invalidate the old one increases it"
    }

    class State(NamedTuple):
        gen: int = 1
        pipe: tuple = (0, 1)  # generations (modulo 4) of the messages in the queue, the oldest first
        claimed: bool = False

    def steps(self, s, R):
        if not s.claimed:
            gen = s.gen if "same-generation" in R else (s.gen + 1) % 4
            nxt = s._replace(gen=gen, pipe=s.pipe[1:] + (gen,), claimed=s.pipe[0] == s.gen)
            yield f"a minute passes: generation {s.pipe[0]} arrives at a record of generation {s.gen}, the sweeper sends {gen}", nxt, False

    def goals(self):
        return (("claimed", lambda s: True, lambda s: s.claimed),)


class Frames(Small):
    name = "frames: two workers send states to one socket"
    rules = {"version": "state frames carry the version of the record; a subscriber keeps the highest version, not the last frame"}

    class State(NamedTuple):
        version: int = 1  # 1 processing, 2 retrying, 3 completed
        wire: tuple = ()  # frames in transit, delivered in any order
        shown: int = 0

    def steps(self, s, R):
        if s.version < 3:
            yield (
                f"the record goes to version {s.version + 1}, its frame is sent",
                s._replace(version=s.version + 1, wire=s.wire + (s.version + 1,)),
                False,
            )
        for f in s.wire:
            shown = max(f, s.shown) if "version" in R else f
            yield f"the frame of version {f} arrives", s._replace(wire=tuple(x for x in s.wire if x != f), shown=shown), False

    def check(self, s, R):
        return "the subscriber keeps an old state" if s.version == 3 and not s.wire and s.shown != 3 else ""


class Probe(Small):
    name = "probe: the worker that is the half-open probe of a circuit dies"
    rules = {"expires": "a probe is a lease: it has an expiry, and the circuit does not wait for its worker beyond that"}

    class State(NamedTuple):
        probe: bool = False
        worker: str = "idle"
        done: bool = False
        left: bool = True

    def steps(self, s, R):
        if s.worker == "idle" and not s.probe and not s.done:
            yield "a worker becomes the probe", s._replace(probe=True, worker="run"), False
        if s.worker == "run":
            yield "it ends and closes the circuit", s._replace(probe=False, worker="idle", done=True), False
            if s.left:
                yield "it is killed", s._replace(worker="idle", left=False), True
        if "expires" in R and s.probe and s.worker == "idle":
            yield "the probe expires", s._replace(probe=False), False

    def goals(self):
        return (("the circuit closes", lambda s: True, lambda s: s.done),)


# ---------------------------------------------------------------------------------------------------------------- the command
PLAIN = [
    dict(crash=1, stall=1),
    dict(stall=1, error=1),
    dict(stall=1, late=1),
    dict(stall=1, cancel=1, retry=1),
    dict(crash=1, cancel=1),
    dict(error=1, retry=1),
    dict(stall=1, reply=1),
]
DURABLE = [
    dict(crash=1, stall=1, handover=1),
    dict(crash=1, stall=1, cancel=1),
    dict(stall=1, error=1),
    dict(stall=1, late=1),
    dict(crash=1, stall=1, reply=1),
]
PLAIN_DEEP = [
    dict(crash=1, stall=1, late=1),
    dict(stall=2, crash=1),
    dict(crash=1, stall=1, error=1),
    dict(crash=1, stall=1, cancel=1, retry=1),
    dict(stall=1, cancel=1, retry=1, late=1),
    dict(stall=1, error=1, late=1),
    dict(crash=1, stall=1, reply=1),
]
DURABLE_DEEP = [
    dict(crash=1, stall=2, handover=1),
    dict(crash=1, stall=1, late=1, reply=1),
    dict(crash=1, stall=1, cancel=1, retry=1),
    dict(crash=1, stall=1, error=1),
    dict(stall=1, error=1, late=1, handover=1),
]
SMALL = (
    *(Resume, Subscribe, SubscribeKill, SubscribeLoss, Parents, ParentsKill, Counter, Outbox, Budget, Submit, Resend, Frames, Probe),
    *WAITING,
)


def core(durable=False, **faults):
    named = ", ".join(f"{n} {f}" for f, n in faults.items()) or "no fault but duplicates and loss"
    return Core(f"core, {'durable' if durable else 'plain'}: {named}", durable, **faults)


def run(task):
    model, rules = task
    return explore(model, frozenset(rules))


def show_trace(report, model, quiet):
    print(f"      {report.violation}   [{model.name}; {len(report.trace)} steps]")
    for n, label in enumerate(() if quiet else report.trace, 1):
        print(f"        {n:2} {label}")


def main(args):
    quiet, deep = "--quiet" in args, "--deep" in args
    prefixes = tuple(a for a in args if not a.startswith("-")) or ("",)
    chosen = (
        [core(**f) for f in (PLAIN_DEEP if deep else PLAIN)]
        + [core(True, **f) for f in (DURABLE_DEEP if deep else DURABLE)]
        + [m() for m in SMALL]
        + [Together(**f) for f in (TOGETHER_DEEP if deep else TOGETHER)]
    )
    chosen = [m for m in chosen if m.name.startswith(prefixes)]
    has_core = any(m.name.startswith("core") for m in chosen)
    original = [core(stall=1), core(stall=1, cancel=1), core(True, crash=1, stall=1)] if has_core else []
    without = [(rule, text, core(**faults)) for rule, (text, faults) in CORE_RULES.items()] if has_core else []
    without += [(rule, text, m) for m in chosen if isinstance(m, Small) for rule, text in m.rules.items()]

    started, states, bad = time.time(), 0, 0
    with multiprocessing.Pool(2 if deep else None) as pool:
        full = pool.imap(run, [(m, m.rules) for m in chosen])
        as_designed = pool.imap(run, [(m, ORIGINAL_DESIGN) for m in original])
        reduced = pool.imap(run, [(m, set(m.rules) - {rule}) for rule, _, m in without])

        print("A. All rules: no interleaving may violate a property.")
        for m, r in zip(chosen, full):
            states, bad = states + r.states, bad + bool(r.violation)
            print(
                f"   {'VIOLATION' if r.violation else 'OK':9} {r.states:8} states {r.steps:9} steps {r.seconds:6.1f} s   {m.name}",
                flush=True,
            )
            if r.violation:
                show_trace(r, m, False)
        if has_core:
            print("\nB. The original design, which lacks: " + ", ".join(r for r in CORE_RULES if r not in ORIGINAL_DESIGN))
        for m, r in zip(original, as_designed):
            show_trace(r, m, quiet)
        print("\nC. Without each single rule: a property must be violated, or the rule is not necessary.")
        for (rule, text, m), r in zip(without, reduced):
            bad += not r.violation
            print(f"   without {rule}: {text}")
            show_trace(r if r.violation else r._replace(violation="NO VIOLATION"), m, quiet)
    print(
        f"\n{states} states explored with all rules, {len(without)} rules removed, {time.time() - started:.0f} s: {'OK' if not bad else f'{bad} NOT OK'}"
    )
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
