"""The run folder, which is the Hub repository: its tables, its manifest, the source and the teachers it names."""
