"""Several tasks at once: batches of one at a time, heads that rest, the command as a user runs it."""

import json
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, ROOT, run_stage
from scipy.special import log_softmax, softmax

import bert_toolkit
import optimization
import run_classifier
from bert_toolkit.checkpoints import checkpoint_files
from bert_toolkit.commands import multitask as command
from bert_toolkit.errors import UserError
from bert_toolkit.io import tfrecord
from bert_toolkit.problems import REGRESSION, SINGLE, Problem
from bert_toolkit.tasks import multitask
from bert_toolkit.tasks.classification.distillation import AnnealedLoss
from bert_toolkit.tasks.distillation_options import CROSS_ENTROPY, MSE
from bert_toolkit.training.mixed_input import MixedInput
from bert_toolkit.training.outputs import Head

TAGS = ROOT / "sample_data" / "tags"
QUESTIONS = ROOT / "sample_data" / "questions"


def listed(reviews):
    """Returns a task of each kind, as the file has them."""
    return [
        {
            "name": "reviews",
            "kind": "classify",
            "train_file": str(reviews / "train.tsv"),
            "eval_file": str(reviews / "dev.tsv"),
            "max_seq_length": 16,
        },
        {
            "name": "tags",
            "kind": "tag",
            "train_file": str(TAGS / "train.conll"),
            "eval_file": str(TAGS / "dev.conll"),
            "max_seq_length": 24,
            "crf": True,
        },
        {
            "name": "questions",
            "kind": "answer",
            "train_file": str(QUESTIONS / "train.json"),
            "eval_file": str(QUESTIONS / "dev.json"),
            "max_seq_length": 128,
            "max_query_length": 24,
        },
    ]


def options(tmp_path, tasks, model, out="out", **flags):
    path = tmp_path / f"{out}.json"
    path.write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
    values = {"tasks_file": str(path), "bert_dir": str(model), "output_dir": str(tmp_path / out)}
    rate = {"learning_rate": 1e-3, "train_batch_size": 4, "warmup_proportion": 0.0}
    return command.Options(**{**values, **rate, **flags})


def variables_of(prefix):
    """Returns all variables of a checkpoint, those of the optimizer too."""
    names = checkpoint_files.shapes(str(prefix))
    return {name: tf.train.load_variable(str(prefix), name) for name in names}


