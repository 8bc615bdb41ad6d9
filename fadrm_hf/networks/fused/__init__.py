"""Fused forms of frozen teachers: what a step of recovery needs of a network, with each map read once each way.

Layers that compute what timm's and torchvision's do may enter, and what finds the places for them in a network.
"""
