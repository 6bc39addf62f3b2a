import re
import subprocess
import sys

import pytest
from conftest import ROOT, run_stage

DEVICE = "use_tpu tpu_name tpu_zone gcp_project master num_tpu_cores iterations_per_loop"
PUBLISHED = {
    "create_pretraining_data": "input_file output_file vocab_file do_lower_case do_whole_word_mask max_seq_length"
    " max_predictions_per_seq random_seed dupe_factor masked_lm_prob short_seq_prob",
    "run_pretraining": "bert_config_file input_file output_dir init_checkpoint max_seq_length max_predictions_per_seq"
    " do_train do_eval train_batch_size eval_batch_size learning_rate num_train_steps num_warmup_steps"
    f" save_checkpoints_steps max_eval_steps {DEVICE}",
    "run_classifier": "data_dir bert_config_file task_name vocab_file output_dir init_checkpoint do_lower_case"
    " max_seq_length do_train do_eval do_predict train_batch_size eval_batch_size predict_batch_size learning_rate"
    f" num_train_epochs warmup_proportion save_checkpoints_steps {DEVICE}",
    "extract_features": "input_file output_file layers bert_config_file max_seq_length init_checkpoint vocab_file"
    " do_lower_case batch_size use_tpu master num_tpu_cores use_one_hot_embeddings",
}
DEFAULTS = {
    "create_pretraining_data": {
        "max_seq_length": "128", "max_predictions_per_seq": "20", "random_seed": "12345", "dupe_factor": "10",
        "masked_lm_prob": "0.15", "short_seq_prob": "0.1", "[no]do_whole_word_mask": "False",
    },
    "run_pretraining": {
        "train_batch_size": "32", "eval_batch_size": "8", "learning_rate": "5e-05", "num_train_steps": "100000",
        "num_warmup_steps": "10000", "save_checkpoints_steps": "1000", "iterations_per_loop": "1000",
    },
    "run_classifier": {
        "max_seq_length": "128", "predict_batch_size": "8", "num_train_epochs": "3.0", "warmup_proportion": "0.1",
    },
    "extract_features": {"layers": "-1,-2,-3,-4", "max_seq_length": "128", "batch_size": "32"},
}  # fmt: skip


@pytest.mark.parametrize("stage", PUBLISHED)
def test_help_starts_with_what_the_stage_does_and_lists_every_published_flag(stage):
    result = run_stage(stage, "--help")
    assert result.returncode == 0
    assert result.stderr == ""
    doc = __import__(stage).__doc__.strip()
    assert result.stdout.startswith(doc)
    listed = dict(
        re.findall(
            r"^  --(\S+?)(?:=\.\.\.)?\n.*?(?:\(default: (.*)\))?$", result.stdout, re.MULTILINE
        )
    )
    for name in PUBLISHED[stage].split():
        assert name in listed or f"[no]{name}" in listed, name
    for name, default in DEFAULTS[stage].items():
        assert listed[name] == default


@pytest.mark.parametrize("stage", PUBLISHED)
def test_help_and_the_module_do_without_tensorflow(stage):
    code = f"import sys, {stage}; sys.argv = ['x', '--help']\ntry: {stage}.entry()\nfinally: assert 'tensorflow' not in sys.modules"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_all_stages_can_be_imported_in_one_process():
    code = f"import {', '.join(PUBLISHED)}"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input_file=x", "--output_file=y", "--do_lower_case", "False"], "unexpected argument 'False'; write --do_lower_case=False"),
        (["--input_file=x", "--output_file=y", "text.txt"], "unexpected argument 'text.txt'; every option is written --name=value"),
        (["--input_fil=x"], "Unknown command line flag 'input_fil'. Did you mean: input_file ?"),
        (["--output_file=y"], "--input_file is required"),
        (["--input_file=x", "--output_file=y", "--dupe_factor=many"], "--dupe_factor=many: expected a whole number"),
        (["--input_file=x", "--output_file=y", "--dupe_factor=0"], "--dupe_factor=0: expected positive integer"),
        (["--input_file=x", "--output_file=y", "--do_lower_case=maybe"], "--do_lower_case=maybe: expected true or false"),
        (["--input_file=x", "--output_file=y", "--masked_lm_prob=nan"], "--masked_lm_prob=nan: expected a number"),
        (["--input_file=x", "--output_file=y", "--masked_lm_prob=2"], "--masked_lm_prob=2: expected number in the range [0.0, 1.0]"),
    ],
)  # fmt: skip
def test_usage_errors(arguments, message):
    result = run_stage("create_pretraining_data", *arguments)
    assert result.returncode == 2
    assert result.stderr == f"error: {message}\nTry --help.\n"


def test_all_problems_are_told_together():
    flags = ["--task_name=sst-2", "--data_dir=x", "--output_dir=y"]
    result = run_stage("run_classifier", *flags, "--early_stopping_patience=3")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: nothing to do: pass --do_train, --do_eval or --do_predict",
        "error: --early_stopping_patience goes with --evaluate_every",
    ]
    result = run_stage("run_classifier", *flags, "--do_eval")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: --bert_config_file is required (or --bert_dir)",
        "error: --vocab_file is required (or --bert_dir)",
    ]


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} run_classifier.py --help | head -1"
    result = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.stdout.startswith("Fine-tunes BERT")
    assert result.stderr == ""
