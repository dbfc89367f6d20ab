"""The parts of align.py."""
