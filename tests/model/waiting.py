# ruff: noqa: C408, N803, N806, RUF012, RUF021 - a specification: R is the set of rules, as on paper
"""How jobs wait in lines, as small models: rows, releases, schedulers, grants, slots and pauses.

They are explored with those of `protocol.py`, whose text says how to read them. A model leaves out
what another one shows: in `Visits` no row is removed. Schedulers release in `Releases` and
`Grants` as if there were no lease: two of them at once do no harm, so a lease only saves work.
"""

from typing import NamedTuple

from tests.model.search import Small, put


class Line(Small):
    name = "line: a worker holds a job while the scheduler removes the line's empty row; the worker dies or freezes once"
    rules = {
        "row-first": "who holds a job writes the row of its line before the job's record",
        "two-looks": "a row is removed only after two looks, more than a hold and the index take apart, that found no job in the line",
        "untouched": "a row is removed only if nobody has written it since the first of these looks",
        "row-again": "a holder that took long from the row to the record writes the row once more",
    }

    class State(NamedTuple):
        did: tuple = ()  # what the holder has written: its row, its record, and its row again
        frozen: bool = False
        row: bool = True  # an earlier job has left it
        held: bool = False  # the job's record
        listed: bool = False  # in the index of lines, which follows the record
        looks: int = 0  # that found nobody
        touched: bool = False  # the row was written since the first of them
        released: bool = False
        left: bool = True  # the single fault has not happened yet

    def steps(self, s, R):
        if s.released:
            return
        yield from self.holder(s, R)
        if s.held and not s.listed:
            yield "the index shows the job", s._replace(listed=True), False
        if s.row:
            yield from self.scheduler(s, R)

    def holder(self, s, R):
        order = ("row", "record") if "row-first" in R else ("record", "row")
        if len(s.did) < 2:
            yield from self.write(s, order[len(s.did)])
        elif len(s.did) == 2 and s.frozen and "row-again" in R:
            yield from self.write(s, "row")
        if len(s.did) == 1 and s.left:
            yield "the worker freezes", s._replace(frozen=True, left=False), True
            # The wake-up is delivered again only to a job that is not held yet: the hold has made it invalid.
            yield "the worker dies", s._replace(did=("record", "row") if s.held else (), left=False), True

    def write(self, s, what):
        did = (*s.did, what)
        if what == "row":
            yield "the worker writes the row", s._replace(did=did, row=True, touched=True), False
        else:
            yield "the worker writes held", s._replace(did=did, held=True), False

    def scheduler(self, s, R):
        if s.listed:
            yield "a scheduler finds the job: releases it", s._replace(released=True), False
            return
        under_way = s.did and not s.touched and not s.frozen  # a hold that began before the first look
        if s.looks == 0:
            yield "a scheduler finds nobody", s._replace(looks=1, touched=False), False
        elif s.looks == 1 and (not under_way and not (s.held and not s.touched) or "two-looks" not in R):
            yield "it finds nobody again, seconds later", s._replace(looks=2), False
        if s.looks == (2 if "two-looks" in R else 1):
            if s.touched and "untouched" in R:
                yield "the row was written since: it stays", s._replace(looks=0), False
            else:
                yield "the scheduler removes the row", s._replace(row=False, looks=0), False

    def goals(self):
        return (("the job is released", lambda s: True, lambda s: s.released),)


