"""The rank side: what each process of a training run does.

Read `__main__.py`, then `loop.py`; everything else is one idea a file. This package and the
benchmark's workers are the only ones that import torch and Horovod, and the modules that
prepare and describe data (`sources`, `prepare`, `shards`, `tokenizer`, `presets`) do without.
"""
