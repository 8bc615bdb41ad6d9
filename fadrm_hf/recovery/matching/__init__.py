"""Matched statistics: measuring them on real images, and the distance of a batch to them."""
