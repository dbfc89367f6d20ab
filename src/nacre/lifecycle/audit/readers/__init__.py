"""Readers of foreign files: headers are checked strictly and within bounds, values are read by range, no code is run.

`files.py` bytes; `strict_json.py` JSON; `dtypes.py` numbers; `ranges.py` the one source of tensors that every format
describes its extents for; `safetensors.py`, `torch_zip.py` with `torch_pickle.py`, `gguf.py` formats; `index.py`
shards; `folder.py` what a folder holds; `digest.py` hashes.
"""
