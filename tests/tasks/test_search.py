"""bert search: spaces, what is tried next, the record, and searches as a user runs them."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT, run_stage

import bert_toolkit
from bert_toolkit.commands import check_learning, find_lr, search
from bert_toolkit.errors import UserError
from bert_toolkit.options import options_of
from bert_toolkit.tasks import best_model
from bert_toolkit.tasks.search import proposals, space, trials
from bert_toolkit.tasks.search.record import COMPLETE, FAILED, PRUNED, RUNNING, Record, Trial

# --- The space ---


def parse(*texts):
    return space.parse(texts, search.searchable())


def test_a_space_of_values_and_ranges():
    found = parse(
        "train_batch_size=16,32,16",
        "learning_rate=1e-5..1e-4:log",
        "warmup_proportion = 0..0.2",
        "optimizer=adamw,lamb",
        "adam_bias_correction=true,false",
        "seed=1..3",
    )
    assert [(one.name, one.values, one.range) for one in found] == [
        ("train_batch_size", (16, 32), None),
        ("learning_rate", (), (1e-5, 1e-4, True)),
        ("warmup_proportion", (), (0.0, 0.2, False)),
        ("optimizer", ("adamw", "lamb"), None),
        ("adam_bias_correction", (True, False), None),
        ("seed", (), (1, 3, False)),
    ]
    assert isinstance(found[5].range.low, int)


def test_without_a_space_the_papers_grid():
    points = list(space.grid(parse(*space.PAPERS_GRID)))
    assert len(points) == 18
    assert points[0] == {
        "train_batch_size": 16,
        "learning_rate": 5e-5,
        "num_train_epochs": 2.0,
    }
    assert {tuple(point.values()) for point in points} == {
        (batch, rate, epochs)
        for batch in (16, 32)
        for rate in (2e-5, 3e-5, 5e-5)
        for epochs in (2, 3, 4)
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["learning_rate"], "--space=learning_rate: expected an option and its values: learning_"),
        (["learning_rate="], "--space=learning_rate=: expected an option and its values"),
        (["learning_rat=1"], "learning_rat is no number or choice .*; did you mean learning_rate?"),
        (
            ["output_dir=a,b"],
            "output_dir is no number or choice of how a model is .*; expected one",
        ),
        (["keep_checkpoint_max=1"], "keep_checkpoint_max is no number or choice"),
        (["train_batch_size=16,x"], "--space=train_batch_size=16,x: 'x'; expected whole numbers"),
        (["train_batch_size=0"], "--space=train_batch_size=0: 0; expected at least 1"),
        (["learning_rate=nan"], "--space=learning_rate=nan: nan; expected at least 0"),
        (["warmup_proportion=2"], "2; expected at least 0 and at most 1"),
        (["optimizer=adam"], "'adam'; expected some of adamw, lamb"),
        (["oversample=yes"], "'yes'; expected true or false"),
        (["optimizer=a..b"], "optimizer is no number; list its values"),
        (["learning_rate=1e-4..1e-5"], "expected the smaller number first"),
        (["learning_rate=0..1e-5:log"], "expected numbers above 0 with :log"),
        (["learning_rate=1e-5..inf"], "--space=learning_rate=1e-5..inf: inf; expected finite numb"),
        (["learning_rate=1e-5,inf"], "inf; expected finite numbers"),
        (["seed=1", "seed=2"], "--space=seed=...: given twice; put all values of it into one"),
    ],
)
def test_bad_spaces(texts, message):
    with pytest.raises(UserError, match=message):
        parse(*texts)


OPTIONS = {"train_file": "a.tsv", "eval_split": 0.1, "output_dir": "out", "bert_dir": "model"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"eval_split": 0.0}, "nothing to choose by: pass --eval_file or --eval_split=0.1"),
        ({"num_runs": 3}, "--num_runs: seeds are searched as other options: --space=seed=1,2,3"),
        ({"method": "optuna"}, "--method=optuna: when to end. pass --num_trials or --max_hours"),
        ({"checkpoint": "a/model.ckpt-1"}, "--checkpoint=a/model.ckpt-1: each trial has models"),
        ({"space": ["seed=1..3"]}, "--space=seed=...: a grid has no ranges; list values, or pass"),
        (
            {"space": ["gradient_accumulation_steps=1,5"]},
            "gradient_accumulation_steps=5: --train_batch_size=32 is no multiple of",
        ),
    ],
)
def test_what_does_not_go_together(flags, message):
    with pytest.raises(UserError, match=message):
        search.run(search.Options(**{**OPTIONS, **flags}))


def test_the_command_line_that_repeats_a_trial_gives_its_options():
    options = search.Options(
        **{**OPTIONS, "train_file": "my file.tsv", "freeze": ["embeddings", "0-1"]},
        method="optuna",
        num_trials=3,
        remove_padding=False,
        overwrite=True,
    )
    values = {"learning_rate": 3.14e-5, "seed": 7, "adam_bias_correction": True}
    words = shlex.split(search.repeat(options, values))
    assert words[:2] == ["bert", "classify"]
    assert set(words[2:]) == {
        "--train_file=my file.tsv",
        "--eval_split=0.1",
        "--split_seed=12345",  # the division is that of the search, whatever the seed
        "--output_dir=out/again",
        "--bert_dir=model",
        "--freeze=embeddings,0-1",
        "--noremove_padding",
        "--learning_rate=3.14e-05",
        "--seed=7",
        "--adam_bias_correction",
    }


@pytest.mark.parametrize("module", [search, find_lr, check_learning])
def test_learning_curve_is_no_option_of_these(module):
    assert "learning_curve" not in options_of(module.Options)


# --- The record ---


def record_of(directory, trials, searched=("learning_rate",), **fixed):
    record = Record(str(directory), searched, {"max_seq_length": 64, **fixed}, "accuracy")
    record.trials = trials
    return record


def test_the_record_is_read_as_it_was_written(tmp_path):
    trials = [
        Trial(1, {"learning_rate": 3e-5}, COMPLETE, 0.75, 12.34, [[10, 0.5], [20, 0.75]]),
        Trial(2, {"learning_rate": 1.0}, FAILED, None, 1.0, [], "the loss is not a number"),
        Trial(3, {"learning_rate": 5e-5}, RUNNING),
        Trial(4, {"learning_rate": 1e-5}, PRUNED, 0.9),
        Trial(5, {"learning_rate": 2e-5}, COMPLETE, 0.8),
    ]
    record_of(tmp_path, trials).write()
    again = record_of(tmp_path, [])
    assert again.read()
    assert again.trials == trials
    assert again.unfinished() == trials[2]
    # A pruned trial is no candidate, however it stood.
    assert again.ranked(lower_is_better=False) == [trials[4], trials[0]]
    assert again.ranked(lower_is_better=True) == [trials[0], trials[4]]
    lines = [line.split("\t") for line in (tmp_path / "trials.tsv").read_text().splitlines()]
    assert lines[0] == ["trial", "state", "eval_accuracy", "seconds", "learning_rate"]
    assert lines[1] == ["trial_1", "complete", "0.750000", "12.3", "3e-05"]
    assert lines[2] == ["trial_2", "failed", "", "1.0", "1"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"max_seq_length": 32}, "the trials there had --max_seq_length=64, now 32; pass the same"),
        ({"searched": ("seed",)}, "the trials there tried learning_rate, now seed; pass the same"),
    ],
)
def test_another_search_in_the_same_directory(tmp_path, other, message):
    record_of(tmp_path, []).write()
    with pytest.raises(UserError, match=message):
        record_of(tmp_path, [], **other).read()


def test_a_damaged_record(tmp_path):
    (tmp_path / "search.json").write_text('{"trials": [{}]}')
    with pytest.raises(UserError, match=r"search\.json: no record of a search; remove it"):
        record_of(tmp_path, []).read()


# --- What is tried next ---


def run_all(record, source, score_of, count, cut_off_at=None):
    """Runs trials without training: `score_of` gives the scores of a setting's evaluations."""
    trial = record.unfinished()
    while trial or len(record.trials) < count:
        if trial is None:
            values = source.propose()
            if values is None:
                return
            trial = Trial(len(record.trials) + 1, values)
            record.trials.append(trial)
        source.begin(trial)
        for step, score in enumerate(score_of(trial.values)[len(trial.evaluations) :]):
            trial.evaluations.append([step, score])
            trial.score = score
            if (trial.number, len(trial.evaluations)) == cut_off_at:
                return
            if source.is_hopeless(trial):
                trial.state = PRUNED
                break
        if trial.state == RUNNING:
            trial.state = COMPLETE
        source.finish(trial)
        trial = None


