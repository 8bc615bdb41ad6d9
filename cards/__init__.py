"""Templates of cards, study reports and the page of results, filled in by the code in `fadrm_hf`; no code here."""
