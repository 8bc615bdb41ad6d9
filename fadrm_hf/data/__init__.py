"""Real images: sources, the class map, tables of images, views.

Code that reads, decodes or crops images belongs here; networks do not.
"""
