"""Parts of benchmarks/masking.py: values with check digits, sentences to put them in, the peer's worker."""