class Releases(Small):
    name = "releases: schedulers release one job, again while the queue is two releases deep; one message is lost"
    rules = {
        "in-line": "a job stays in its line until it is claimed: a release removes it from nothing, so a lost one is repeated",
        "same-generation": "a release writes no record: the job keeps its generation, and every release of it is equally good",
        "claim-once": "a release is a wake-up: it starts only a job that is still held at its generation",
    }

    class State(NamedTuple):
        gen: int = 0  # modulo 4
        held: bool = True
        in_line: bool = True
        ready: tuple = ()  # the generations in the queue of released jobs, the oldest first
        runs: int = 0
        left: bool = True

    def steps(self, s, R):
        if s.in_line and len(s.ready) < 2:
            gen = s.gen if "same-generation" in R else (s.gen + 1) % 4
            nxt = s._replace(gen=gen, ready=(*s.ready, gen), in_line="in-line" in R)
            yield f"a scheduler, perhaps another one, releases generation {gen}", nxt, False
        if s.ready and s.left:
            yield "a release is lost", s._replace(ready=s.ready[1:], left=False), True
        if len(s.ready) == 2 or s.ready and not s.in_line:
            first, rest = s.ready[0], s.ready[1:]
            if first == s.gen and (s.held or "claim-once" not in R):
                nxt = s._replace(ready=rest, held=False, in_line=False, runs=s.runs + 1)
                yield f"generation {first} arrives: a worker starts the job", nxt, False
            else:
                yield f"generation {first} arrives: stale", s._replace(ready=rest), False

    def check(self, s, R):
        return "two workers run one job" if s.runs > 1 else ""

    def goals(self):
        return (("the job runs", lambda s: True, lambda s: s.runs > 0),)


class Schedulers(Small):
    name = "schedulers: a job waits for a gate that may never open; its scheduler, its holder or a message is lost once"
    rules = {
        "lines-swept": "the sweep looks at lines, not at jobs: it wakes the scheduler of every line whose shard has no live lease",
        "last-moment": "a job in a line is due when it may wait no longer, and the sweep of these ends it",
    }

    class State(NamedTuple):
        open: bool = False
        job: str = "queued"  # queued, held, running, ended
        asked: bool = False  # a message that wakes the shard
        runs: bool = False  # the scheduler
        lease: bool = False  # live
        left: bool = True

    def steps(self, s, R):
        if not s.open:
            yield "the gate opens; nobody is told", s._replace(open=True), True  # a fault: it need not happen
        if s.job == "queued":
            yield from self.worker(s)
        if s.asked:
            yield "the message arrives", s._replace(asked=False, runs=s.runs or not s.lease, lease=True), False
            if s.left:
                yield "the message is lost", s._replace(asked=False, left=False), True
        if s.runs:
            yield from self.scheduler(s)
        elif s.lease:
            yield "the lease expires", s._replace(lease=False), False
        if s.job == "held":
            if "lines-swept" in R and not s.lease and not s.asked:
                yield "the sweep finds a line without a scheduler", s._replace(asked=True), False
            if "last-moment" in R:
                yield "its last moment: the sweep ends the job", s._replace(job="ended"), False

    def worker(self, s):
        if s.open:
            yield "a worker starts the job", s._replace(job="running"), False
            return
        held = s._replace(job="held")
        yield "a worker holds the job, and asks unless the lease is live", held._replace(asked=s.asked or not s.lease), False
        if s.left:
            yield "a worker holds the job and dies", held._replace(left=False), True

    def scheduler(self, s):
        if s.job == "held" and s.open:
            yield "the scheduler releases the job, which starts", s._replace(job="running"), False
        if s.job != "held":
            yield "nobody waits: the scheduler ends", s._replace(runs=False, lease=False), False
        if s.left:
            yield "the scheduler dies", s._replace(runs=False, left=False), True

    def goals(self):
        return (
            ("the job runs once its gate is open", lambda s: s.open and s.job in ("queued", "held"), lambda s: s.job == "running"),
            ("the job ends or runs, though its gate stays shut", lambda s: True, lambda s: s.job in ("running", "ended")),
        )


class Loop(NamedTuple):
    """A scheduler that serves a shard."""

    pc: str  # gates, lines, ends, last_gates, last_lines, sleep: what it does next
    shut: bool = True  # what it has read of the gate
    row: bool = False  # and of the line


LAST = ("last_gates", "last_lines", "sleep")


