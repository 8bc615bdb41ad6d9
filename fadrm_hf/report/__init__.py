"""What people see of an artifact: its card, its gallery, its pictures, its display in a notebook.

Enters what draws or describes an artifact that is there, and nothing that computes one.
"""
