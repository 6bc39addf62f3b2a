"""What a version of TensorFlow can break: where Estimator comes from, files of other versions."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf2
import tensorflow.compat.v1 as tf
from conftest import GOLDEN, ROOT, run_stage

import extract_features
import run_pretraining
from bert_toolkit.errors import UserError
from bert_toolkit.training import estimator_api, hooks

pytestmark = pytest.mark.platform

VERSIONS = GOLDEN / "versions"
sys.path.insert(0, str(VERSIONS))
import make as other_versions  # noqa: E402

IS_LATER = estimator_api._version(tf2.__version__) > estimator_api.LAST_WITH_ESTIMATOR
needs_later = pytest.mark.skipif(not IS_LATER, reason="this TensorFlow brings Estimator")


def run_python(code, *arguments):
    """Runs a program in a new process; returns what it printed, an object a line."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result


# --- Files that other versions made ---


@pytest.fixture(params=["2.15", "2.21"])
def made_by(request, tmp_path):
    """A directory that a version of TensorFlow made: see tests/golden/versions/make.py."""
    with tarfile.open(VERSIONS / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_a_run_begun_on_another_version_goes_on_at_its_place(made_by, monkeypatch, caplog):
    """Checkpoint, data and place in the data: the losses are those of the version it began on."""
    monkeypatch.chdir(made_by)
    caplog.set_level("INFO")
    run_pretraining.run(other_versions.training(made_by, other_versions.WHOLE))
    if tf2.__version__ < "2.15" or "the place in the data" in caplog.text:
        # TensorFlow before 2.15 keeps the state of an input in another form; that is told.
        assert tf2.__version__ < "2.15"
        assert "the place in the data cannot be restored" in caplog.text
        return
    expected = json.loads((made_by / "expected.json").read_text())["losses"]
    found = other_versions.shown(made_by)
    assert sorted(found, key=int) == [str(step + 1) for step in range(other_versions.WHOLE)]
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=1e-5), step


@pytest.mark.slow
def test_a_run_goes_on_though_its_data_has_moved(made_by, monkeypatch, caplog):
    (made_by / "elsewhere").mkdir()
    for name in ("data.tfrecord", "data.tfrecord.json"):
        (made_by / name).rename(made_by / "elsewhere" / name)
    monkeypatch.chdir(made_by)
    caplog.set_level("INFO")
    options = other_versions.training(made_by, other_versions.WHOLE)
    run_pretraining.run(dataclasses.replace(options, input_file="elsewhere/data.tfrecord"))
    assert "the place in the data cannot be restored" in caplog.text
    assert "going on in a new order" in caplog.text
    latest = tf.train.latest_checkpoint(str(made_by / "model"))
    assert latest.endswith(f"model.ckpt-{other_versions.WHOLE}")


def test_an_export_and_a_checkpoint_of_another_version_give_its_vectors(made_by):
    expected = json.loads((made_by / "expected.json").read_text())["vectors"]
    lines = made_by / "lines.txt"
    lines.write_text("\n".join(other_versions.TEXTS) + "\n")
    extract_features.run(
        extract_features.Options(
            input_file=str(lines),
            output_file=str(made_by / "vectors.npy"),
            bert_dir=str(made_by / "model"),
            layers="-1",
            pooling="cls",
            max_seq_length=32,
        )
    )
    np.testing.assert_allclose(np.load(made_by / "vectors.npy"), expected, atol=2e-6)
    exported = tf2.saved_model.load(str(made_by / "exported/1")).signatures["serving_default"]
    for text, vector in zip(other_versions.TEXTS, expected):
        ids = ids_of(text, made_by / "vocab.txt")
        ones, zeros = np.ones_like(ids), np.zeros_like(ids)
        found = exported(
            input_ids=tf2.constant(ids),
            input_mask=tf2.constant(ones),
            segment_ids=tf2.constant(zeros),
        )
        np.testing.assert_allclose(found["vector"][0], vector, atol=2e-6)


def ids_of(text, vocab_file):
    import tokenization

    tokenizer = tokenization.FullTokenizer(str(vocab_file))
    tokens = ["[CLS]", *tokenizer.tokenize(text), "[SEP]"]
    return np.array([tokenizer.convert_tokens_to_ids(tokens)], np.int32)


# --- Where Estimator comes from ---