class Visits(Small):
    """The gate is a pause without an end, so that no timer helps. The shard has other lines, so that a
    scheduler which ends leaves it asleep.
    """

    name = "visits: a worker holds a job while a pause is removed and the scheduler goes to sleep; no fault, no sweep"
    rules = {
        "remove-then-ask": "whoever opens a gate first writes that, then asks for a visit of the line",
        "job-then-shard": "who holds a job writes the row and the record, then reads who serves the shard, and wakes it if nobody does",
        "new-line": "who writes the first row of a line wakes a shard that is asleep as well: it does not know that line",
        "last-lines": "a scheduler that ends gives up its lease, then reads the lines once more",
        "last-gates": "and what they wait for: a request that came before was dropped, because the shard was served",
        "given-up": "a scheduler that has given up its lease does not renew it, not by a thread of its own either",
        "seen": "a shard that is asleep drops a request only if it has read both, lines and gates, after the request was sent",
    }
    given, faults = (), False

    class State(NamedTuple):
        paused: bool = True
        job: str = "queued"  # queued, refused (a worker has read the pause), held, running
        did: int = 0  # how many of its two acts the holder has done
        row: bool = False
        new: bool = False  # the holder has written the first row
        wakes: bool = False  # what it has read makes it wake the shard
        resume: int = 0
        shard: str = "asleep"  # asleep, served, free, dead
        loops: tuple = ()
        visits: tuple = ()  # of each request on its way: whether the lines, and the gates, were read since
        left: bool = True

    def steps(self, s, R):
        R = {*R, *self.given}
        yield from self.worker(s, R)
        if s.resume < 2:
            act = ("remove", "ask")[s.resume] if "remove-then-ask" in R else ("ask", "remove")[s.resume]
            after = s._replace(resume=s.resume + 1)
            yield f"the tenant resumes: {act}", after._replace(paused=False) if act == "remove" else asked(after), False
            if self.faults and s.left:
                yield "the tenant's request dies", s._replace(resume=2, paused=False, left=False), True
        for n, seen in enumerate(s.visits):
            yield from self.arrive(s._replace(visits=s.visits[:n] + s.visits[n + 1 :]), R, seen)
        for loop in sorted(set(s.loops)):
            yield from getattr(self, loop.pc)(s, R, loop)
            if "given-up" not in R and s.shard == "free" and loop.pc in LAST:
                yield "its thread renews the lease", s._replace(shard="served"), False
        if self.faults:
            yield from self.fail(s)
        if "sweep" in R and s.row and s.shard != "served" and not s.visits:
            yield "the sweep asks for a visit", asked(s), False

    def worker(self, s, R):
        if s.job == "queued":
            yield "a worker reads the pauses", s._replace(job="refused" if s.paused else "running", did=0), False
        elif s.job in ("refused", "held") and s.did < 2:
            act = ("job", "shard")[s.did] if "job-then-shard" in R else ("shard", "job")[s.did]
            after = s._replace(did=s.did + 1)
            if act == "job":
                after = after._replace(job="held", row=True, new=not s.row)
            else:
                after = after._replace(wakes=s.shard in ("free", "dead") or s.shard == "asleep" and "new-line" in R and s.new)
            wakes = after.did == 2 and after.wakes
            yield f"the holder: {act}" + (", and wakes it" if wakes else ""), asked(after) if wakes else after, False
            if self.faults and s.left and s.job == "held":
                yield "the holder dies", s._replace(did=2, left=False), True

    def arrive(self, s, R, seen):
        is_seen = seen[0] and (seen[1] or "seen" not in R)
        if s.shard == "served" or s.shard == "asleep" and is_seen:
            yield "a request for a visit arrives: it does not count", s, False
        elif len(s.loops) < 2:
            yield (
                "a request for a visit arrives: a scheduler begins",
                s._replace(shard="served", loops=tuple(sorted((*s.loops, Loop("gates"))))),
                False,
            )
        if self.faults and s.left:
            yield "a request for a visit is lost", s._replace(left=False), True

    def gates(self, s, R, loop):
        yield f"the scheduler reads the gates: {shut(s)}", turn(gates_read(s), loop, Loop("lines", s.paused)), False

    def lines(self, s, R, loop):
        look, after = lines_read(s), loop._replace(row=s.row)
        if s.job == "held" and not loop.shut:
            yield "the scheduler reads the lines: releases the job", turn(look, loop, Loop("gates"), job="queued"), False
        else:
            yield "the scheduler reads the lines", turn(look, loop, after._replace(pc="ends")), False

    def ends(self, s, R, loop):
        pc = "last_gates" if "last-gates" in R else "last_lines" if "last-lines" in R else "sleep"
        yield "the scheduler gives up its lease", turn(s, loop, loop._replace(pc=pc), shard="free"), False

    def last_gates(self, s, R, loop):
        after = loop._replace(pc="last_lines" if "last-lines" in R else "sleep", shut=s.paused)
        yield f"it reads the gates again: {shut(s)}", self.goes_on(gates_read(s), loop, after, s.row and loop.shut and not s.paused), False

    def last_lines(self, s, R, loop):
        yield "it reads the lines again", self.goes_on(lines_read(s), loop, loop._replace(pc="sleep"), s.row and not loop.row), False

    def goes_on(self, look, loop, after, goes_on):
        if goes_on and look.shard != "served":
            return turn(look, loop, Loop("gates"), shard="served")
        return turn(look, loop, after)

    def sleep(self, s, R, loop):
        others = any(other.pc not in LAST for other in s.loops)
        yield "the scheduler ends", turn(s, loop, None, shard="served" if others else "asleep"), False

    def fail(self, s):
        for loop in sorted(set(s.loops)):
            if s.left:
                yield "the scheduler dies", turn(s, loop, None, shard="dead" if s.shard == "served" else s.shard, left=False), True

    def goals(self):
        return (("the job runs", lambda s: True, lambda s: s.job == "running"),)


