"""Vector stores, one file each: see `vectors.py` for what they have in common."""
