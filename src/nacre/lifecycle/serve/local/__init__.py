"""Models of ours behind the gateway: checkpoints, rungs, classifiers and indexes, each with a queue and one thread."""
