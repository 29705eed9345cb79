"""The parts of the research example: the corpus, its index, questions, the critic's rules and the report. See ``research.py``."""
