"""How often the research finds what stands in the documents of installed packages: `python -m tests.examples.research_accuracy [MODEL]`.

Each question has words that a quote must hold to be an answer. The prompt and the ranking were tuned on ``TUNED``; ``HELD_OUT`` had no
part in that. One run a question and one round; time is wall time with the model loaded and the index built.
"""

import asyncio
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from research import MODEL, team

from agents.models.embedded import stop_in_process
from orchestrator import Board

TUNED = {
    "What happens when verify is set to False in requests?": "accept any TLS certificate",
    "How can tenacity stop after a number of attempts?": "previous attempt >= max_attempt",
    "Which libraries does yarl require?": "multidict_ and propcache_",
    "What can cloudpickle serialize that pickle can't?": "not supported by the default|can serialize a function|interactive session",
    "Is it safe to load pickle data from anyone?": "unsafe with untrusted|untrusted data|data from trusted",
    "What does click's password_option do?": "prompts for a password",
    "When does the aiohttp client raise TooManyRedirects?": "redirected too many times",
    "How do I make click ask for a password?": "prompts for a password",
    "What does certifi provide?": "Mozilla",
    "Which Python versions does wrapt support?": r"3\.9\+|3\.9",
    "What does psutil retrieve information on?": "running processes",
    "What does merge_contextvars do in structlog?": r"merges in a global \(context-local\)",
    "What does charset_normalizer help you with?": "unknown charset encoding",
    "What does click's confirmation_option do?": "shows a prompt before continuing",
    "What does click's version_option do?": "immediately prints the version",
    "What does sniffio detect?": "which async library",
    "What is platformdirs for?": "platform-specific dir",
    "What does the getall method of multidict return?": "all values",
    "What does attrs bring back?": "joy",
    "What happens when urllib3 exceeds the maximum number of retries?": "maximum number of retries is exceeded",
}
HELD_OUT = {
    "What does tenacity's stop_when_event_set do?": "given event is set",
    "What does cffi let you call?": "calling C code",
    "What does click's edit function do?": "Edits the given text",
    "What does structlog's clear_contextvars do?": "Clear the context-local",
    "What is pathspec for?": "pattern matching",
    "What does user_data_dir of platformdirs return?": "data directory tied to the user",
}


async def measure(model: str) -> None:
    """Ask them all and print what was right."""
    async with Board(runtime="inline", store="memory:") as board:
        for name, cases in (("warm-up", {"What is click?": "."}), ("tuned on", TUNED), ("held out", HELD_OUT)):
            right = first = silent = 0
            began = time.monotonic()
            for question, words in cases.items():
                result = await (await board.start(team, {"question": question, "rounds": 1}, model=model)).result()
                findings, _, rest = str(result.output).partition("## Findings")[2].partition("## Closest sentences")
                quotes, closest = (re.findall(r"^    (.+)$", part, re.M) for part in (findings, rest))
                found = any(re.search(words, quote) for quote in quotes)
                by_rule = bool(closest) and bool(re.search(words, closest[0]))
                right, first, silent = right + found, first + by_rule, silent + (not quotes)
                print(
                    f"{'right' if found else 'none ' if not quotes else 'wrong'} {'rule right' if by_rule else '':10} {question} {quotes}"
                )
            took = (time.monotonic() - began) / len(cases)
            print(
                f"{name}: model right {right}, silent {silent}, closest sentence right {first}, of {len(cases)}; {took:.1f} s a question\n"
            )
    stop_in_process()


if __name__ == "__main__":
    asyncio.run(measure(sys.argv[1] if len(sys.argv) > 1 else MODEL))