def test_a_grid_leaves_out_what_is_done(tmp_path):
    dimensions = parse("learning_rate=1e-5,2e-5", "seed=1,2")
    done = [
        Trial(1, {"learning_rate": 2e-5, "seed": 1}, COMPLETE, 0.5),
        Trial(2, {"learning_rate": 1e-5, "seed": 1}, FAILED),
    ]
    record = record_of(tmp_path, done)
    run_all(record, proposals.Grid(dimensions, record), lambda values: [0.5], 99)
    assert [tuple(trial.values.values()) for trial in record.trials[2:]] == [(1e-5, 2), (2e-5, 2)]


SPACE = ("learning_rate=1e-5..1e-3:log", "train_batch_size=16,32", "seed=1..9")


def study(directory, trials, texts=SPACE, **flags):
    pytest.importorskip("optuna")
    flags = {"seed": 3, "lower_is_better": False, "prunes": True, **flags}
    record = record_of(directory, trials)
    return record, proposals.Optuna(parse(*texts), record, **flags)


def scores(values):
    """Three evaluations; the nearer the rate is to 1e-4, the better."""
    best = 1 - abs(1e-4 - values["learning_rate"]) * 1000
    return [best - 0.2, best - 0.1, best]


@pytest.mark.parametrize("journal", ["kept", "lost", "of other trials"])
def test_a_search_by_optuna_that_was_cut_off_is_the_same(tmp_path, journal):
    whole, source = study(tmp_path / "whole", [])
    run_all(whole, source, scores, 14)
    assert PRUNED in {trial.state for trial in whole.trials}
    first, source = study(tmp_path / "cut", [])
    run_all(first, source, scores, 14, cut_off_at=(9, 1))
    assert first.unfinished().number == 9
    if journal == "lost":
        (tmp_path / "cut" / proposals.JOURNAL).unlink()
    if journal == "of other trials":
        first.trials = first.trials[:4]
    again, source = study(tmp_path / "cut", first.trials)
    run_all(again, source, scores, 14)
    if journal != "of other trials":
        assert [trial.values for trial in again.trials] == [t.values for t in whole.trials]
        assert [trial.state for trial in again.trials] == [t.state for t in whole.trials]
    assert len(again.trials) == 14


