"""What may be said: typed messages, plans, budgets, failures, and how they are packed. No Ray, no I/O."""
