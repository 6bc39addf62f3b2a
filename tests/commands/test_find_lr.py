"""bert find-lr: the rate that rises, the curve, and what is told of it."""

import csv
import math
import struct
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import run_stage

from bert_toolkit.commands import find_lr
from bert_toolkit.errors import UserError
from bert_toolkit.tasks import range_test

RATES = np.geomspace(1e-7, 1e-1, 121)


def curve(losses):
    losses = np.array(losses)
    return range_test.Curve(RATES[: len(losses)], losses, losses, False)


def test_the_rate_rises_by_a_factor_a_step():
    training = range_test.RisingRate(1e-1, 7, 0, lowest_rate=1e-7)
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.get_or_create_global_step()
        rate = training.rate()
        found = []
        for number in range(7):
            session.run(step.assign(number))
            found.append(session.run(rate))
    assert found == pytest.approx([1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1], rel=1e-4)
    assert training.rates() == pytest.approx(found, rel=1e-4)


def test_smoothing_moves_nothing_sideways():
    sharp = np.zeros(81)
    sharp[40] = 1.0
    smoothed = range_test.smooth(sharp, 4.0)
    assert smoothed.argmax() == 40
    assert smoothed == pytest.approx(smoothed[::-1])
    # Far from the ends, the density of a normal distribution; a constant stays.
    density = np.exp(-0.5 * (np.arange(-40, 41) / 4.0) ** 2) / (4.0 * math.sqrt(2 * math.pi))
    assert smoothed[25:56] == pytest.approx(density[25:56], rel=1e-3)
    assert range_test.smooth(np.full(30, 0.7), 3.0) == pytest.approx(np.full(30, 0.7))


def test_steepest_is_where_a_sigmoid_turns():
    """A loss that falls as a sigmoid of the logarithm of the rate, and then rises again."""
    powers = np.log10(RATES)
    falling = 0.7 - 0.5 / (1 + np.exp(-6 * (powers + 4.0)))  # turns at 1e-4
    rising = np.where(powers > -2.0, 3 * (powers + 2.0), 0.0)  # faster than it falls
    found = curve(falling + rising)
    assert math.log10(found.steepest()) == pytest.approx(-4.0, abs=0.05)
    assert math.log10(found.least()) == pytest.approx(-2.0, abs=0.1)


def test_a_loss_that_only_rises_has_no_steepest_fall():
    found = curve(np.linspace(0.7, 2.0, 50))
    assert math.isnan(found.steepest())
    assert "none: the loss does not fall" in find_lr._told(found)


def test_when_the_loss_diverges():
    flat = [0.7] * 30
    assert not range_test.diverges(flat)
    assert not range_test.diverges([*flat, 5.0])  # one bad batch
    assert range_test.diverges([*flat, *[5.0] * 10])
    assert not range_test.diverges([0.01, *[5.0] * 5])  # too early to say


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_ends_the_test(loss):
    watch = range_test._Watch()
    context = tf.train.SessionRunContext(None, None)
    watch.after_run(context, tf.train.SessionRunValues(0.7, None, None))
    assert not context.stop_requested
    watch.after_run(context, tf.train.SessionRunValues(loss, None, None))
    assert context.stop_requested
    assert (watch.losses, watch.has_diverged) == ([0.7], True)


def test_the_range_must_rise(tmp_path):
    with pytest.raises(UserError, match="--lowest_rate=0.1 is not below --highest_rate=0.01; the"):
        find_lr.Options(train_file="a.tsv", output_dir="out", lowest_rate=0.1, highest_rate=0.01)


@pytest.mark.slow
def test_a_range_test_as_a_user_runs_it(tmp_path, reviews, model_dir):
    out = tmp_path / "out"
    flags = {
        "train_file": reviews / "train.tsv",
        "bert_dir": model_dir,
        "output_dir": out,
        "max_seq_length": 32,
        "train_batch_size": 8,
        "range_steps": 60,
        "log_every_steps": 1,
    }
    result = run_stage("find_lr", flags)
    assert result.returncode == 0, result.stderr
    with open(out / "lr_range.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    expected = np.geomspace(1e-7, 1e-1, 60)[: len(rows)]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(expected, rel=1e-5)
    assert float(rows[0]["loss"]) == pytest.approx(math.log(2), abs=0.05)
    # The log of the training step itself says the same rates and losses.
    logged = [line.split(", ") for line in result.stderr.splitlines() if line.startswith("step ")]
    assert len(logged) == len(rows)
    for row, (first, *others) in zip(rows, logged):
        assert float(first.split("loss ")[1]) == pytest.approx(float(row["loss"]), abs=1e-4)
        [rate] = [part.split()[1] for part in others if part.startswith("learning_rate")]
        assert float(rate) == pytest.approx(float(row["learning_rate"]), rel=0.01)
    assert "suggested        --learning_rate=" in result.stdout
    # It leaves no model, and no data.
    assert {path.suffix for path in out.iterdir()} <= {".tsv", ".png"}


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    find_lr._write(str(tmp_path), curve(np.linspace(0.7, 0.2, 50)))
    picture = (tmp_path / "lr_range.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 600
    assert height > 400


def test_without_matplotlib_there_is_the_table(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    find_lr._write(str(tmp_path), curve(np.linspace(0.7, 0.2, 50)))
    assert [path.name for path in tmp_path.iterdir()] == ["lr_range.tsv"]
    assert "matplotlib is not installed; pip install 'bert-toolkit[plot]'" in caplog.text
