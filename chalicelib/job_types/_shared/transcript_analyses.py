"""The analyses of `transcript_analysis`: the instructions and response schema of each."""

from __future__ import annotations

from chalicelib.domain.jobs.job_type import Schema
from chalicelib.job_types._shared.schema import TEXT, TEXTS, TURN, closed, list_of, nullable, number, one_of

ANALYSES = ("topics", "argument_structure", "linguistic_features", "interaction_patterns", "sentiment", "quality")
SENTIMENTS = ("positive", "negative", "neutral", "mixed")
FALLACIES = (
    "ad_hominem",
    "straw_man",
    "false_dilemma",
    "appeal_to_authority",
    "appeal_to_emotion",
    "hasty_generalization",
    "slippery_slope",
    "circular_reasoning",
    "whataboutism",
    "moving_the_goalposts",
)
TURNS: Schema = {"type": "array", "items": TURN}
SCORE = number(0, 10)

METHOD = """\
- topics: `segments` divide the transcript from first to last turn by what is talked about. `drifts` are the turns at which the topic \
changes, with what brought it about and whether it was on purpose. `unresolved` are topics that were raised and left.
- argument_structure: `claims` are what speakers want to be accepted, with the premises they give, the evidence they name, and the turns \
that support or answer it; then `strength`: strong (premises that carry it, no answer left open), moderate, weak, or bare (no premises). \
`fallacies` only where the turn shows one beyond doubt, with `why`; a rude or wrong statement is none by itself. `unanswered`: questions \
and objections that nobody took up.
- linguistic_features: for each speaker register, complexity, hedging, and devices (metaphor, repetition, rhetorical question ...) with \
phrases quoted exactly. Do not judge dialect, accent or errors of transcription.
- interaction_patterns: for each speaker the part they take in the conversation and whom they address; `events` such as interruptions, \
challenges, concessions, agreements, questions that are evaded, attempts to moderate. `balance` says who had the floor.
- sentiment: for each speaker how they speak, with the turn that shows it best; `over_time` divides the transcript into at most ten parts \
from first to last turn. Scores run from -1 to 1 and agree with their word. `overall_sentiment` and `overall_score` are of the whole.
- quality: strengths and weaknesses of the conversation, then four scores from 0 to 10: `clarity` (one can follow), `evidence` (claims \
are carried), `responsiveness` (they answer one another), `civility` (they treat one another well). `quality_score` weighs them as the \
conversation's purpose demands; 5 is ordinary."""

_BLOCKS: dict[str, Schema] = {
    "topics": closed(
        segments=list_of(first_turn=TURN, last_turn=TURN, topic=TEXT, gist=TEXT),
        drifts=list_of(at_turn=TURN, from_topic=TEXT, to_topic=TEXT, cause=TEXT, on_purpose={"type": "boolean"}),
        unresolved=TEXTS,
    ),
    "argument_structure": closed(
        claims=list_of(
            speaker=TEXT,
            at_turn=TURN,
            claim=TEXT,
            premises=TEXTS,
            evidence=nullable(TEXT),
            supported_by_turns=TURNS,
            answered_by_turns=TURNS,
            strength=one_of("strong", "moderate", "weak", "bare"),
        ),
        fallacies=list_of(speaker=TEXT, at_turn=TURN, why=TEXT, fallacy=one_of(*FALLACIES)),
        unanswered=list_of(at_turn=TURN, by=TEXT, matter=TEXT),
    ),
    "linguistic_features": closed(
        speakers=list_of(
            speaker=TEXT,
            phrases=TEXTS,
            devices=TEXTS,
            register=one_of("formal", "neutral", "informal", "technical"),
            complexity=one_of("low", "medium", "high"),
            hedging=one_of("none", "some", "much"),
        ),
        observations=TEXTS,
    ),
    "interaction_patterns": closed(
        speakers=list_of(speaker=TEXT, addresses=TEXTS, part=TEXT),
        events=list_of(
            turns=TURNS,
            note=TEXT,
            event=one_of("interruption", "challenge", "concession", "agreement", "evasion", "question", "moderation", "personal_attack"),
        ),
        balance=TEXT,
    ),
    "sentiment": closed(
        speakers=list_of(speaker=TEXT, telling_turn=TURN, note=TEXT, feeling=one_of(*SENTIMENTS), score=number(-1, 1)),
        over_time=list_of(first_turn=TURN, last_turn=TURN, note=TEXT, score=number(-1, 1)),
        overall_sentiment=one_of(*SENTIMENTS),
        overall_score=number(-1, 1),
    ),
    "quality": closed(
        strengths=TEXTS,
        weaknesses=TEXTS,
        clarity=SCORE,
        evidence=SCORE,
        responsiveness=SCORE,
        civility=SCORE,
        quality_score=number(0, 10, "5 is ordinary for a conversation of this purpose."),
    ),
}


def block(analysis: str) -> Schema:
    """Return the response schema of one analysis."""
    return _BLOCKS[analysis]