def test_optuna_never_repeats_a_setting_and_ends_where_all_are_tried(tmp_path):
    texts = ("train_batch_size=16,32", "seed=1..3")
    record, source = study(tmp_path, [], texts)
    run_all(record, source, lambda values: [values["seed"]], 99)
    tried = [tuple(trial.values.values()) for trial in record.trials]
    assert sorted(tried) == [(batch, seed) for batch in (16, 32) for seed in (1, 2, 3)]


def test_optuna_takes_over_a_grid_and_prunes_by_its_median(tmp_path):
    values = [
        {"learning_rate": rate, "train_batch_size": batch, "seed": 1}
        for rate in (1e-5, 1e-4, 5e-4)
        for batch in (16, 32)
    ]
    grid = [
        Trial(number, one, COMPLETE, 0.5, 1.0, [[10, 0.4], [20, 0.5]])
        for number, one in enumerate(values, 1)
    ]
    record, source = study(tmp_path, list(grid))
    run_all(record, source, lambda values: [0.3, 0.9], 7)
    assert (record.trials[6].state, record.trials[6].score) == (PRUNED, 0.3)
    record, source = study(tmp_path / "all", list(grid), prunes=False)
    run_all(record, source, lambda values: [0.3, 0.9], 7)
    assert (record.trials[6].state, record.trials[6].score) == (COMPLETE, 0.9)


