"""The tiers: from a classical baseline (0) over tuning (4) to an own pretrained kernel (5)."""
