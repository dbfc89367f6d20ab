"""Tier 3: retrieval. Documents are read, cut, indexed for words and meaning, and searched; answers cite their place."""
