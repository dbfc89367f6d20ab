"""One way to talk to any model (generate, score, embed), local or remote."""
