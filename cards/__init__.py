"""Templates of the cards; `fadrm_hf.card` fills them."""
