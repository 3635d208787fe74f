"""Frames and files in, panel data out, or an error that names row and column."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from posterax_mjp import PanelData, read_dwell_times, read_panel

FRAME = pd.DataFrame(
    {
        "id": [7, 7, 3, 3, 3],
        "t": [0.0, 1.5, 2.0, 2.5, 4.0],
        "s": ["well", "ill", "well", None, "dead"],
        "age": [50, 51, 60, 60, 61],
        "sex": ["f", "f", "m", "m", "m"],
    }
)


def read(frame: Any = FRAME, **more):
    return read_panel(frame, **{"time": "t", "state": "s", "subject": "id", **more})


def test_a_frame_and_a_file(tmp_path):
    panel = read(states=["well", "ill", "dead"], covariates=["age", "sex"], entered=["dead"])
    assert panel.states == ("well", "ill", "dead")
    np.testing.assert_array_equal(panel.state, [0, 1, 0, -1, 2])
    np.testing.assert_array_equal(panel.kind, [0, 0, 0, 0, 2])
    np.testing.assert_array_equal(panel.subjects, [7, 3])
    assert panel.covariate_names == ("age", "sex=m")
    np.testing.assert_array_equal(panel.covariates[:, 1], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(panel.gaps, [1.5, 0.5, 1.5])
    assert panel.horizon == 2
    assert panel.counts().tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    file = tmp_path / "panel.csv"
    FRAME.to_csv(file, index=False)
    again = read(str(file), states=["well", "ill", "dead"])
    np.testing.assert_array_equal(again.state, panel.state)
    assert "2 subjects, 5 rows of 3 states" in repr(again)


def test_subjects_need_not_lie_together_and_rows_can_be_sorted():
    mixed = FRAME.iloc[[2, 0, 3, 1, 4]].reset_index(drop=True)
    panel = read(mixed)
    np.testing.assert_array_equal(panel.subject, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(panel.row, [0, 2, 4, 1, 3])
    backwards = read(FRAME[::-1].reset_index(drop=True), sort=True)
    np.testing.assert_array_equal(backwards.time, [2, 2.5, 4, 0, 1.5])


def test_categories_give_the_order_of_the_states():
    kind = pd.CategoricalDtype(["well", "ill", "dead"])
    assert read(FRAME.assign(s=FRAME.s.astype(kind))).states == ("well", "ill", "dead")
    assert read().states == ("dead", "ill", "well")
    assert read(FRAME.assign(s=[1, 2, 1, 2, 3])).states == ("1", "2", "3")


def test_paths_and_some_subjects():
    states = np.array([[0, 1, -1], [2, -1, 0], [1, 1, 1]])
    panel = PanelData.from_paths(states, [0.0, 1.0, 3.0])
    np.testing.assert_array_equal(panel.time, [0, 1, 0, 3, 0, 1, 3])
    some = panel.of([2, 0])
    np.testing.assert_array_equal(some.state, [1, 1, 1, 0, 1])
    np.testing.assert_array_equal(some.subjects, [2, 0])
    np.testing.assert_array_equal(panel.of(np.array([True, False, False])).state, [0, 1])
    np.testing.assert_array_equal(panel.padded(panel.state, -1), [[0, 1, -1], [2, 0, -1], [1, 1, 1]])


def test_dwell_times():
    frame = pd.DataFrame({"ms": [1.0, 2.0, 0.5, 3.0], "open": [0, 1, 1, 0]})
    panel = read_dwell_times(frame, duration="ms", state="open")
    np.testing.assert_array_equal(panel.time, [0, 1, 3.5, 6.5])
    np.testing.assert_array_equal(panel.state, [0, 1, 0, 0])
    assert (panel.kind == 1).all()


@pytest.mark.parametrize(
    ("frame", "more", "error", "words"),
    [
        (FRAME, {"time": "when"}, KeyError, "no column 'when'; there are"),
        (FRAME, {"state": None}, ValueError, "one of `state` and `signal`"),
        (FRAME[:0], {}, ValueError, "no rows"),
        (FRAME.assign(t=[0, 1, 2, "x", 4]), {}, ValueError, "Row 3, column 't': a number is needed; got 'x'"),
        (FRAME.assign(t=[0, 1, 2, np.nan, 4]), {}, ValueError, "Row 3, column 't': .* a missing cell"),
        (FRAME.assign(t=[0, 1, 4, 2.5, 5]), {}, ValueError, "Row 3, column 't' of subject 3: time 2.5 comes after 4"),
        (FRAME.assign(t=[0, 1, 2, 2, 5]), {}, ValueError, "Row 3, column 't' of subject 3: time 2 is there twice"),
        (FRAME.assign(id=[7, None, 3, 3, 3]), {}, ValueError, "Row 1, column 'id': the subject is missing"),
        (FRAME.assign(age=[1, 2, None, 4, 5]), {"covariates": ["age"]}, ValueError, "Row 2, column 'age'"),
        (FRAME, {"states": ["well", "dead"]}, ValueError, "Row 1, column 's': 'ill' is none of the states"),
        (FRAME.assign(s="well"), {}, ValueError, "name them all with `states=`"),
        (FRAME, {"entered": ["gone"]}, ValueError, r"`entered` names \['gone'\]"),
        (FRAME, {"censored": {"ill": ["wel"]}}, ValueError, r"censored\['ill'\]"),
        ("no_such_file.csv", {}, FileNotFoundError, "no file"),
        (3, {}, TypeError, "frame or the path"),
    ],
)
def test_what_cannot_be_read(frame, more, error, words):
    with pytest.raises(error, match=words):
        read(frame, **more)


@pytest.mark.parametrize(
    ("states", "times", "more", "words"),
    [
        ([[0, 1], [1, 0]], [0.0, 1.0, 2.0], {}, "`times` must have shape"),
        ([[0.5, 1]], [0.0, 1.0], {}, "integers"),
        ([[-1, -1]], [0.0, 1.0], {}, "no label"),
        ([[0, 3]], [0.0, 1.0], {"num_states": 3}, r"`states\[0, 1\]` is 3; there are 3 states"),
        ([[0, 1]], [1.0, 1.0], {}, "path 0, place 1: time 1 is there twice"),
        ([[0, 1]], [0.0, np.nan], {}, "finite"),
        ([[0, 1]], [0.0, 1.0], {"num_states": 3, "names": ["a"]}, "name all 3 states"),
    ],
)
def test_paths_that_cannot_be_read(states, times, more, words):
    with pytest.raises(ValueError, match=words):
        PanelData.from_paths(np.array(states), times, **more)


def test_dwell_times_that_cannot_be_read():
    frame = pd.DataFrame({"ms": [1.0, -2.0], "open": [0, 1]})
    with pytest.raises(ValueError, match="Row 1, column 'ms': a length must be positive"):
        read_dwell_times(frame, duration="ms", state="open")
    with pytest.raises(KeyError, match="no column 'length'"):
        read_dwell_times(frame, duration="length", state="open")
