"""The audit: stage by stage, what an artifact derives from, with calibrated error rates, from files alone."""
