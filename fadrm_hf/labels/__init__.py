"""Soft labels: made by teachers, stored by a codec, streamed to a student."""