def test_numbers_from_ranges_are_short_and_within(tmp_path):
    record, source = study(tmp_path, [])
    run_all(record, source, scores, 20)
    for trial in record.trials:
        rate = trial.values["learning_rate"]
        assert 1e-5 <= rate <= 1e-3
        assert rate == float(f"{rate:.2e}")


def test_without_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"needs Optuna .*pip install 'bert-toolkit\[search\]'"):
        proposals.Optuna(parse(*SPACE), record_of(tmp_path, []), 1, False, False)


# --- Trials ---


class Training:
    """In place of fine-tuning: leaves a checkpoint and gives the scores that are listed."""

    def __init__(self, record, model_dir, scores):
        self._record, self._model, self._scores = record, model_dir, scores
        self.calls = []

    def __call__(self, trial, goes_on, on_evaluation):
        self.calls.append((trial.number, goes_on))
        directory = pathlib.Path(self._record.directory, trial.name)
        directory.mkdir(exist_ok=True)
        for path in self._model.iterdir():
            shutil.copy(path, directory / path.name.replace("bert_model.ckpt", "model.ckpt-1"))
        (directory / "task.json").write_text('{"metric": "accuracy"}')
        tf.train.update_checkpoint_state(str(directory), str(directory / "model.ckpt-1"))
        score = self._scores[trial.number - 1]
        if isinstance(score, BaseException):
            raise score
        return {"eval_accuracy": score}


def run_trials(tmp_path, model_dir, scores):
    record = record_of(tmp_path / "out", [], searched=("seed",))
    trials.open_record(record, resume=True, overwrite=False)
    training = Training(record, model_dir, scores)
    source = proposals.Grid(parse("seed=1,2,3"), record)
    trials.Trials(record, source, training).run(trials.Limits(None, None), 3)
    return record, training


def states(record):
    return [(trial.number, trial.state, trial.score) for trial in record.trials]


def test_a_score_that_is_no_number_fails_a_trial_alone(tmp_path, model_dir):
    record, _ = run_trials(tmp_path, model_dir, [float("nan"), 0.5, 0.25])
    assert states(record) == [(1, FAILED, None), (2, COMPLETE, 0.5), (3, COMPLETE, 0.25)]
    assert record.trials[0].problem == "eval_accuracy is not a number"
    assert tf.train.latest_checkpoint(str(tmp_path / "out" / "best"))
    assert not list(tmp_path.rglob("trial_*/*.index"))


def test_values_that_do_not_go_together_fail_a_trial_alone(tmp_path, model_dir):
    options = search.Options(**OPTIONS, method="optuna", num_trials=3)
    values = {"train_batch_size": 16, "gradient_accumulation_steps": 5}
    with pytest.raises(space.SettingError) as caught:
        search.trial_options(options, Trial(1, values), goes_on=False)
    record, _ = run_trials(tmp_path, model_dir, [caught.value, 0.5, 0.25])
    assert states(record) == [(1, FAILED, None), (2, COMPLETE, 0.5), (3, COMPLETE, 0.25)]
    assert "gradient_accumulation_steps=5: --train_batch_size=16 is no" in record.trials[0].problem


