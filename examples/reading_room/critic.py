"""The critic's rules: a claim passes only with words that stand in the document that it names, found there by code."""

from reading_room.corpus import lines_of
from reading_room.index import folder_of, shared, terms
from reading_room.notes import Case, Cited, Claim, Objection, Quote, Review

SHORTEST = 8
"""Characters of a quote; fewer stand anywhere."""
SAME_WORDS = 0.8
"""The share of a small model's answer, by words that say something, that one sentence must have."""
FEWEST_WORDS = 2


def line_of(lines: list[str], quote: str) -> int | None:
    """The number of the line (from 1) on which ``quote`` begins, whatever the spacing; ``None`` when it stands nowhere."""
    numbers = [number for number, line in enumerate(lines, 1) for _ in line.split()]
    joined = " ".join(" ".join(lines).split())
    at = joined.find(" ".join(quote.split()))
    return numbers[joined.count(" ", 0, at)] if at >= 0 and numbers else None


def review(case: Case) -> Review:
    """Which claims pass, and why the others do not."""
    claims = case.claims
    if case.copied is not None and case.evidence is not None:
        answer = " ".join(case.copied.answer.split())
        holding = max(case.evidence.quotes, key=lambda one: shared(answer, one.text))
        if shared(answer, holding.text) < SAME_WORDS or len(terms(answer)) < FEWEST_WORDS:
            why = "no sentence says so in these words; copy a few words of the one that answers the question"
            return Review(passed=[], sent_back=[Objection(claim=answer, why=why)])
        claims = [Claim(claim=answer, quote=holding.text, file=holding.file)]
    found = Review(passed=[], sent_back=[])
    for one in claims:
        line, why = _checked(case.index, one)
        if line is None:
            found.sent_back.append(Objection(claim=one.claim, quote=one.quote, file=one.file, why=why))
        else:
            found.passed.append(Cited(claim=one.claim, quote=Quote(text=" ".join(one.quote.split()), file=one.file, line=line)))
    return found


def _checked(index: str, one: Claim) -> tuple[int | None, str]:
    if not one.claim.strip():
        return None, "it claims nothing"
    if len(one.quote.strip()) < SHORTEST:
        return None, f"it has no quote; copy at least {SHORTEST} characters of the document that says so"
    folder = folder_of(index, one.file)
    if folder is None:
        return None, f"there is no document {one.file!r}; give the name as the search gave it"
    try:
        line = line_of(lines_of(folder, one.file), one.quote)
    except OSError as error:
        return None, f"its document can't be read any more ({error.strerror})"
    return line, "its quote does not stand in that document; copy the words exactly"
