"""The lookout: sees which agents of a host have been at work for long, and says so while they still are."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice

from orchestrator.agent import Agent
from orchestrator.link import now
from orchestrator.observe.logs import get_logger

LOOK_SECONDS = 1.0

SHOWN_SECONDS = 2.0
"""Agents that take longer are shown one by one. Most are through before, and thousands a second would be no use to anybody."""

SLOW_SECONDS = 10.0
"""Agents that take longer are worth a line in the log."""

MOST_SHOWN = 100
"""So many agents of one host are shown at a time."""

log = get_logger("lookout")


async def look_out(at_work: Callable[[], Iterable[Agent]], show: Callable[[Agent], None]) -> None:
    """Look at the agents ``at_work`` every second, until cancelled; each that takes long is given to ``show`` once."""
    shown: set[Agent] = set()
    told: set[Agent] = set()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        at = now()
        long = {agent: (at - agent.began) / 1000 for agent in at_work() if at - agent.began >= SHOWN_SECONDS * 1000}
        shown &= long.keys()
        told &= long.keys()
        for agent in islice((agent for agent in long if agent not in shown), MOST_SHOWN - len(shown)):
            shown.add(agent)
            try:
                show(agent)
            except Exception:
                log.exception("an agent could not be shown", task=agent.label)
        slow = [agent for agent, seconds in long.items() if seconds >= SLOW_SECONDS and agent not in told]
        told.update(slow)
        for (run, role), agents in _together(slow).items():
            first, seconds = agents[0].task, round(long[agents[0]])
            said = f"slow: {len(agents)} of {role}, {first} for {seconds} s"  # the dashboard shows this and folds the rest away
            log.warning(said, run=run, role=role, count=len(agents), first=first, seconds=seconds)


def _together(agents: Iterable[Agent]) -> dict[tuple[str, str], list[Agent]]:
    """By run and role: one line says it for all of them."""
    found = defaultdict[tuple[str, str], list[Agent]](list)
    for agent in agents:
        found[agent.run, agent.assign.role].append(agent)
    return found
