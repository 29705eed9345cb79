"""What the framework costs, as multiples of what the same machine can do without it. ``python -m tests.bench --help``."""
