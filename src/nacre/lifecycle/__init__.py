"""What happens to data and models around training: prepare, evaluate, use."""
