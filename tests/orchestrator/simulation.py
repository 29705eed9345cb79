"""A whole run without hosts, disk or clock: the reducer driven by a random stream of what hosts could say."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from orchestrator import reducer
from orchestrator.ledger import RUN
from orchestrator.reducer.state import Act, Phase, RunState
from orchestrator.scheduler import SHARED, schedule
from protocols import codec
from protocols import messages as m
from protocols.budget import COUNTED, Limits, Usage
from protocols.chat import ToolCall
from protocols.envelope import Envelope
from protocols.failures import Failure, Verdict
from protocols.plan import Plan, Task
from protocols.team import MergeSpec, RoleSpec, Strategy, TeamSpec

CALL = Usage(input_tokens=10, micros=7, model_calls=1, turns=1)
SHORT = Usage(input_tokens=4, micros=3, model_calls=1, turns=1)


def fetch(value: m.Value) -> object:
    return value.inline


def team(*names: str, **settings: object) -> TeamSpec:
    roles = {name: RoleSpec(name=name, strategy=Strategy.FUNCTION) for name in (names or ("worker",))}
    return TeamSpec(name="team", roles=roles, **settings)


def request(plan: Plan, spec: TeamSpec | None = None, budget: Limits | None = None) -> m.RunRequested:
    return m.RunRequested(team=spec or team(), plan=m.Value(inline=plan.model_dump()), budget=budget or Limits())


def fan(count: int, role: str = "worker") -> Plan:
    return Plan(tasks=tuple(Task(id=f"t{number}", role=role, input=number) for number in range(count)))


@dataclass
class Simulation:
    """One run: ``say`` folds a message and everything decided, ``entries`` is its journal, packed and unpacked again."""

    asked: m.RunRequested
    room: int = 8
    entries: list[Envelope] = field(default_factory=list)
    check: Callable[[RunState], None] = lambda state: None

    def __post_init__(self) -> None:
        self.state = reducer.begin("run-1", 0, self.asked)
        self.said: list[m.Message] = []
        self.say(self.asked)

    def say(self, message: m.Message) -> None:
        todo = [message]
        while todo:
            one = codec.unpack(codec.pack(todo.pop(0)))
            entry = Envelope("run-1", self.state.seq + 1, len(self.entries), one)
            self.entries.append(entry)
            self.state, decided = reducer.step(self.state, entry, fetch)
            self.said.append(one)
            self.check(self.state)
            todo = [*decided, *todo]

    def dispatch(self) -> list[m.Dispatch]:
        room = {SHARED: {"h1": self.room - self.state.at_work // 2, "h2": self.room - self.state.at_work // 2}}
        decided = schedule(self.state, room)
        if decided is None:
            return []
        self.say(decided)
        return list(decided.items)

    @property
    def ended(self) -> bool:
        return self.state.act is Act.ENDED

    def finish(self, task: str, output: object = None, failure: Failure | None = None) -> None:
        attempt = self.state.tasks[task].attempt
        self.say(m.TaskEnded(task=task, attempt=attempt, output=None if failure else m.Value(inline=output), failure=failure))

    def complete(self) -> "Simulation":
        """Do every task well until the run ends."""
        for _ in range(10_000):
            if self.ended:
                return self
            self.dispatch()
            for name in [name for name, one in self.state.tasks.items() if one.at_work]:
                self.finish(name, output=name)
        raise AssertionError("the run does not end")


def within_limits(state: RunState) -> None:
    """No account, at any entry, has settled and reserved more than its limit; a parent has what its children have."""
    sums: dict[str, list[int]] = {}
    for name, account in state.ledger.accounts.items():
        for dimension, limit in account.bounds:
            taken = account.settled[dimension] + account.reserved[dimension]
            assert taken <= limit, f"{name or 'run'} has {taken} of {limit} {COUNTED[dimension]}"
        assert min(account.reserved) >= 0
        assert min(account.held) >= 0
        if account.parent is not None:
            into = sums.setdefault(account.parent, [0] * 5)
            for dimension in range(5):
                into[dimension] += account.reserved[dimension]
    for name, below in sums.items():
        own = state.ledger.accounts[name].held
        assert [a + b for a, b in zip(own, below, strict=True)] == list(state.ledger.accounts[name].reserved)


def review(task: str, attempt: int) -> m.ReviewAsked:
    """An agent that can't go on by itself."""
    call = ToolCall(id="c", name="pay", arguments={"to": "ann"})
    return m.ReviewAsked(task=task, attempt=attempt, step=7, call=call, key=f"run-1/{task}/7", message="nobody saw its end")


def open_writes(sim: Simulation, task: str) -> set[int]:
    """The steps of the writes of a task that were begun, and of which nobody has said how they ended."""
    found: set[int] = set()
    for entry in sim.entries:
        said = entry.body
        if isinstance(said, m.ToolIntended) and said.task == task:
            found.add(said.step)
        elif (isinstance(said, m.ToolCalled) and said.task == task and said.failure is None) or (
            isinstance(said, m.ReviewDecided) and said.task == task and said.decision in (m.Decision.DONE, m.Decision.NOT_DONE)
        ):
            found.discard(said.step)
    return found


