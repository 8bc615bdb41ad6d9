"""Complete runs, comparisons, sweeps and protocols; the installed library carries them as `fadrm_hf.recipes`."""
