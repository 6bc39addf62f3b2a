"""The whole workflow from the command line."""

import shutil

import pytest
from conftest import GOLDEN, run_stage
from stage_runs import noise


@pytest.fixture(autouse=True)
def _show_logs(caplog):
    caplog.set_level("INFO")


@pytest.mark.slow
@pytest.mark.platform
def test_the_whole_workflow_from_the_command_line(tmp_path, pretraining_data, reviews, model_dir):
    pretrained, classifier = tmp_path / "pretrained", tmp_path / "classifier"
    config = model_dir / "bert_config.json"
    steps = [
        (
            "run_pretraining",
            {
                "input_file": pretraining_data,
                "output_dir": pretrained,
                "bert_config_file": config,
                "num_train_steps": 3,
                "num_warmup_steps": 1,
            },
            "--do_train",
            "--do_eval",
        ),
        (
            "run_classifier",
            {
                "task_name": "sst-2",
                "data_dir": reviews,
                "bert_dir": pretrained,
                "output_dir": classifier,
                "num_train_epochs": 1,
            },
            "--do_train",
            "--do_eval",
            "--do_predict",
        ),
        (
            "extract_features",
            {
                "input_file": GOLDEN / "corpus.txt",
                "output_file": tmp_path / "f.jsonl",
                "bert_dir": classifier,
                "layers": "-1",
            },
        ),
    ]
    for stage, flags, *switches in steps:
        result = run_stage(stage, flags, *switches, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert not noise(result.stderr), result.stderr
        assert result.stdout == ""
    shutil.rmtree(pretrained)
    failed = run_stage("run_classifier", steps[1][1], "--do_train")
    assert failed.returncode == 1
    assert failed.stderr == f"error: --bert_dir={pretrained}: no such directory\n"
