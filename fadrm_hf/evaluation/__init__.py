"""What artifacts are worth: metrics, results on file, baselines, studies, the papers' tables; nothing here makes one.

Every study has one shape, `fadrm_hf.evaluation.study`: what cannot work is refused, rows are measured, and one table
with its pictures is written.
"""
