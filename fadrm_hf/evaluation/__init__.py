"""What artifacts are held against: baselines, comparisons, ablations, applications, and the paper's tables."""
