"""Tier 4: a given kernel fine-tuned on a task."""
