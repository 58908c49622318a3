"""What `--level full` adds: devices, disks and network at work, and a rehearsal of the training.

Each part runs by itself, so that none takes bandwidth from the next; `run.py` has their order.
"""
