"""The stages of a run, from source to artifact: teachers, statistics, votes, patches, recover, relabel, package.

job.py       what every stage is given, and the units of a stage that this process gets
starts.py    patches, and the pools that they may be retrieved from
recovery.py  the images
labels.py    the soft labels
costs.py     seconds and memory of each stage
line.py      all of them in order

Every stage writes finished shards beside the run folder and skips those that are there, so the same command goes on
where it was interrupted; the artifact appears at the end, its manifest last.
"""

from fadrm_hf.pipeline.run import Ballot, Line, Vote, recipe_of

__all__ = ["Ballot", "Line", "Vote", "recipe_of"]
