"""Nacre: build, compare and audit products on language models."""

__version__ = "0.1.0"