def without_dropout(model_dir):
    config = json.loads((model_dir / "bert_config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model_dir / "bert_config.json").write_text(json.dumps(config))


# --- Which task a batch is of ---


def test_shares_go_by_weight_and_a_power_of_the_size():
    assert multitask.shares([100, 400], [1, 1], 1.0) == pytest.approx([0.2, 0.8])
    assert multitask.shares([100, 400], [1, 1], 0.5) == pytest.approx([1 / 3, 2 / 3])
    assert multitask.shares([100, 400], [3, 1], 0.0) == pytest.approx([0.75, 0.25])


def test_draws_follow_the_shares_and_longer_training_begins_alike():
    drawn = MixedInput({"a": None, "b": None, "c": None}, [0.2, 0.5, 0.3], 1, 20000).draws()
    assert np.bincount(drawn) / 20000 == pytest.approx([0.2, 0.5, 0.3], abs=0.02)
    first = MixedInput({"a": None, "b": None, "c": None}, [0.2, 0.5, 0.3], 1, 50).draws()
    assert list(drawn[:50]) == list(first)


# --- Training ---


def test_a_step_moves_only_what_its_task_depends_on(tmp_path, reviews, model_dir):
    tasks = listed(reviews)
    flags = {
        "save_checkpoints_steps": 1,
        "keep_checkpoint_max": 30,
        "size_power": 0.0,
        "learning_rate_schedule": "constant",  # others end with a rate of 0
    }
    chosen = options(tmp_path, tasks, model_dir, num_train_epochs=0.1, **flags)
    command.run(chosen)
    out = tmp_path / "out"
    steps = sorted(int(path.stem.split("-")[1]) for path in out.glob("model.ckpt-*.index"))
    assert steps == list(range(steps[-1] + 1))
    assert steps[-1] >= 6
    drawn = MixedInput(dict.fromkeys("abc"), [1 / 3] * 3, chosen.seed, steps[-1]).draws()
    assert set(drawn) == {0, 1, 2}
    before = variables_of(out / "model.ckpt-0")
    heads = [f"tasks/{task['name']}/" for task in tasks]
    for step, number in enumerate(drawn, 1):
        after = variables_of(out / f"model.ckpt-{step}")
        for name, value in after.items():
            owner = next((n for n, head in enumerate(heads) if name.startswith(head)), None)
            rests = owner not in (None, number) or (name.startswith("bert/pooler/") and number != 0)
            assert np.isfinite(value).all(), name
            if rests:  # the moments of the optimizer too, to the last bit
                assert np.array_equal(value, before[name]), (step, name)
            elif owner == number and "crf" not in name:
                assert not np.array_equal(value, before[name]), (step, name)
        words = "bert/encoder/layer_0/output/dense/kernel"
        assert not np.array_equal(after[words], before[words])
        before = after


def test_the_name_of_a_task_is_none_of_a_layer_or_a_bias():
    with tf.Graph().as_default(), tf.Session() as session:
        names = ("tasks/bias/output_weights", "tasks/bias/output_bias", "tasks/layer_3/output_weights",
                 "bert/encoder/layer_3/output/LayerNorm/gamma", "bert/embeddings/word_embeddings")  # fmt: skip
        variables = [tf.get_variable(name, initializer=tf.ones([2])) for name in names]
        settings = optimization.OptimizerSettings(layer_decay=0.5, frozen=["3"])
        kept = optimization.trainable_variables(settings.frozen)
        assert [one.op.name for one in kept] == [names[0], names[1], names[2], names[4]]
        optimizer = optimization.make_optimizer(tf.constant(0.1), settings)
        step = optimizer.apply_gradients([(tf.zeros([2]), one) for one in variables])
        session.run(tf.global_variables_initializer())
        session.run(step)
        decayed = [1 - float(session.run(one)[0]) for one in variables]
    # 0.01 of the weight at the rate of heads; embeddings are below four layers.
    assert decayed == pytest.approx([1e-3, 0, 1e-3, 0, 1e-3 / 2**5], rel=1e-3)


def test_one_task_alone_gives_what_its_own_command_gives(tmp_path, reviews, model_dir):
    without_dropout(model_dir)
    weights = checkpoint_files.read(checkpoint_files.find(str(model_dir), "bert_dir"))
    chance = np.random.default_rng(1)
    head = {
        "output_weights": chance.normal(0, 0.02, (2, 32)).astype(np.float32),
        "output_bias": np.zeros(2, np.float32),
    }
    there = {f"tasks/reviews/{name}": value for name, value in head.items()}
    checkpoint_files.save(str(tmp_path / "start" / "bert_model.ckpt"), {**weights, **head, **there})
    start = str(tmp_path / "start" / "bert_model.ckpt")
    task = listed(reviews)[0]
    flags = {"num_train_epochs": 2.0, "init_checkpoint": start}
    chosen = options(tmp_path, [task], model_dir, **flags)
    found = command.run(chosen)
    alone = run_classifier.run(
        run_classifier.Options(
            bert_dir=str(model_dir),
            output_dir=str(tmp_path / "alone"),
            learning_rate=chosen.learning_rate,
            train_batch_size=chosen.train_batch_size,
            warmup_proportion=0.0,
            **{name: task[name] for name in ("train_file", "eval_file", "max_seq_length")},
            **flags,
        )
    )
    assert found["reviews/eval_accuracy"] == alone["eval_accuracy"]
    # The task's own model has the variables of a classifier, and their values.
    one, other = (
        checkpoint_files.read(tf.train.latest_checkpoint(str(tmp_path / path)))
        for path in ("out/reviews", "alone")
    )
    assert sorted(one) == sorted(other)
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_run_that_is_cut_off_ends_with_the_weights_of_one_that_is_not(
    tmp_path, reviews, model_dir
):
    flags = {"num_train_epochs": 0.3, "save_checkpoints_steps": 8}
    command.run(options(tmp_path, listed(reviews)[:2], model_dir, **flags))
    shutil.copytree(tmp_path / "out", tmp_path / "cut")
    for path in (tmp_path / "cut").glob("*.ckpt-14*"):
        path.unlink()
    last = str(tmp_path / "cut" / "model.ckpt-8")
    tf.train.update_checkpoint_state(str(tmp_path / "cut"), last, [last])
    command.run(options(tmp_path, listed(reviews)[:2], model_dir, "cut", **flags))
    whole = variables_of(tmp_path / "out" / "model.ckpt-14")
    for name, value in variables_of(tmp_path / "cut" / "model.ckpt-14").items():
        np.testing.assert_allclose(value, whole[name], atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_the_same_data_as_two_tasks_gives_what_one_gives(tmp_path, model_dir):
    words = "mercy sorrow light blood gold fire wine stone".split()
    rows = [f"the {word} of the house {n}\t{label // 4}" for n in range(4)
            for label, word in enumerate(words)]  # fmt: skip
    (tmp_path / "train.tsv").write_text("\n".join(["sentence\tlabel", *rows[:24]]) + "\n")
    (tmp_path / "dev.tsv").write_text("\n".join(["sentence\tlabel", *rows[24:]]) + "\n")
    task = {**listed(tmp_path)[0]}
    flags = {"learning_rate": 2e-3, "train_batch_size": 8}
    both = [{**task, "name": "first"}, {**task, "name": "second"}]
    one = command.run(options(tmp_path, [task], model_dir, "one", **flags, num_train_epochs=20.0))
    # The same number of steps.
    two = command.run(options(tmp_path, both, model_dir, "two", **flags, num_train_epochs=10.0))
    ends = [(tmp_path / out / "model.ckpt-60.index").exists() for out in ("one", "two")]
    assert all(ends)
    assert one["reviews/eval_accuracy"] == 1.0
    assert two["first/eval_accuracy"] == two["second/eval_accuracy"] == 1.0


# --- What is kept, and what can be done with it ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of all kinds of tasks, with the best of each: its directory and its metrics."""
    from conftest import GOLDEN

    directory = tmp_path_factory.mktemp("multitask")
    shutil.copytree(GOLDEN / "model", directory / "golden")
    shutil.copy(GOLDEN / "vocab.txt", directory / "golden")
    rows = [f"the {word} of the house {n}\t{label}" for n in range(10)
            for label, word in enumerate(("mercy", "sorrow"))]  # fmt: skip
    for name in ("train", "dev"):
        (directory / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    (directory / "new.txt").write_text("the mercy of the people\n")
    tasks = listed(directory)
    tasks[0]["predict_file"] = str(directory / "new.txt")
    flags = {"num_train_epochs": 0.3, "evaluate_every": "20"}
    found = command.run(options(directory, tasks, directory / "golden", **flags))
    return directory / "out", found


def test_results_are_those_of_each_task_and_their_mean(trained):
    out, found = trained
    shares = [
        json.loads((out / name / "eval_results.json").read_text())[metric] / perfect
        for name, metric, perfect in (
            ("reviews", "eval_accuracy", 1.0),
            ("tags", "eval_f1", 1.0),
            ("questions", "eval_f1", 100.0),
        )
    ]
    stored = json.loads((out / "eval_results.json").read_text())
    assert found["eval_mean"] == stored["eval_mean"] == pytest.approx(np.mean(shares))
    assert stored["tasks"]["tags"]["eval_f1"] == stored["tags/eval_f1"]
    assert (out / "eval_results.txt").read_text().startswith("eval_mean = ")


def test_the_best_of_each_task_and_of_the_mean_is_kept(trained):
    out, _ = trained
    scores = {
        path: json.loads((out / path / "best" / "score.json").read_text())
        for path in (".", "reviews", "tags", "questions")
    }
    assert [score["metric"] for score in scores.values()] == ["mean", "accuracy", "f1", "f1"]
    names = checkpoint_files.shapes(tf.train.latest_checkpoint(str(out / "best")))
    assert {"tasks/tags/crf/transitions", "tasks/questions/cls/squad/output_weights"} <= set(names)
    # Of a task that has no use for the pooler, the model has none.
    of_tags = checkpoint_files.shapes(tf.train.latest_checkpoint(str(out / "tags" / "best")))
    assert "crf/transitions" in of_tags
    assert not any(name.startswith(("bert/pooler/", "tasks/")) for name in of_tags)


def test_the_model_of_a_task_is_a_model_like_others(trained):
    out, _ = trained
    predictions = (out / "reviews" / "test_predictions.tsv").read_text().splitlines()
    [answer] = bert_toolkit.TextClassifier(str(out / "reviews")).predict(
        ["the mercy of the people"]
    )
    assert predictions[1].split("\t")[1] == answer.label
    assert float(predictions[1].split("\t")[2]) == pytest.approx(
        answer.probabilities["0"], abs=1e-5
    )
    [tags] = bert_toolkit.TokenClassifier(str(out / "tags")).tags([["Mary", "left", "Norby", "."]])
    assert len(tags) == 4
    encoder = bert_toolkit.Encoder(str(out))  # the model of all is an encoder to start from
    assert encoder.encode(["the house"]).shape == (1, 32)


@pytest.mark.slow
def test_the_best_by_the_mean_is_the_same_step_in_all_tasks(tmp_path, reviews, model_dir):
    flags = {"num_train_epochs": 0.5, "evaluate_every": "8", "best_metric": "mean"}
    command.run(options(tmp_path, listed(reviews)[:2], model_dir, **flags))
    steps = {
        json.loads((tmp_path / "out" / path / "best" / "score.json").read_text())["step"]
        for path in (".", "reviews", "tags")
    }
    assert len(steps) == 1
    # The run goes on where the directory of a task was removed meanwhile.
    shutil.rmtree(tmp_path / "out" / "reviews")
    flags["num_train_epochs"] = 0.7
    command.run(options(tmp_path, listed(reviews)[:2], model_dir, **flags))
    kept = json.loads((tmp_path / "out" / "reviews" / "best" / "score.json").read_text())
    assert kept["step"] >= max(steps)


# --- Teacher annealing ---

LOGITS = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], np.float32)
TEACHER = np.array([[2.0, 0.0, -1.0], [-1.0, 4.0, 0.5]], np.float32)


def loss_and_gradient(kind, problem, labels, logits, teacher, progress):
    with tf.Graph().as_default(), tf.Session() as session:
        features = {
            "label_ids": tf.constant(labels),
            "teacher_logits": tf.constant(teacher),
            "has_label": tf.constant([1, 1]),
            "progress": tf.constant(progress, tf.float32),
        }
        outputs = tf.constant(logits)
        parts = AnnealedLoss(kind, hard_label_weight=1.0).losses(problem, features, outputs)
        loss = tf.add_n([mean.value() for mean in parts.values()])
        return session.run([loss, tf.gradients(loss, outputs)[0]])


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_targets_go_from_the_teacher_to_the_labels(progress):
    labels = np.array([2, 0])
    loss, gradient = loss_and_gradient(
        CROSS_ENTROPY, Problem(SINGLE, ("a", "b", "c")), labels, LOGITS, TEACHER, progress
    )
    target = progress * np.eye(3)[labels] + (1 - progress) * softmax(TEACHER, -1)
    assert loss == pytest.approx(-(target * log_softmax(LOGITS, -1)).sum() / 2, rel=1e-5)
    np.testing.assert_allclose(gradient, (softmax(LOGITS, -1) - target) / 2, atol=1e-6)


def test_the_gradient_of_a_number_is_that_of_the_target_between():
    numbers = np.array([0.5, 9.0], np.float32)
    _, gradient = loss_and_gradient(
        MSE, Problem(REGRESSION), numbers, LOGITS[:, :1], TEACHER[:, :1], 0.25
    )
    target = 0.25 * numbers + 0.75 * TEACHER[:, 0]
    np.testing.assert_allclose(gradient[:, 0], 2 * (LOGITS[:, 0] - target) / 2, rtol=1e-5)


@pytest.mark.slow
def test_a_teacher_answers_once_in_the_order_of_the_labels(tmp_path, reviews, model_dir):
    task = listed(reviews)[0]
    files = {name: task[name] for name in ("train_file", "max_seq_length")}
    run_classifier.run(
        run_classifier.Options(
            bert_dir=str(model_dir),
            output_dir=str(tmp_path / "teacher"),
            labels=["1", "0"],
            learning_rate=1e-3,
            train_batch_size=4,
            **files,
        )
    )
    tasks = [{**task, "teacher": str(tmp_path / "teacher")}, listed(reviews)[1]]
    chosen = options(tmp_path, tasks, model_dir, num_train_epochs=0.2)
    found = command.run(chosen)
    assert 0 <= found["eval_mean"] <= 1
    texts = [line.split("\t")[0] for line in open(task["train_file"]).read().splitlines()[1:]]
    predictions = bert_toolkit.TextClassifier(str(tmp_path / "teacher"), 16).predict(texts)
    expected = [[one.probabilities["0"], one.probabilities["1"]] for one in predictions]
    records = tfrecord.read_records(str(tmp_path / "out" / "reviews" / "train.tf_record"))
    logits = [
        tfrecord.features_of(record, "train")["teacher_logits"].float_list.value
        for record in records
    ]
    np.testing.assert_allclose(softmax(np.array(logits), -1), expected, atol=1e-5)
    [kept] = (tmp_path / "out" / "teacher_logits").rglob("*.npy")
    before = kept.stat().st_mtime_ns
    command.run(options(tmp_path, tasks, model_dir, num_train_epochs=0.3))
    assert kept.stat().st_mtime_ns == before


# --- Errors ---

TASK = {"name": "a", "kind": "classify", "train_file": "train.tsv"}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("[{]", r"out\.json: not JSON \(.*\); expected \[{\"name\""),
        ({"reviews": TASK}, r"out\.json: no list of tasks; expected \[{"),
        ([], r"out\.json: no list of tasks"),
        (["a"], r"out\.json\[0\]: \"a\"; expected an object, as in \[{"),
        ([{"kind": "tag"}], r"\[0\]: name null; expected letters, digits, - and _"),
        ([{**TASK, "name": "best"}], r"\[0\]: name best: taken in --output_dir; use another"),
        ([{**TASK, "kind": "rank"}], r"kind \"rank\"; expected one of classify, tag, answer$"),
        ([{**TASK, "kind": ["tag"]}], r"kind \[\"tag\"\]; expected one of classify, tag, answer$"),
        ([{**TASK, "weight": 0}], r"weight 0; expected a number above 0"),
        ([{**TASK, "weight": float("nan")}], r"weight NaN; expected a number above 0"),
        ([{**TASK, "text_colum": "x"}], r"unknown key 'text_colum'; did you mean text_column\?"),
        ([{**TASK, "zzz": "x"}], r"unknown key 'zzz'; expected one of max_seq_length, "),
        ([{**TASK, "seed": 1}], r"seed is of all tasks; pass --seed on the command line"),
        ([{**TASK, "header": "no"}], r"header is \"no\"; expected true or false"),
        ([{**TASK, "labels": "0,1"}], r"labels is \"0,1\"; expected a list of texts"),
        ([{**TASK, "max_seq_length": 2}], r"max_seq_length is 2; expected a whole number from 4"),
        ([{**TASK, "eval_split": 1}], r"eval_split is 1; expected a number from 0 to 0\.9"),
        ([{**TASK, "truncate": "end"}], r"truncate is \"end\"; expected one of head, tail,"),
        ([{"name": "a", "kind": "tag"}], r"\[0\]: no train_file; expected the data to train a on"),
        ([TASK, TASK], r"out\.json\[1\]: a second task named a; rename one"),
        ([TASK], r"train\.tsv: no such file"),
        ([{**TASK, "split_by": "time"}], r"\[0\]: --split_by=time: pass the column of the time"),
        (
            [{**TASK, "teacher": "t", "label_smoothing": 0.1}],
            r"\[0\]: --label_smoothing is not for a task with a teacher; leave it out",
        ),
    ],
)
def test_a_file_that_is_no_list_of_tasks(tmp_path, model_dir, tasks, message):
    with pytest.raises(UserError, match=message):
        command.run(options(tmp_path, tasks, model_dir))