def test_an_error_of_the_data_ends_the_search_and_its_trial_begins_anew(tmp_path, model_dir):
    with pytest.raises(UserError, match="no space"):
        run_trials(tmp_path, model_dir, [0.5, UserError("no space left"), 0.25])
    record, training = run_trials(tmp_path, model_dir, [None, 0.75, 0.25])
    assert states(record) == [(1, COMPLETE, 0.5), (2, COMPLETE, 0.75), (3, COMPLETE, 0.25)]
    assert training.calls == [(2, False), (3, False)]


def test_a_trial_that_is_cut_off_while_its_model_is_kept_goes_on(tmp_path, model_dir, monkeypatch):
    def cut_off(checkpoint, directory):
        raise SystemExit(143)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(best_model, "keep", cut_off)
        run_trials(tmp_path, model_dir, [0.5, 0.25, 0.25])
    record, training = run_trials(tmp_path, model_dir, [0.5, 0.25, 0.25])
    assert training.calls == [(1, True), (2, False), (3, False)]
    assert states(record)[0] == (1, COMPLETE, 0.5)


@pytest.mark.parametrize(("limits", "count"), [((2, None), 2), ((None, 0.0), 0), ((9, 1e9), 3)])
def test_limits(tmp_path, model_dir, limits, count):
    record = record_of(tmp_path, [], searched=("seed",))
    training = Training(record, model_dir, [0.5] * 3)
    source = proposals.Grid(parse("seed=1,2,3"), record)
    trials.Trials(record, source, training).run(trials.Limits(*limits), None)
    assert len(record.trials) == count


def test_to_begin_anew_or_not_to_go_on(tmp_path, model_dir):
    record, _ = run_trials(tmp_path, model_dir, [0.5] * 3)
    with pytest.raises(UserError, match="--noresume, but .*search.json is there; pass --resume"):
        trials.open_record(record, resume=False, overwrite=False)
    (tmp_path / "out" / "mine.txt").write_text("stays")
    trials.open_record(record_of(tmp_path / "out", []), resume=True, overwrite=True)
    left = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert left <= {"mine.txt", "best"}


@pytest.mark.parametrize("content", ["{", "[]", '{"trials": [{}]}'])
def test_to_begin_anew_where_the_record_is_damaged(tmp_path, caplog, content):
    (tmp_path / "search.json").write_text(content)
    trials.open_record(record_of(tmp_path, []), resume=True, overwrite=True)
    assert not (tmp_path / "search.json").exists()
    assert "no record of a search; directories of trials are left" in caplog.text


def test_a_model_of_no_search_in_the_directory_of_a_trial_stays(tmp_path, model_dir):
    record = record_of(tmp_path / "out", [])
    training = Training(record, model_dir, [0.5])
    (tmp_path / "out").mkdir()
    training(Trial(1, {}), False, None)
    with pytest.raises(UserError, match="out/trial_1: a trained model is in it, which is of no"):
        trials.open_record(record, resume=True, overwrite=False)
    trials.open_record(record, resume=True, overwrite=True)


# --- A search ---


def flags_of(reviews, model_dir, out, **flags):
    return {
        "train_file": reviews / "train.tsv",
        "eval_file": reviews / "dev.tsv",
        "bert_dir": model_dir,
        "output_dir": out,
        "max_seq_length": 32,
        "train_batch_size": 8,
        "num_train_epochs": 20,
        **flags,
    }


RATES = ("--space=learning_rate=1e-9,2e-3,1e-3",)


def test_a_trained_model_of_no_search_stays(tmp_path, reviews, model_dir):
    checkpoint = tf.train.latest_checkpoint(str(model_dir)) or str(model_dir / "bert_model.ckpt")
    tf.train.update_checkpoint_state(str(model_dir), checkpoint)
    flags = {
        name: str(value) if isinstance(value, pathlib.Path) else value
        for name, value in flags_of(reviews, model_dir, model_dir, space=["seed=1,2"]).items()
    }
    with pytest.raises(UserError, match="a trained model is in it, which is of no search"):
        search.run(search.Options(**flags))


