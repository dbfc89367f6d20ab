"""Tier 5: a kernel of a known design, initialised and pretrained on text."""
