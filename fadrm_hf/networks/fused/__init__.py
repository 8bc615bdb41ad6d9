"""Fused forms of frozen teachers: layers that read each feature map once forward and once backward.

They compute what timm's and torchvision's layers do; `tracing` finds where to insert them.
"""
