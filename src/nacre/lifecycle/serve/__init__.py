"""The gateway: local models, rungs, indexes and upstreams behind one OpenAI-compatible address."""
