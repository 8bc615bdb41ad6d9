"""Soft labels: made by teachers, and stored by a codec."""
