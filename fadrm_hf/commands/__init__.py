"""The commands of `fadrm-hf`, one module for each family; `fadrm_hf.cli` finds them by name."""
