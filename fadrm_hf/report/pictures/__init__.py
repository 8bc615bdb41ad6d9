"""PNG files whose bytes depend on their content and on the version of matplotlib, not on the time of drawing."""
