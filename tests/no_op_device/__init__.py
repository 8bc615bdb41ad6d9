"""A CUDA device that computes nothing, on which the tests run all that a GPU's host does.

`device.c` and the files beside it stand in for CUDA; `running.NoOpDevice.run` calls a function of a test in a process
that loads them before torch, and `watching.watch` counts kernels, waits and copies there, by the line they come from.
"""
