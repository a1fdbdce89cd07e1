"""`Assembly` with frames in any order, lost or repeated (protocol rule 12: token frames carry
(attempt, offset), states carry the version).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cli.reducer import Appended, Finished, MilestoneReached, Outcome, Resubscribe, StartedOver, TextAssembler, Trimmed

Frame = dict[str, Any]

TEXTS = st.text(alphabet="ab\n\U0001f600\u0301\u200d", max_size=30)


@dataclass
class Server:
    """What really happened: the text of each attempt and the end of the job.

    The tests lose and reorder its frames.
    """

    texts: dict[int, str]
    status: str
    length: int

    @property
    def last(self) -> int:
        return max(self.texts)

    def tokens(self, attempt: int, start: int, stop: int) -> Frame:
        return {"event": "tokens", "attempt": attempt, "version": attempt * 10, "offset": start, "text": self.texts[attempt][start:stop]}

    def state(self, event: str, attempt: int) -> Frame:
        return {
            "event": event,
            "attempt": attempt,
            "version": attempt * 10 + 1,
            "status": "processing",
            "reason": "stream_cut",
            "offset": 0,
        }

    @property
    def end(self) -> Frame:
        return {"event": f"job_{self.status}", "attempt": self.last, "version": self.last * 10 + 5, "length": self.length}

    def answer(self, ask: Resubscribe, size: int) -> list[Frame]:
        """The answer to a subscription: the rest of the text in pieces (from 0 if the attempt is
        outdated), then the end.
        """
        start = ask.offset if ask.attempt == self.last else 0
        stops = range(start, self.length, size)
        pieces = [self.tokens(self.last, stop, min(stop + size, self.length)) for stop in stops]
        return [self.state("connected", self.last), *pieces, self.end]

    def result(self) -> str:
        return self.texts[self.last][: self.length]


@st.composite
def servers(draw: st.DrawFn) -> Server:
    texts = {attempt: draw(TEXTS) for attempt in range(1, draw(st.integers(1, 3)) + 1)}
    last = texts[max(texts)]
    status = draw(st.sampled_from(["completed", "failed", "cancelled", "incomplete"]))
    length = len(last) if status == "completed" else draw(st.integers(0, len(last)))
    return Server(texts, status, length)


@st.composite
def frames_of(draw: st.DrawFn, server: Server) -> Frame:
    attempt = draw(st.sampled_from(sorted(server.texts)))
    kind = draw(st.sampled_from(["tokens"] * 8 + ["connected", "progress", "reset", "retrying", "end"]))
    if kind == "end":
        return server.end
    if kind != "tokens":
        return server.state(kind, attempt)
    start = draw(st.integers(0, len(server.texts[attempt])))
    return server.tokens(attempt, start, draw(st.integers(start, len(server.texts[attempt]))))


def replay(shown: str, outcomes: list[Outcome]) -> str:
    """Apply outcomes to the shown text, as a client does that sees nothing else."""
    for outcome in outcomes:
        match outcome:
            case Appended(text):
                shown += text
            case StartedOver():
                shown = ""
            case Trimmed(length):
                shown = shown[:length]
    return shown


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_any_interleaving_shows_a_prefix_of_one_attempt_and_ends_equal(data: st.DataObject) -> None:
    server = data.draw(servers())
    assembly, shown, newest = TextAssembler(), "", 0

    for frame in data.draw(st.lists(frames_of(server), max_size=40)):
        shown = replay(shown, assembly.receive(frame))
        newest = max(newest, frame["attempt"])

        assert shown == assembly.text
        assert assembly.position == len(assembly.text)
        assert assembly.attempt == newest
        assert server.texts[newest].startswith(assembly.text)
        assert not assembly.done or assembly.text == server.result()

    size = data.draw(st.integers(1, 7))
    for frame in (f for ask in assembly.resubscribe() if isinstance(ask, Resubscribe) for f in server.answer(ask, size)):
        shown = replay(shown, assembly.receive(frame))
    assert assembly.done
    assert shown == assembly.text == server.result()
    assert assembly.status == server.status


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_frames_after_the_end_do_not_change_the_text(data: st.DataObject) -> None:
    server = data.draw(servers())
    assembly = TextAssembler()
    for frame in server.answer(Resubscribe(0, 0), 5):
        assembly.receive(frame)

    late = [outcome for frame in data.draw(st.lists(frames_of(server), max_size=20)) for outcome in assembly.receive(frame)]

    assert late == [o for o in late if not isinstance(o, Appended | Resubscribe | StartedOver | Trimmed | Finished)]
    assert assembly.text == server.result()
    assert assembly.resubscribe() == []


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_lossy_answers_complete_if_the_timer_asks_again(data: st.DataObject) -> None:
    server = data.draw(servers())
    assembly = TextAssembler()

    for _ in range(200):
        if assembly.done:
            break
        asks = [ask for ask in assembly.resubscribe() if isinstance(ask, Resubscribe)]
        answer = [frame for ask in asks for frame in server.answer(ask, 4)]
        arriving = data.draw(st.lists(st.sampled_from(answer), max_size=4)) + answer[:2]
        for frame in arriving:
            assembly.receive(frame)
        assembly.receive(server.end)

    assert assembly.text == server.result()


@given(st.lists(st.integers(1, 40), min_size=2, max_size=60))
def test_hole_asks_once_however_many_frames_follow(offsets: list[int]) -> None:
    assembly = TextAssembler()

    asks = [
        o for offset in offsets for o in assembly.receive({"event": "tokens", "attempt": 1, "version": 1, "offset": offset, "text": "x"})
    ]

    assert asks == [Resubscribe(1, 0)]


def test_second_attempt_is_reported_with_its_reason() -> None:
    """Only the second attempt is reported as `StartedOver`, with its reason."""
    assembly = TextAssembler()
    reset = {"event": "reset", "attempt": 2, "version": 3, "reason": "stream_cut"}
    end = {"event": "job_completed", "attempt": 2, "version": 5, "length": 2}

    outcomes = assembly.receive({"event": "tokens", "attempt": 1, "version": 1, "offset": 0, "text": "ab"})
    outcomes += assembly.receive(reset)
    outcomes += assembly.receive({"event": "milestone", "attempt": 2, "version": 3, "name": "started"})
    outcomes += assembly.receive({"event": "tokens", "attempt": 2, "version": 3, "offset": 0, "text": "cd"})
    finished = assembly.receive(end)[-1]

    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Appended, StartedOver, MilestoneReached, Appended]
    assert outcomes[1] == StartedOver(2, "stream_cut")
    assert finished == Finished("completed", end)
