"""The stages of a run in order, from source to artifact, and the plans, estimates and imports around them.

settings.py       a run from the requested settings, in layers
arguments.py      the parsers of runs
job.py            the input of every stage, and this process's units of a stage
patch_stage.py    patches, and the pools that they may be retrieved from
recover_stage.py  the images
relabel_stage.py  the soft labels
stage_costs.py    the seconds and memory that each stage took
estimate.py       what a run will take, before it starts
timing.py         the time of a unit of work
run.py            all of them in order

Every stage writes finished shards to the work folder and skips those that are there, so the same command
resumes an interrupted run; the artifact appears at the end, its manifest last.
"""
