"""The command, as people use it: files in, a table, files and pictures out, or one line that says what is wrong."""

import arviz
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from posterax._cli import main
from posterax_mjp import Process

RATES = np.array([[0.0, 0.5, 0.1], [0.3, 0.0, 0.2], [0.0, 0.0, 0.0]])
FIT = ["--time", "years", "--state", "stage", "--subject", "id"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    times = np.arange(7.0)
    states = np.asarray(Process(jnp.asarray(RATES), jnp.asarray([1.0, 0, 0])).sample(times, 60, key=jr.key(0)))
    names = np.array(["well", "ill", "worse"])[states]
    frame = pd.DataFrame({"id": np.repeat(np.arange(60), 7), "years": np.tile(times, 60), "stage": names.ravel()})
    path = tmp_path_factory.mktemp("data") / "panel.csv"
    frame.to_csv(path, index=False)
    return str(path)


def test_a_fit_from_the_command_line(file, tmp_path, capsys):
    jumps = ["--jumps", "well-ill", "well-worse", "ill-well", "ill-worse", "--states", "well", "ill", "worse"]
    assert main(["mjp", "fit", file, *FIT, *jumps, "--method", "laplace", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "60 subjects, 420 rows of 3 states" in said
    assert "-2 log likelihood" in said
    table = pd.read_csv(tmp_path / "estimates.csv", index_col=["what", "which"])
    assert list(table.loc["rates"].index) == ["well->ill", "well->worse", "ill->well", "ill->worse"]
    assert table.loc[("rates", "well->ill"), "lower"] < 0.5 < table.loc[("rates", "well->ill"), "upper"]
    draws = arviz.from_netcdf(str(tmp_path / "draws.nc"))
    assert draws["posterior"]["first_passage_times"].shape[-2:] == (3, 3)
    for picture in ("rates.png", "prevalence.png"):
        assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--time", "year"], "There is no column 'year'"),
        (["--state", "state"], "There is no column 'state'"),
        (["--states", "well", "ill"], "column 'stage': 'worse' is none"),
        (["--entered", "dead"], "`entered` names"),
        (["--jumps", "well-dead"], "no FROM-TO of the states"),
        (["--jumps", "well-ill", "--states", "well", "ill", "worse"], "is impossible on the allowed edges"),
        (["--noise", "2"], "`prob`"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(file, tmp_path, capsys, change, words):
    assert main(["mjp", "fit", file, *FIT, *change, "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("posterax: error: ")
    assert words in said


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert main(["mjp", "fit", str(tmp_path / "none.csv"), *FIT]) == 1
    assert "There is no file" in capsys.readouterr().err
