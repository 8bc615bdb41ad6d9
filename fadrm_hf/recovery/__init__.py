"""Optimising images: starting images, the loop, the statistics that are matched.

recover.py       the loop, and how a step weighs its losses
matcher.py       a teacher's logits and statistics loss
regularisers.py  further losses that a method may add
patches/         starting images
matching/        statistics of real images, and the distance to them

These are parts that methods share; what belongs to one method alone is in `methods`.
"""
