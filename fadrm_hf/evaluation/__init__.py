"""Measuring artifacts: metrics, saved results, baselines, studies, the papers' tables; nothing here makes an artifact.

`scores.py` has the formulas, `scoring.py` applies them to images, `scorecard.py` to students; `metrics/` only wraps
them for the `evaluate` library. Every study has one shape, `fadrm_hf.evaluation.study`: invalid requests are refused
first, then each row is measured, and one table with its pictures is written. An axis of an ablation is a line of a
file in `recipes/configs/ablations/`.
"""
