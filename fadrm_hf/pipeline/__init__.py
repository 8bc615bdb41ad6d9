"""The stages of a run in order, from source to artifact, and what is planned, estimated or imported around them.

settings.py       a run from what is asked for, in layers
arguments.py      the parsers of runs
job.py            what every stage is given, and the units of a stage that this process gets
patch_stage.py    patches, and the pools that they may be retrieved from
recover_stage.py  the images
relabel_stage.py  the soft labels
costs.py          seconds and memory of each stage
run.py            all of them in order

Every stage writes finished shards beside the run folder and skips those that are there, so the same command goes on
where it was interrupted; the artifact appears at the end, its manifest last.
"""
