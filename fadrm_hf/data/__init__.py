"""Real images and how they are seen: sources, the class map, tables of images, views.

Enters what reads, decodes or crops images, and no network.
"""
