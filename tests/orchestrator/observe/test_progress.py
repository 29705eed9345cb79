"""Live progress, on a terminal and off it."""

import io

from rich.console import Console

from orchestrator.observe.progress import Progress
from protocols import codec
from protocols import messages as m
from protocols.envelope import Envelope


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def envelopes(story):
    return [Envelope(entry.run, entry.seq, entry.at, codec.unpack(entry.body)) for entry in story.journal.read(story.run)]


def test_off_a_terminal_lines_are_plain_and_rare(everything):
    console, clock = Console(file=io.StringIO(), width=200), Clock()
    with Progress(console, everything.run, clock=clock) as progress:
        for envelope in envelopes(everything):
            clock.now += 0.3
            progress.show(envelope)
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= len(envelopes(everything)) * 0.3 / 2 + 4
    assert any("✗ file:c · code_error: ValueError: no licence file" in line for line in lines)
    assert lines[-1].endswith("7 tasks: 5 done, 2 failed · 5 model calls, 1 tool call · 500 in, 100 out · $0.00015")
    assert "\x1b" not in console.file.getvalue()


def test_nothing_is_written_when_nothing_changed(everything):
    console, clock = Console(file=io.StringIO(), width=200), Clock()
    with Progress(console, everything.run, clock=clock) as progress:
        for envelope in envelopes(everything):
            progress.show(envelope)
        clock.now = 10
        progress.show(envelopes(everything)[-1])
        before = console.file.getvalue()
        clock.now = 20
        progress.show(envelopes(everything)[-1])
        assert console.file.getvalue() == before


def test_on_a_terminal_a_panel_shows_states_money_and_the_last_line_of_output(everything):
    console = Console(file=io.StringIO(), width=120, force_terminal=True, _environ={"TERM": "xterm-256color"})
    with Progress(console, everything.run) as progress:
        for envelope in envelopes(everything):
            progress.show(envelope)
        for text in ("first\nsec", "ond \x1b[31mline"):
            progress.show(Envelope(everything.run, 0, 0, m.PartialOutput(task="read:a", attempt=1, text=text)))
        plain = Console(file=io.StringIO(), width=160)
        plain.print(progress._panel())
    shown = plain.file.getvalue()
    assert "audit" in shown
    assert "5 done, 2 failed" in shown
    assert "$0.00015" in shown
    assert "read:a ▸ second line" in shown


def test_off_a_terminal_the_last_words_of_a_task_are_a_line_now_and_then(everything):
    console, clock = Console(file=io.StringIO(), width=200), Clock()
    with Progress(console, everything.run, clock=clock) as progress:
        for text in ("first\nsec", "ond", " line"):
            clock.now += 1.5
            progress.show(Envelope(everything.run, 0, 0, m.PartialOutput(task="read:a", attempt=1, text=text)))
    lines = console.file.getvalue().splitlines()
    assert [line for line in lines if "▸" in line] == ["read:a ▸ second"]


def test_an_error_is_not_followed_by_a_last_line(everything):
    console = Console(file=io.StringIO(), width=200)
    try:
        with Progress(console, everything.run) as progress:
            for envelope in envelopes(everything):
                progress.show(envelope)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert console.file.getvalue() == ""
