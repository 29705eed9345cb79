"""The parts of the dependency audit: pure functions that know nothing of the framework. See ``dependency_audit.py``."""
