"""Soft labels: what makes them from views and teachers may enter, and the codecs that store them."""
