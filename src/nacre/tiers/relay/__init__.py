"""Tier 1, relay: the task is handed to an engine as it is; nothing is learnt from the training rows."""
