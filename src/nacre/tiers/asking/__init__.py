"""How an engine is asked for the answer to a row: in words, by log-probabilities of labels, or by vectors.

`wording` lays a task out as messages, `parsing` reads what was written, `asking` does the asking, `vectors` the
nearness of embeddings, `kept` what a rung must keep of its task, `services` the terms of engines that others run.
"""
