"""Matched statistics: which layers, what they have seen of the real images, how far a batch is from it."""
