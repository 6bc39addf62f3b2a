"""Sharded creation as a Beam pipeline, on the direct runner."""

import pytest
from conftest import run_stage
from test_shards import CORPUS, VOCAB, digests

import create_pretraining_data as stage
from bert_toolkit.errors import UserError
from bert_toolkit.io import files

pytest.importorskip("apache_beam")

PROCESSES = "--direct_num_workers=2 --direct_running_mode=multi_processing"


@pytest.fixture(autouse=True)
def restored_files():
    yield
    files.use_for_remote_paths(None)


def flags(tmp_path, name, **others):
    return {
        "input_file": str(CORPUS),
        "output_file": str(tmp_path / name / "data"),
        "vocab_file": str(VOCAB),
        "num_shards": 3,
        "dupe_factor": 2,
        **others,
    }


@pytest.mark.slow
def test_several_processes_make_what_the_local_run_makes(tmp_path):
    stage.run(stage.Options(**flags(tmp_path, "local")))
    result = run_stage(
        "create_pretraining_data",
        flags(tmp_path, "beam", runner="DirectRunner", beam_options=PROCESSES),
    )
    assert result.returncode == 0, result.stderr
    assert "24 documents, 200 sentences" in result.stderr
    assert digests(tmp_path / "beam") == digests(tmp_path / "local")


def test_files_with_a_scheme_go_through_beam(tmp_path):
    from apache_beam.io.localfilesystem import LocalFileSystem

    class MemoryLike(LocalFileSystem):
        """The local disk under another scheme, as an object store would be seen."""

        @classmethod
        def scheme(cls):
            return "shelf"

        def open(self, path, *args, **kwargs):
            return super().open(path.removeprefix("shelf://"), *args, **kwargs)

        def create(self, path, *args, **kwargs):
            return super().create(path.removeprefix("shelf://"), *args, **kwargs)

        def exists(self, path):
            return super().exists(path.removeprefix("shelf://"))

        def match(self, patterns, limits=None):
            return super().match([pattern.removeprefix("shelf://") for pattern in patterns], limits)

        def rename(self, sources, targets):
            super().rename(*([p.removeprefix("shelf://") for p in ps] for ps in (sources, targets)))

        def delete(self, paths):
            super().delete([path.removeprefix("shelf://") for path in paths])

        def mkdirs(self, path):
            super().mkdirs(path.removeprefix("shelf://"))

    names = ("input_file", "output_file")
    away = flags(tmp_path, "beam", runner="DirectRunner")
    away |= {name: f"shelf://{away[name]}" for name in names}
    stage.run(stage.Options(**flags(tmp_path, "local")))
    stage.run(stage.Options(**away))
    assert digests(tmp_path / "beam") == digests(tmp_path / "local")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runner": "NoRunner"}, "Unexpected pipeline runner: NoRunner"),
        ({"runner": "DirectRunner", "beam_options": "--foo=3"}, "Beam knows no --foo=3"),
        ({"beam_options": "--foo=3"}, "--beam_options needs --runner"),
        ({"runner": "DirectRunner", "vocab_file": str(CORPUS)}, r"no \[UNK\]"),
    ],
)
def test_mistakes(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        stage.run(stage.Options(**flags(tmp_path, "out", **changes)))


def test_text_that_cannot_be_used_is_told_in_our_words(tmp_path):
    (tmp_path / "in.txt").write_bytes(b"fine\n\nd\xe9j\xe0\n\nmore\n")
    bad = flags(tmp_path, "out", input_file=str(tmp_path / "in.txt"), runner="DirectRunner")
    with pytest.raises(UserError, match=r"^\S+in\.txt at byte 7: not UTF-8 .*iconv$"):
        stage.run(stage.Options(**bad))
