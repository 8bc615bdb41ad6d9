"""Random generators derived from (seed, stage, what is drawn for): every random choice of a run comes from one.

So results do not depend on how many processes there are, on the order of work, or on being interrupted.
"""

import hashlib

import torch


def derive_seed(seed: int, *key: str | int) -> int:
    """Return a 63-bit seed from `seed` and the parts of `key` (stage, shard, epoch), stable across platforms."""
    text = "\x1f".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *key: str | int) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, *key))
