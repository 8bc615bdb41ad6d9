"""Names: which mean a folder of this machine, and which a repository."""

import pytest
from fixtures.artifacts import make_artifact
from fixtures.runs import files_of

from fadrm_hf.errors import ArtifactError, HubError
from fadrm_hf.hub import open_artifact


@pytest.mark.parametrize("name", ["runs/x", "./runs/x", "./x", "/nowhere/x", "~/runs/x", "x", "runs/a/b"])
def test_a_folder_that_does_not_exist_is_no_repository(name, hub, place):
    (place / "runs").mkdir()
    hub.requests.clear()
    with pytest.raises(ArtifactError, match=r"is no folder.*check the path"):
        open_artifact(name)
    assert hub.requests == []


def test_a_repository_is_reached_where_a_folder_is_called_as_its_owner(hub, place):
    hub.put("org/trees", files_of(make_artifact(place / "made")))
    assert open_artifact("org/trees").name.startswith("org/trees@")
    (place / "org").mkdir()
    with pytest.raises(ArtifactError, match="or write hf://datasets/org/trees for the repository"):
        open_artifact("org/trees")
    for name, revision in (("hf://datasets/org/trees", None), ("org/trees@main", None), ("org/trees", "main")):
        assert open_artifact(name, revision).name.startswith("org/trees@")
    with pytest.raises(HubError, match="no such repository"):
        open_artifact("other/trees")
