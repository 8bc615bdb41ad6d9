"""Networks: teachers, students, networks for small images, and their fused forms for recovery.

Enters what builds, loads or trains a network by itself, and nothing that optimises images.
"""
