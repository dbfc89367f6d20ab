"""Rewards: functions from answers to numbers, one class each, by name in `catalogue.py`."""
