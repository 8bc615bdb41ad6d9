"""Templates of the cards, which `fadrm_hf.report.card` fills in; enters text alone, and no code."""
