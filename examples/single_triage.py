"""Sorts customers' messages, one a line: the *single* strategy, where one scored choice of the model answers a whole batch.

    callboard run examples/single_triage.py:team --input messages.txt

Without an input it sorts the sample below. Choices are scored, not generated, so even the tiny embedded model is good at them.
"""

from typing import Literal

from pydantic import BaseModel

from agents import Role, role
from orchestrator import Team, only
from protocols.failures import BadInput
from protocols.plan import Plan, Task, ref

BATCH = 12
SAMPLE = """\
I was charged twice for my order last week, please refund one of the payments.
The parcel was supposed to arrive on Monday and it is still not here.
I forgot my password and the reset mail never comes.
The app crashes every time I open the settings page.
Could you add a dark mode? My eyes would be grateful.
My invoice shows the wrong VAT number.
The courier left the box in the rain and everything inside is wet.
How do I change the mail address that I log in with?
Since the last update the search shows an error instead of results.
It would be great if lists could be exported to a spreadsheet.
Why is there a fee of 3 euros on my credit card statement?
Please delete my account and all my data.
"""

Tray = Literal["billing", "delivery", "account", "bug", "idea"]

clerk = Role(
    name="clerk",
    instructions="Sort each message of a customer into a tray.",
    input=list[str],
    output=list[Tray],
    options={
        "billing": "payments, invoices, charges and refunds",
        "delivery": "the delivery of a parcel that is late, lost or damaged",
        "account": "logging in, a forgotten password, changing or deleting an account",
        "bug": "a crash or an error in the app, something that stopped working",
        "idea": "a wish for a new feature of the product",
    },
    model="embedded",
)


class Sorted(BaseModel):
    messages: list[str]
    trays: list[list[Tray]]


@role
def desk(found: Sorted) -> str:
    """The messages by tray."""
    trays = [tray for batch in found.trays for tray in batch]
    pairs = sorted(zip(trays, found.messages, strict=True), key=lambda pair: pair[0])
    return "\n".join(f"{tray:9} {message}" for tray, message in pairs)


def plan(goal: str | None = None) -> Plan:
    """The messages in batches: scores are centred over a batch, so one is better than one task a message."""
    messages = [line.strip() for line in (goal or SAMPLE).splitlines() if line.strip()]
    if not messages:
        raise BadInput("there is no message; give a file with one a line: --input messages.txt")
    batches = [messages[at : at + BATCH] for at in range(0, len(messages), BATCH)]
    tasks = [Task(id=f"sort/{at}", role="clerk", input=batch) for at, batch in enumerate(batches)]
    trays = [ref(task.id) for task in tasks]
    return Plan(tasks=(*tasks, Task(id="desk", role="desk", input={"messages": messages, "trays": trays})))


team = Team("triage", roles=[clerk, desk], planner=plan, merge=only())
