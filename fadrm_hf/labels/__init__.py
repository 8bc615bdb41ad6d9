"""Soft labels: making them from views and teachers, and the codecs that store them."""
