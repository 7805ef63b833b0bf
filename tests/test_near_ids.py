"""Ids of a ground truth that differ from those judged by what is no accident."""

from pathlib import Path

import numpy as np
import pytest

from isc.data.matches import GroundTruth
from isc.data.near_ids import require_same_ids
from isc.errors import InputError

GIVEN = ["Q1", "Q2", "p/q3"], ["R1", "R2", "b.jpg"]


def check(*pairs, distractors=(), given=GIVEN):
    require_same_ids(Path("gt.csv"), GroundTruth(frozenset(distractors), frozenset(pairs)), *given)


@pytest.mark.parametrize(
    ("pairs", "part"),
    [
        ([("Q1.jpg", "R1")], "query id 'Q1.jpg', but 'Q1' is given"),
        ([("Q1", "R1.PNG")], "reference id 'R1.PNG', but 'R1' is given"),
        ([("Q1", "R1"), ("Q2.jpeg", "R2")], "query id 'Q2.jpeg', but 'Q2' is given"),
        ([("Q1", "b")], "reference id 'b', but 'b.jpg' is given"),
        ([("q1", "R1")], "none of its 1 query ids, such as 'q1' for 'Q1' is among the 3 given"),
        ([("q3", "R1")], "none of its 1 query ids, such as 'q3' for 'p/q3'"),
        ([("x", "R1")], "none of its 1 query ids, such as 'x' is among the 3 given, such as 'Q1'"),
        ([("Q1", "r1")], "none of its 1 reference ids, such as 'r1' for 'R1'"),
        ([("Q1", "photos/R2")], "none of its 1 reference ids, such as 'photos/R2' for 'R2'"),
    ],
)
def test_ids_that_are_nearly_the_same_are_refused(pairs, part):
    with pytest.raises(InputError) as caught:
        check(*pairs)
    assert str(caught.value).startswith("gt.csv: ")
    assert part in str(caught.value)


def test_ids_that_differ_by_more_pass():
    check(("Q1", "R1"), ("Q9", "R9"))  # not predicted
    check(("Q1", "elsewhere"))  # a copy that was not found
    check(("Q1", "R1"), distractors=["Q2", "Q7"])
    check(("a.jpg", "b"), given=(["a.jpg", "a"], ["b", "b.jpg"]))  # both are there
    check(("x", "y"), given=([], []))  # nothing is predicted


def test_a_suffix_in_the_ground_truth_is_refused_by_match(place):
    """It gave μAP 0 and exit status 0."""
    vectors = np.eye(3, 8, dtype=np.float32)
    place.hdf5("q.h5", vectors=vectors, image_names=["q0", "q1", "q2"])
    place.hdf5("r.h5", vectors=vectors, image_names=["r0", "r1", "r2"])
    (place / "sound.csv").write_text("q0,r0\nq1,r1\n")
    (place / "suffix.csv").write_text("q0.jpg,r0\nq1.jpg,r1\n")
    both = ("queries=q.h5", "references=r.h5", "k=1")
    assert place.run("match", *both, "ground_truth=sound.csv", "output=out", script=False).status == 0
    for given in (("submission=out/predictions.csv",), (*both, "strict=false")):
        done = place.run("match", *given, "ground_truth=suffix.csv", "output=again", script=False)
        assert done.status == 2
        assert "suffix.csv: query id 'q0.jpg', but 'q0' is given" in done.err
        assert not (place / "again").exists()
