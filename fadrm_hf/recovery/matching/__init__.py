"""Matched statistics: what measures them on real images, and how far a batch of images is from them, may enter."""
