"""The parts of the inbox: pure functions and types that know nothing of teams. See ``inbox.py``."""