class VisitsLoss(Visits):
    name = "visits: a request for a visit is lost, or its sender or the scheduler dies"
    rules = {"sweep": "the sweep asks each minute for a visit of every line whose shard nobody serves"}
    given, faults = tuple(Visits.rules), True


def shut(s):
    return "shut" if s.paused else "open"


def gates_read(s):
    return s._replace(visits=tuple(sorted((lines, True) for lines, _ in s.visits)))


def lines_read(s):
    return s._replace(visits=tuple(sorted((True, gates) for _, gates in s.visits)))


def asked(s):
    return s._replace(visits=tuple(sorted((*s.visits, (False, False))))[:3])


def turn(s, loop, after, **kw):
    """Replace a loop by what it is next; None: it has ended."""
    at = s.loops.index(loop)
    rest = s.loops[:at] + s.loops[at + 1 :]
    return s._replace(loops=tuple(sorted((*rest, after) if after else rest)), **kw)


class Messages(Small):
    name = "messages: a gate stays shut; schedulers begin, sleep and are woken again"
    rules = {
        "timer": "the message for the end of a shard's sleep counts only while the shard is asleep until then",
        "watch": "the message that a scheduler sends ahead, in case it dies, counts only if it has died",
    }

    class State(NamedTuple):
        served: bool = True
        timer: bool = False  # of the sleep as it is
        old: int = 0  # timers of earlier sleeps
        watches: int = 0
        watched: bool = False  # this scheduler has sent one
        visits: int = 1

    def steps(self, s, R):
        if s.visits:
            begun = begin(s) if not s.served else s
            yield "a request for a visit arrives", begun._replace(visits=s.visits - 1), False
        if s.watches:
            arrived = s._replace(watches=s.watches - 1)
            yield "a watch arrives", arrived if s.served or "watch" in R else begin(arrived), False
        elif s.timer:  # a watch comes sooner
            yield "the timer arrives", begin(s._replace(timer=False)), False
        if s.old and not s.watches and not s.served:
            arrived = s._replace(old=s.old - 1)
            yield "an old timer arrives", arrived if "timer" in R else begin(arrived), False
        if s.served:
            if not s.watched:
                yield "the scheduler sends a watch", s._replace(watched=True, watches=s.watches + 1), False
            yield "the scheduler sends a timer: ends", s._replace(served=False, timer=True), False

    def check(self, s, R):
        return "the messages multiply" if s.old + s.watches > 3 else ""

    def goals(self):
        return (("one message is left", lambda s: not s.served, lambda s: s.timer and not s.old and not s.watches),)


def begin(s):
    return s._replace(served=True, watched=False, timer=False, old=s.old + s.timer)


