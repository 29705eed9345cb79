"""The report, in Markdown. What documents and models say is shown so that it can't format, link or load anything."""

import re
from collections.abc import Iterator

from reading_room.notes import Answered, Cited, Quote, Sheet


def report(sheet: Sheet) -> str:
    """Question, findings each with its quote, file and line, what was not found, what the critic dropped, and what it cost."""
    return "\n".join(_lines(sheet)).rstrip() + "\n"


def _lines(sheet: Sheet) -> Iterator[str]:
    research = sheet.research
    found = [one for one in research.answers if one.found]
    yield from ("# Research", "", f"**Question:** {_plain(sheet.question)}", "")
    yield f"**Corpus:** {sheet.documents:,} documents in {sheet.passages:,} passages under {_code(sheet.folder)}"
    yield from ("", *_who(sheet), "", "## Findings", "")
    for answer in found:
        yield from (f"### {_plain(answer.question)}", "")
        for one in answer.found:
            yield from _finding(one)
    if not found:
        yield from ("None: the critic let no claim pass.", "")
    if any(one.closest for one in research.answers):
        yield from (
            "## Closest sentences",
            "",
            "By rule: those that share the most and the rarest words with a question, answer or not.",
            "",
        )
        for answer in research.answers:
            for quote in answer.closest:
                yield from (f"{_plain(answer.question)} {_place(quote)}", "", *_block(quote.text))
    answered = {one.question for one in found}
    missing = list(dict.fromkeys(one.question for one in research.answers if one.question not in answered))
    yield from ("## Not found", "")
    yield from [f"- {_plain(question)}{_why(question, research.answers)}" for question in missing] or ["Every sub-question has a finding."]
    dropped = [one for answer in research.answers for one in answer.dropped]
    yield from ("", "## Dropped by the critic", "")
    yield from [f"- {_plain(one.claim)} ({_plain(one.why)})" for one in dropped] or ["Nothing."]
    yield from ("", "## What it took", "", *_taken(sheet, sum(len(one.found) for one in found)))


def _taken(sheet: Sheet, total: int) -> Iterator[str]:
    research = sheet.research
    for number, one in enumerate(research.rounds, 1):
        asked = " ".join(map(_plain, one.asked)) or "nothing was asked"
        yield f"- Round {number}, planned by {one.planner}: {asked} New findings: {one.new}; model calls set aside so far: {one.calls}."
    yield f"- It stopped because {research.stop}. Allowed were {sheet.rounds} rounds and {sheet.calls} model calls."
    index = f"was built in {sheet.built:.1f} s" if sheet.built else "was there"
    yield f"- Findings: {total}; model calls: at most {research.calls}; time: {research.seconds:.1f} s; the index {index}."
    yield "- Calls, tokens and money as they were counted are in the run's summary and its trace."


def _who(sheet: Sheet) -> Iterator[str]:
    model = _code(sheet.model)
    if sheet.writes:
        yield f"**By:** {model} planned the questions, searched, and judged whether quotes say what is claimed. Code checked every quote."
    else:
        yield f"**By:** code planned the questions and found the sentences; {model} copied answers out of them. Code checked every quote."
        yield "So small a model is often wrong about which words answer: a quote that is real need not be the answer. Read on around it."
    if sheet.model.startswith("scripted:"):
        yield from ("", "**Scripted:** no model was asked. The replies are a script's.")
    if not sheet.fit:
        yield from ("", "**Degraded:** this model was not measured to be good at answers from a text. Take its findings as a rehearsal.")


def _finding(one: Cited) -> Iterator[str]:
    said = f"{_plain(one.claim)} " if one.claim != one.quote.text else ""
    yield from (f"{said}{_place(one.quote)}", "", *_block(one.quote.text))


def _why(question: str, answers: list[Answered]) -> str:
    why = next((one.failure for one in answers if one.question == question and one.failure), "")
    return f" ({_plain(why)})" if why else ""


def _place(quote: Quote) -> str:
    return _code(f"{quote.file}:{quote.line}")


def _block(text: str) -> Iterator[str]:
    """Text as it is, where Markdown formats nothing."""
    yield from (f"    {text}", "")


def _code(text: str) -> str:
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"


def _plain(text: str) -> str:
    """Words on one line that can't be markup."""
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", " ".join(text.split())).replace("<", "&lt;").replace("://", ":\\//")