def random_run(seed: int, asked: m.RunRequested, trouble: float = 0.2) -> Simulation:
    """A random life from its beginning to its end."""
    *_, sim = random_life(seed, asked, trouble)
    return sim


def random_life(seed: int, asked: m.RunRequested, trouble: float = 0.2) -> Iterator[Simulation]:
    """A run whose hosts call models within their leases, and tools, fail, stop, are lost, delegate nothing, and answer in any order.

    Now and then another coordinator takes it over, and a task waits for a person, who takes time to decide. It is given out before every
    step, and after the last.
    """
    dice = random.Random(seed)
    sim = Simulation(asked, room=dice.randint(1, 6), check=within_limits)
    leases: dict[tuple[str, int], list[int]] = {}
    waiting: set[tuple[str, int]] = set()
    short: dict[tuple[str, int], Usage] = {}
    heard = 0
    for step in range(20_000):
        yield sim
        if sim.ended:
            return
        for one in sim.dispatch():
            leases[one.task, one.attempt] = [one.lease.model_calls if one.lease else 0, 0]
        news, heard = sim.said[heard:], len(sim.said)
        for message in news:
            if isinstance(message, m.LeaseGranted):
                leases[message.task, message.attempt][0] += message.lease.model_calls
                if message.limit:
                    short[message.task, message.attempt] = message.lease
                waiting.discard((message.task, message.attempt))
            elif isinstance(message, m.LeaseDenied):
                waiting.discard((message.task, message.attempt))
                failure = Failure(verdict=Verdict.BUDGET, message="no room")
                sim.say(m.TaskEnded(task=message.task, attempt=message.attempt, failure=failure))
        at_work = [(name, one.attempt) for name, one in sim.state.tasks.items() if one.at_work]
        busy = [key for key in at_work if key not in waiting]
        for name in [name for name, one in sim.state.tasks.items() if one.phase is Phase.IN_REVIEW]:
            if not busy or dice.random() < 0.1:
                asked = sim.state.tasks[name].review
                assert asked is not None
                sim.say(m.ReviewDecided(task=name, step=asked.step, decision=dice.choice(list(m.Decision)), result="7", user="ada"))
        if not busy:
            if at_work and sim.state.drawing is None:
                assert any(isinstance(one, (m.LeaseGranted, m.LeaseDenied)) for one in sim.said[heard - 50 :]), "everybody waits"
            continue
        task, attempt = key = dice.choice(busy)
        roll = dice.random()
        lease = leases[key]
        if roll < trouble / 20:
            sim.say(m.RunResumed(epoch=step + 2))
        elif roll < trouble / 4:
            sim.say(m.AttemptsLost(host="h1", tasks=(key,), returned=dice.random() < 0.5))
        elif roll < trouble / 3:
            sim.say(review(task, attempt))
            if dice.random() < 0.7:  # else the end of the attempt is lost with its host
                sim.finish(task, failure=Failure(verdict=Verdict.EFFECT_IN_DOUBT, message="in doubt"))
        elif roll < trouble:
            sim.finish(task, failure=Failure(verdict=Verdict.PROVIDER, message="no", retryable=dice.random() < 0.7))
        elif roll < 0.4:
            sim.finish(task, output=step)
        elif roll < 0.47:
            ran = dice.random() < 0.8
            sim.say(m.ToolCalled(task=task, attempt=attempt, step=step, call=ToolCall(id="c", name="look", arguments={}), ran=ran))
        elif roll < 0.5:
            call = ToolCall(id="c", name="pay", arguments={"to": step})
            sim.say(m.ToolIntended(task=task, attempt=attempt, step=step, call=call, key=f"run-1/{task}/{step}"))
            if dice.random() < 0.6:  # else its end is not known
                sim.say(m.ToolCalled(task=task, attempt=attempt, step=step, call=call, effect="write"))
        elif lease[0] > 0 or not sim.state.ledger.limited:
            lease[0] = max(lease[0] - 1, 0)
            most = short.pop(key, CALL)
            used = CALL.model_copy(update={"micros": dice.randint(0, most.micros), "input_tokens": dice.randint(1, most.input_tokens)})
            sim.say(m.ModelCalled(task=task, attempt=attempt, step=lease[1], model="x:y", request="r", usage=used))
            lease[1] += 1
        else:
            lease[1] += 1
            waiting.add(key)
            sim.say(m.LeaseAsked(task=task, attempt=attempt, ask=lease[1], need=CALL, least=dice.choice([None, SHORT])))
    raise AssertionError("the run does not end")


def spent(state: RunState) -> Usage:
    """The run's own account, as the journal's sums should have it."""
    return Usage(model_calls=state.ledger.accounts[RUN].settled[2])


TREE = MergeSpec(kind="tree", fan_in=3)