class Grants(Small):
    """The window is two seconds long and takes `LIMIT` tokens. A grant is good for the second in which
    it was counted.

    A worker that receives a stale grant may give it back or not: both are modelled. A message that is
    delivered twice may be given back twice, and then as much more may start, but not more than that.
    """

    name = "grants: two schedulers grant two jobs places in one window; grants come late, twice or never; a job is edited"
    rules = {
        "count-first": "the window is counted before the grant is sent: what nobody uses is lost, and nothing starts uncounted",
        "expires": "a grant is good for less time than the window is too long; a later one is worth nothing, and the worker asks itself",
        "own-second": "what is given back is taken off the second in which it was counted",
        "derived": "a grant counts only for what the job's record says now: its tokens, and the cause that it was held for",
    }
    LIMIT = 2

    class State(NamedTuple):
        now: int = 0
        counted: tuple = (0, 0, 0)
        started: tuple = (0, 0, 0)
        tokens: tuple = (1, 1)
        runs: tuple = (False, False)
        grants: tuple = ()  # (job, second, tokens)
        doubled: int = 0  # the tokens of the message that was delivered twice
        left: bool = True  # nobody has edited a job yet

    def steps(self, s, R):
        if s.now < 2:
            yield "a second passes", s._replace(now=s.now + 1), False
        for j in (0, 1):
            if not s.runs[j]:
                yield from self.release(s, R, j)
                if s.left:
                    yield f"job {j} is edited: 2 tokens", s._replace(tokens=put(s.tokens, j, 2), left=False), False
                yield from self.ask(s, j)
        for grant in sorted(set(s.grants)):
            yield from self.receive(s, R, grant)

    def release(self, s, R, j):
        n = s.tokens[j]
        if len(s.grants) < 2 and window(s.counted, s.now) + n <= self.LIMIT:
            counted = add(s.counted, s.now, n) if "count-first" in R else s.counted
            yield f"a scheduler grants job {j} {n}", s._replace(counted=counted, grants=with_grant(s.grants, (j, s.now, n))), False

    def ask(self, s, j):
        """A worker has a wake-up of a held job without a grant."""
        if window(s.counted, s.now) + s.tokens[j] <= self.LIMIT:
            yield f"a worker asks for job {j}: it starts", self.start(s._replace(counted=add(s.counted, s.now, s.tokens[j])), j), False

    def receive(self, s, R, grant):
        j, at, n = grant
        rest = s._replace(grants=without_grant(s.grants, grant))
        yield f"the grant of job {j} is lost", rest, True
        if not s.doubled:
            yield f"the grant of job {j} is delivered twice", s._replace(grants=with_grant(s.grants, grant), doubled=n), True
        good = (at == s.now or "expires" not in R) and (n == s.tokens[j] or "derived" not in R)
        back = rest._replace(counted=add(s.counted, at if "own-second" in R else s.now, -n))
        if s.runs[j]:
            yield f"the grant of job {j} is stale: it lapses", rest, False
            yield f"the grant of job {j} is stale: its {n} are given back", back, False
        elif good:
            late = s._replace(counted=add(s.counted, s.now, n)) if "count-first" not in R else s
            yield f"the grant of job {j} from second {at}: it starts", self.start(rest._replace(counted=late.counted), j), False
        else:
            yield f"the grant of job {j} from second {at} is worth nothing: its {n} are given back", back, False

    def start(self, s, j):
        return s._replace(runs=put(s.runs, j, True), started=add(s.started, s.now, s.tokens[j]))

    def check(self, s, R):
        return "more than the limit starts within one window" if window(s.started, s.now) > self.LIMIT + s.doubled else ""


def window(seconds, now):
    return sum(seconds[max(0, now - 1) : now + 1])


def add(seconds, at, n):
    return put(seconds, at, seconds[at] + n)


def with_grant(grants, grant):
    return tuple(sorted((*grants, grant)))


def without_grant(grants, grant):
    at = grants.index(grant)
    return grants[:at] + grants[at + 1 :]