@pytest.mark.slow
def test_a_search_that_is_stopped_goes_on_and_keeps_the_best(tmp_path, reviews, model_dir):
    out = tmp_path / "out"
    flags = flags_of(reviews, model_dir, out, log_every_steps=1)
    words = [f"--{name}={value}" for name, value in flags.items()]
    command = [sys.executable, "-m", "bert_toolkit.commands.search", *words, *RATES]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    in_second = False
    for line in process.stderr:
        in_second |= line.startswith("trial 2 of 3")
        if in_second and line.startswith("step 5/"):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(100) == 143, rest
    before = json.loads((out / "search.json").read_text())["trials"]
    assert [trial["state"] for trial in before] == ["complete", "running"]

    result = run_stage("search", flags, *RATES)
    assert result.returncode == 0, result.stderr
    assert "1 trials are done" in result.stderr
    assert "trial 1 of 3" not in result.stderr
    assert re.search(r"going on from .*trial_2.*: step \d+ of 90", result.stderr)
    trials = json.loads((out / "search.json").read_text())["trials"]
    assert trials[0] == before[0]
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    best = max(trials, key=lambda trial: trial["score"])
    assert best["score"] > trials[0]["score"]
    # Of the weights those of the best alone are left.
    kept = {str(path.relative_to(out)) for path in out.rglob("*.ckpt-*.index")}
    assert kept == {"best/model.ckpt-90.index"}
    assert not list(out.rglob("trial_*/*.tf_record"))
    results = json.loads((out / "eval_results.json").read_text())
    assert results["eval_accuracy"] == pytest.approx(best["score"])

    # The command that is printed gives the same model once more.
    [line] = re.findall(r"^  bert classify (.*)$", result.stdout, re.MULTILINE)
    again = run_stage("run_classifier", *shlex.split(line))
    assert again.returncode == 0, again.stderr
    weights = [
        tf.train.load_variable(str(out / name), "output_weights") for name in ("best", "again")
    ]
    assert weights[0] == pytest.approx(weights[1], abs=1e-5)

    # A third call trains nothing; the directory is a model's.
    result = run_stage("search", flags, *RATES)
    assert result.returncode == 0, result.stderr
    assert "step 1/" not in result.stderr
    classifier = bert_toolkit.TextClassifier(str(out), max_seq_length=32)
    assert len(classifier.predict(["a song of joy"])) == 1


@pytest.mark.slow
def test_a_search_by_optuna(tmp_path, reviews, model_dir):
    """A rate that fails is noted and the search goes on; the test part is looked at once."""
    pytest.importorskip("optuna")
    out = tmp_path / "out"
    flags = flags_of(reviews, model_dir, out, method="optuna", num_trials=3, evaluate_every="epoch")
    flags |= {"num_train_epochs": 2, "test_split": 0.2, "best_metric": "loss"}
    result = run_stage("search", flags, "--space=learning_rate=1e38,1e-3,2e-3")
    assert result.returncode == 0, result.stderr
    trials = json.loads((out / "search.json").read_text())["trials"]
    states = {trial["values"]["learning_rate"]: trial["state"] for trial in trials}
    assert states == {1e38: "failed", 1e-3: "complete", 2e-3: "complete"}
    evaluated = [[step for step, _ in trial["evaluations"]] for trial in trials]
    assert sorted(evaluated) == [[], [3, 6, 7], [3, 6, 7]]
    assert "the loss is not a number" in result.stderr
    best = min(t["score"] for t in trials if t["state"] == "complete")
    results = json.loads((out / "eval_results.json").read_text())
    assert results["eval_loss"] == pytest.approx(best, rel=1e-4)
    assert [str(path.parent.name) for path in out.rglob("eval_results_test.json")] == ["out"]
    header, first = result.stdout.splitlines()[:2]
    assert header.split() == ["trial", "state", "eval_loss", "seconds", "learning_rate"]
    assert float(first.split()[2]) == pytest.approx(best, abs=1e-6)
