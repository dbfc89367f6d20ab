"""Tier 0: the classical baseline (TF-IDF with a linear model), the yardstick of every task."""