class Slots(Small):
    name = "slots: two jobs and a limit of one; no fault, no sweep"
    rules = {
        "taken-if-free": "a slot is taken on the condition that one is free, whatever the gate has read before",
        "look-again": "who holds a job for slots looks at them once more after the write, and releases the job if one is free",
        "look-after": "who gives a slot back looks at the line after the write, and releases whom it finds",
    }
    given = ("one-write",)
    faults = False

    class State(NamedTuple):
        jobs: tuple = ("queued", "queued")  # queued, admitted, full, holding, held, taking, running, ending, over
        taken: int = 0
        left: bool = True

    def steps(self, s, R):
        R = {*R, *self.given}
        for j in (0, 1):
            yield from getattr(self, s.jobs[j])(s, R, j)
            if "sweep" in R and s.jobs[j] == "held" and not s.taken:
                yield "the sweep finds a line whose gate is open", to(s, j, "queued"), False

    def queued(self, s, R, j):
        yield f"a worker reads for job {j}: {s.taken} taken", to(s, j, "full" if s.taken else "admitted"), False

    def admitted(self, s, R, j):
        if s.taken and "taken-if-free" in R:
            yield f"the claim of job {j} is refused: no slot is free", to(s, j, "full"), False
        elif "one-write" in R:
            yield f"a worker claims job {j} with a slot", to(s, j, "running", s.taken + 1), False
        else:
            yield f"a worker takes a slot for job {j}", to(s, j, "taking", s.taken + 1), False

    def taking(self, s, R, j):
        yield f"it claims job {j}", to(s, j, "running"), False
        if s.left:
            yield f"it dies before it claims job {j}", to(s, j, "queued")._replace(left=False), True

    def full(self, s, R, j):
        yield f"a worker writes job {j} held", to(s, j, "holding" if "look-again" in R else "held"), False

    def holding(self, s, R, j):
        yield f"it looks once more for job {j}: {s.taken} taken", to(s, j, "held" if s.taken else "queued"), False
        if self.faults and s.left:
            yield f"it dies after it held job {j}", to(s, j, "held")._replace(left=False), True

    def held(self, s, R, j):
        return ()

    def running(self, s, R, j):
        after = "ending" if "look-after" in R else "over"
        yield f"job {j} ends and gives its slot back", to(s, j, after, s.taken - 1), False
        if self.faults and s.left:
            yield f"the worker of job {j} dies, the sweep queues it again", to(s, j, "queued", s.taken - 1)._replace(left=False), True

    def ending(self, s, R, j):
        other = 1 - j
        over = to(s, j, "over")
        if s.jobs[other] in ("held", "holding"):
            yield f"the worker of job {j} looks at the line: releases job {other}", to(over, other, "queued"), False
            if self.faults and s.left:
                yield "it looks at the line, where the index does not show the job yet", over._replace(left=False), True
        else:
            yield f"the worker of job {j} looks at the line: nobody", over, False
        if self.faults and s.left:
            yield f"it dies after job {j} has ended", over._replace(left=False), True

    def over(self, s, R, j):
        return ()

    def check(self, s, R):
        return "more jobs run than the limit allows" if s.jobs.count("running") > 1 else ""

    def goals(self):
        return (("both jobs end", lambda s: True, lambda s: s.jobs == ("over", "over")),)


class SlotsKill(Slots):
    name = "slots: a worker dies anywhere, or the index lags when it looks"
    rules = {
        "one-write": "slots are taken and given back in the very write of the job's record that claims it or ends its attempt",
        "sweep": "the sweep has every line looked at, that of slots too",
    }
    given, faults = ("taken-if-free", "look-again", "look-after"), True


def to(s, j, state, taken=None):
    return s._replace(jobs=put(s.jobs, j, state), taken=s.taken if taken is None else taken)


