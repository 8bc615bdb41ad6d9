"""What artifacts are worth: metrics, results on file, baselines, comparisons, studies, and the papers' tables."""
