"""Figures of merit: pure functions over predictions, their per-example sums, and intervals by resampling."""
