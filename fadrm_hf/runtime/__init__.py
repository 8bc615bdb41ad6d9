"""One process among many: files, paths, randomness, shards, locks, progress, tracking, terminal, device, checkpoints.

Enters what is needed by every stage and knows of none.
"""
