"""Stage 3: do the weights of one model stem from those of another? One probe per file; `policy.py` concludes.

`side.py` is what a probe reads, `matching.py` the statistics, `delta.py` how the weights differ once aligned.
"""
