"""The gallery of an artifact: a page that shows its images, what they came from, and what was measured with them.

It is a folder of static files, opened from disk as well as from a server, which asks nobody else for anything.
"""

from fadrm_hf.report.gallery.comparison import write_comparison
from fadrm_hf.report.gallery.sheets import RECORD
from fadrm_hf.report.gallery.writing import fetch_for_gallery, pages_of, refresh_gallery, write_gallery

__all__ = [
    "RECORD",
    "fetch_for_gallery",
    "pages_of",
    "refresh_gallery",
    "write_comparison",
    "write_gallery",
]
