"""An artifact: a run folder, and the same thing as a Hub repository: manifest, tables, recorded source and teachers.

Code that reads or writes artifacts, local or on the Hub, belongs here.
"""