def test_no_file_of_tasks(tmp_path, model_dir):
    done = run_stage(
        "multitask",
        {"tasks_file": "no.json", "bert_dir": model_dir, "output_dir": tmp_path / "out"},
    )
    assert done.returncode == 1
    assert done.stderr == "error: --tasks_file=no.json: no such file\n"
    assert not (tmp_path / "out").exists()


def test_several_hosts_and_tpus_are_refused(tmp_path, reviews, model_dir, monkeypatch):
    hosts = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(hosts))
    with pytest.raises(UserError, match="bert multitask trains on one; run it without TF_CONFIG"):
        command.run(options(tmp_path, listed(reviews), model_dir))
    with pytest.raises(UserError, match="--use_tpu: several tasks are not trained on a TPU"):
        options(tmp_path, listed(reviews), model_dir, use_tpu=True)


def test_a_model_of_another_task_is_not_written_over_and_no_teacher(tmp_path, reviews, model_dir):
    (tmp_path / "other.tsv").write_text("text\tlabel\n" + "a song\tgood\na cry\tbad\n" * 4)
    files = {"train_file": str(tmp_path / "other.tsv"), "bert_dir": str(model_dir)}
    there = tmp_path / "out" / "reviews"
    run_classifier.run(
        run_classifier.Options(
            **files, output_dir=str(there), train_batch_size=4, max_seq_length=16
        )
    )
    [weights] = there.glob("model.ckpt-6.data-*")
    with pytest.raises(UserError, match="reviews: holds a model already, which .*out did not make"):
        command.run(options(tmp_path, listed(reviews), model_dir))
    # Nothing is removed before all files are read.
    wrong = [{**listed(reviews)[1], "train_file": "no.conll"}, listed(reviews)[0]]
    with pytest.raises(UserError, match="no.conll: no such file"):
        command.run(options(tmp_path, wrong, model_dir, overwrite=True))
    assert weights.exists()
    tasks = [{**listed(reviews)[0], "teacher": str(there)}]
    expected = r"predicts single_label with the labels bad, good, but the task is single_label with"
    with pytest.raises(UserError, match=expected):
        command.run(options(tmp_path, tasks, model_dir, "new"))


def test_no_best_model_without_data_to_evaluate_on(tmp_path, reviews, model_dir):
    for number, message in (
        (0, "task reviews: nothing to evaluate on: pass --eval_file"),
        (2, "nothing to evaluate the task questions on; give it an"),
    ):
        task = {key: value for key, value in listed(reviews)[number].items() if key != "eval_file"}
        with pytest.raises(UserError, match=message):
            command.run(options(tmp_path, [task], model_dir, evaluate_every="epoch"))


def test_a_checkpoint_without_the_task_makes_no_model_of_it():
    head = Head(lambda *_: None, with_pooler=True)
    with pytest.raises(UserError, match="was not trained for a task named other; pass the tasks"):
        multitask.weights_of_task(str(GOLDEN / "model" / "bert_model.ckpt"), "other", head)
