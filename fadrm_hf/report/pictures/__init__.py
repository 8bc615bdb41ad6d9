"""PNG files whose bytes depend on what they show and on the version of matplotlib, not on when they were drawn."""

from fadrm_hf.report.pictures.accuracy import draw_accuracy, draw_comparison, draw_ranking
from fadrm_hf.report.pictures.card import write_pictures
from fadrm_hf.report.pictures.curves import Series, StoredLabels, draw_axis, draw_images_per_class, draw_label_bytes
from fadrm_hf.report.pictures.images import draw_grid, draw_information, draw_recovery

__all__ = [
    "Series",
    "StoredLabels",
    "draw_accuracy",
    "draw_axis",
    "draw_comparison",
    "draw_grid",
    "draw_images_per_class",
    "draw_information",
    "draw_label_bytes",
    "draw_ranking",
    "draw_recovery",
    "write_pictures",
]
