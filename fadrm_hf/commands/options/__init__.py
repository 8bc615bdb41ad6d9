"""The options of the commands: one dataclass for each command, whose docstring is the command's help.

A field without a default is an argument, every other field an option. Nothing here imports torch: help, completion and
a mistyped option do not wait for it.
"""