TRACES = """
import sys
if sys.argv[1] == "before":
    import tensorflow
from bert_toolkit.training import estimator_api
api = estimator_api.load()
import tensorflow as tf
from tensorflow.python.util import tf_export
print(api.Estimator.__name__, api.tpu.TPUEstimator.__name__)
if hasattr(tf.compat.v1, "estimator"):
    raise SystemExit(0)  # this TensorFlow brings it
print(hasattr(tf, "estimator"), hasattr(tf_export, "ESTIMATOR_API_NAME"))
print("estimator" in tf_export.API_ATTRS, "estimator" in tf_export.API_ATTRS_V1)
supplied = [name for name in estimator_api._MODULES if name in sys.modules]
print(supplied)
try:
    import tensorflow.python.tpu.session_support
    raise SystemExit("the supplied module is still there")
except ImportError:
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("tensorflow_imported", ["before", "after"])
def test_estimator_leaves_no_trace_in_tensorflow(tensorflow_imported):
    first, *traces = run_python(TRACES, tensorflow_imported).stdout.splitlines()
    assert first.split() == ["Estimator", "TPUEstimator"]
    assert traces in ([], ["False False", "False False", "[]"])


@needs_later
@pytest.mark.parametrize(
    ("wheel", "message"),
    [
        ("2.10.0", "tensorflow-estimator 2.10.0 beside TensorFlow .*: expected 2.15: pip install"),
        (None, "the package tensorflow-estimator is not installed: pip install"),
    ],
)
def test_another_estimator_is_a_sentence(monkeypatch, wheel, message):
    def version(name):
        if wheel is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return wheel

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(UserError, match=message):
        estimator_api.load.__wrapped__()


def test_a_tensorflow_that_lacks_more_is_a_sentence(monkeypatch):
    monkeypatch.setattr(tf2, "__version__", "2.99.0")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.15.0")

    def broken(name):
        raise ImportError("no module named tensorflow.python.gone")

    monkeypatch.setattr(estimator_api.importlib, "import_module", broken)
    with pytest.raises(UserError, match=r"TensorFlow 2.99.0: .*python.gone.*install 'tensorflow<"):
        estimator_api.load.__wrapped__()


@needs_later
def test_what_estimators_on_several_hosts_cannot_do_is_refused():
    from bert_toolkit.training import estimator_training

    with pytest.raises(ValueError, match="trains by train_and_evaluate"):
        estimator_training.estimator_train(None, None, None)
    with pytest.raises(UserError, match="TF_TPU_WATCHDOG_TIMEOUT"):
        estimator_api._tpu_session_support().start_worker_watchdog(None, shutdown_timeout=1)


def test_hooks_are_those_that_estimators_take():
    assert issubclass(hooks.TrainingProgress, estimator_api.load().SessionRunHook)
    modes = estimator_api.load().ModeKeys
    assert (estimator_api.TRAIN, estimator_api.EVAL, estimator_api.PREDICT) == (
        modes.TRAIN,
        modes.EVAL,
        modes.PREDICT,
    )


# --- How TensorFlow is imported ---


def test_a_first_vector_takes_neither_keras_nor_estimator(made_by):
    code = (
        "import sys\nfrom bert_toolkit import Encoder\n"
        "print(Encoder(sys.argv[1]).encode(['a bad cab']).shape)\n"
        "print([name for name in ('keras', 'tensorflow_estimator') if name in sys.modules])\n"
        "import tensorflow as tf\nprint(tf.keras.optimizers.Adam.__name__)\n"
    )
    result = run_python(code, made_by / "model")
    assert result.stdout.splitlines() == ["(1, 16)", "[]", "Adam"]
    assert result.stderr == ""


def test_a_command_prints_only_its_own_lines(made_by, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("a bad cab\n")
    result = run_stage(
        "extract_features",
        {
            "input_file": lines,
            "output_file": tmp_path / "features.jsonl",
            "bert_dir": made_by / "model",
            "layers": "-1",
            "max_seq_length": 32,
        },
    )
    assert result.returncode == 0, result.stderr
    said = result.stderr.splitlines()
    assert said[0].startswith("running on ")
    assert all(line.startswith(("running on", str(made_by), "wrote")) for line in said), said


def test_flags_md_is_current():
    sys.path.insert(0, str(ROOT / "docs"))
    import make_flags

    assert (ROOT / "docs/flags.md").read_text(encoding="utf-8") == make_flags.page(), (
        "make it again: python docs/make_flags.py"
    )


def test_the_versions_installed_are_those_that_setup_py_names():
    text = pathlib.Path(ROOT / "setup.py").read_text()
    assert 'TENSORFLOW = ">=2.12,<2.22"' in text
    assert (2, 12) <= estimator_api._version(tf2.__version__) < (2, 22)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
@pytest.mark.parametrize("set_by_user", [False, True])
def test_freed_memory_is_kept_for_the_next_tensors(set_by_user):
    """Large blocks come without new pages after the first; unless the user has set it otherwise."""
    code = (
        "import numpy as np, resource\n"
        "from bert_toolkit import tensorflow_start\n"
        "tensorflow_start.prepare()\n"
        "np.ones(10_000_000, np.float32)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): np.ones(10_000_000, np.float32)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    if set_by_user:  # the default
        environment["MALLOC_TOP_PAD_"] = "131072"
        environment["MALLOC_MMAP_THRESHOLD_"] = "131072"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    # Pages of 4 KiB or, with huge ones, 2 MiB: 20 blocks of 40 MB have 400 of the latter.
    assert (int(done.stdout) > 300) == set_by_user
