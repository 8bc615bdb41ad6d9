"""The optimisation of images: what they begin as, the one loop, what is matched, and how it is made fast.

What a method composes may enter, and nothing that belongs to one method alone.
"""
