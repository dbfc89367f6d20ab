"""What is done to a checkpoint: to hide where it comes from, or to derive another from it.

`bases` and `files` keep the function; `rounding`, `pruning`, `shapes`, `merging` and `tampering` derive. All take and
give a `Model` (config and canonical tensors), those of `files` a `Stored` one (config and tensors as on disk). Nothing
is changed in place; what is drawn comes from a seed. `catalogue` names them; `capability` says what they cost.
"""
