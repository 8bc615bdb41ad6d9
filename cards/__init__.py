"""Templates of the cards; `fadrm_hf.report.card` fills them."""
