"""The optimisation of images: the one loop, what is matched, and how it is made fast."""
