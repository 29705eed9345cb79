"""Attribution: which agent and which step made a piece of work fail. An opinion with a confidence, never a fact."""
