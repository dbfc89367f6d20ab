"""Measure a model: metrics with intervals, checks of generated text, and one report that opens offline."""