class PauseGate(Small):
    name = "pauses: a tenant pauses its jobs while one of them is released from another line; the request dies once"
    rules = {
        "gates-again": "a released job passes all gates again: its scheduler has looked only at its line",
        "mark-with-pause": "a tenant's pauses and the mark that makes workers read them are one write",
    }

    class State(NamedTuple):
        job: str = "held"  # held, released, paused, admitted (a worker has read no pause), running
        pause: bool = False
        mark: bool = False
        pausing: str = ""  # what the request has done: nothing, pause, answered
        left: bool = True

    def steps(self, s, R):
        if s.job == "held":
            yield "a scheduler releases the job", s._replace(job="released"), False
        if s.job == "released":
            stops = s.pause and s.mark and "gates-again" in R
            if s.pausing == "answered" and not stops:
                yield "the release arrives: nothing stops the job", s._replace(job="running"), False
            else:
                yield "the release arrives", s._replace(job="paused" if stops else "admitted"), False
        if s.job == "admitted":  # it has begun: a pause does not stop it
            yield "the job starts", s._replace(job="running", pause=False, pausing=""), False
        yield from self.tenant(s, R)

    def tenant(self, s, R):
        if s.pausing == "" and s.job != "running" and not s.pause:
            if "mark-with-pause" in R:
                yield "the pause and the mark are written", s._replace(pause=True, mark=True, pausing="answered"), False
            else:
                yield "the pause is written", s._replace(pause=True, pausing="pause"), False
        elif s.pausing == "pause":
            yield "the mark is written", s._replace(mark=True, pausing="answered"), False
            if s.left:
                yield "the request dies", s._replace(pausing="", left=False), True
        elif s.pausing == "" and s.pause:
            yield "the request is repeated: it finds the pause", s._replace(pausing="answered"), False

    def check(self, s, R):
        return "a job starts whose wake-up arrived after the pause was confirmed" if s.job == "running" and s.pausing == "answered" else ""


class Worker(NamedTuple):
    """A worker with a wake-up of one generation. It acknowledges the message when it has done everything."""

    pc: str = "idle"  # idle, admitted, refused, row (written), held (written), asks
    gen: int = 0
    old: bool = False  # it had written the row before the scheduler's first look
    frozen: bool = False


IDLE = Worker()
FAULTS = ("death", "freeze", "loss")


