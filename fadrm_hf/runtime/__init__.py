"""Infrastructure of every stage: files, paths, randomness, shards, locks, progress, tracking, device, checkpoints.

Nothing here knows about a particular stage.
"""
