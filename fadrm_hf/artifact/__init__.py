"""The artifact, which is the run folder and the Hub repository: manifest, tables, recorded source and teachers.

Enters what reads or writes one, wherever it is.
"""