class Together(Small):
    """Everything that one job in one line meets. It shows that the rules are enough together; the
    other models show of each what happens without it.

    A worker that freezes between its two writes and dies right after the second one is left out: its
    job may be in a line without a row, until another job joins that line.
    """

    rules = {}

    class State(NamedTuple):
        status: str = "queued"  # queued, held, running, ended
        gen: int = 0
        wake: bool = True  # a wake-up of the queued job is in its queue
        ready: tuple = ()  # generations that schedulers have released
        workers: tuple = (IDLE, IDLE)
        row: bool = True
        listed: bool = False
        looks: int = 0
        touched: bool = False
        lease: bool = False
        alive: bool = False  # the scheduler
        asked: bool = False  # a message that wakes the shard
        open: bool = False
        turns: int = 3  # how often the gate still opens or shuts
        left: tuple = ()

    def __init__(self, **faults):
        self.faults = faults
        self.name = "together, a job in a line: " + ", ".join(f"{n} {fault}" for fault, n in faults.items())

    def init(self):
        return self.State(left=tuple(self.faults.get(fault, 0) for fault in FAULTS))

    def steps(self, s, R):
        if s.status in ("running", "ended"):
            return
        if s.turns:
            yield f"the gate {'shuts' if s.open else 'opens'}", s._replace(open=not s.open, turns=s.turns - 1), True
        yield from self.queues(s)
        for w in sorted(set(s.workers) - {IDLE}):
            yield from getattr(self, w.pc)(s, w)
            if had(s, "death"):
                again = dict(wake=True) if s.status == "queued" and w.gen == s.gen else dict(ready=(*s.ready, w.gen)[-2:])
                yield f"a worker dies ({w.pc})", swap(spent(s, "death"), w, IDLE)._replace(**again), True
        yield from self.sweep(s)
        if s.alive:
            yield from self.scheduler(s)
        elif s.lease:
            yield "the lease expires", s._replace(lease=False), False

    def queues(self, s):
        if s.wake:
            yield from self.deliver(s, s.gen, s._replace(wake=False))
        for n, gen in enumerate(s.ready):
            yield from self.deliver(s, gen, s._replace(ready=s.ready[:n] + s.ready[n + 1 :]))
        if s.asked:
            yield "a scheduler is woken", s._replace(asked=False, alive=s.alive or not s.lease, lease=True), False
            if had(s, "loss"):
                yield "a message to the shard is lost", spent(s, "loss")._replace(asked=False), True

    def deliver(self, s, gen, taken):
        if had(s, "loss"):
            yield f"a wake-up of generation {gen} is lost", spent(taken, "loss"), True
        if gen != s.gen:
            yield f"a wake-up of generation {gen}: stale", taken, False
        elif IDLE in s.workers:
            pc = "admitted" if s.open else "refused"
            yield f"a wake-up of generation {gen}: {pc}", swap(taken, IDLE, Worker(pc, gen)), False

    def admitted(self, s, w):
        claims = w.gen == s.gen
        job = s._replace(status="running", listed=False) if claims else s
        yield "the worker claims the job" if claims else "the claim fails", swap(job, w, IDLE), False

    def refused(self, s, w):
        yield "the worker writes the row", swap(s, w, w._replace(pc="row"))._replace(row=True, touched=True), False

    def row(self, s, w):
        if had(s, "freeze") and not w.frozen:
            yield "the worker freezes", swap(spent(s, "freeze"), w, w._replace(frozen=True)), True
        if w.gen != s.gen:
            yield "the worker finds another generation: stops", swap(s, w, IDLE), False
            return
        job = s if s.status == "held" else s._replace(status="held", gen=s.gen + 1, wake=False)  # held already: nothing to write
        yield "the worker writes held", swap(job, w, w._replace(pc="held", old=False)), False

    def held(self, s, w):
        job = s._replace(row=True, touched=True) if w.frozen else s
        yield "the worker goes on" + (": the row again" if w.frozen else ""), swap(job, w, w._replace(pc="asks", frozen=False)), False

    def asks(self, s, w):
        yield "the worker wakes the shard if nobody serves it", swap(s, w, IDLE)._replace(asked=s.asked or not s.lease), False

    def sweep(self, s):
        if s.status == "queued" and not s.wake:
            yield "the sweep sends the wake-up again", s._replace(wake=True), False
        if s.status == "held":
            yield "its last moment: the sweep ends the job", s._replace(status="ended"), False
            if not s.listed:
                yield "the index shows the job", s._replace(listed=True), False
        if s.row and not s.lease and not s.asked:
            yield "the sweep finds a line without a scheduler", s._replace(asked=True), False

    def scheduler(self, s):
        if had(s, "death"):
            yield "the scheduler dies", spent(s, "death")._replace(alive=False, looks=0), True
        if s.listed:
            if s.open and len(s.ready) < 2:
                yield f"the scheduler releases generation {s.gen}", s._replace(ready=(*s.ready, s.gen), looks=0), False
        elif not s.row:
            yield "no line: the scheduler ends", s._replace(alive=False, lease=False, looks=0), False
        elif s.looks == 0:
            old = tuple(sorted(w._replace(old=w.old or w.pc == "row") for w in s.workers))
            yield "the scheduler finds nobody", s._replace(looks=1, touched=False, workers=old), False
        elif s.looks == 1 and s.status != "held" and not any(w.old and not w.frozen for w in s.workers):
            yield "it finds nobody again, seconds later", s._replace(looks=2), False
        elif s.looks == 2:
            yield "it removes the row unless it was written", s._replace(row=s.touched, looks=0), False

    def goals(self):
        return (
            ("the job runs while its gate is open", lambda s: s.open and s.status in ("queued", "held"), lambda s: s.status == "running"),
            ("the job runs or ends", lambda s: True, lambda s: s.status in ("running", "ended")),
        )


def had(s, fault):
    return s.left[FAULTS.index(fault)]


def spent(s, fault):
    return s._replace(left=tuple(n - (name == fault) for name, n in zip(FAULTS, s.left, strict=True)))


def swap(s, old, new):
    """Replace a worker. They are interchangeable, so they are sorted: symmetric states are one state."""
    workers = list(s.workers)
    workers[workers.index(old)] = new
    return s._replace(workers=tuple(sorted(workers)))


TOGETHER = (dict(death=1, loss=1), dict(freeze=1, loss=1))
TOGETHER_DEEP = (dict(death=2, loss=2), dict(freeze=2, loss=2))
WAITING = (Line, Releases, Schedulers, Visits, VisitsLoss, Messages, Grants, Slots, SlotsKill, PauseGate)
