import gzip

import pytest

from bert_toolkit.errors import UserError
from bert_toolkit.io import files


@pytest.fixture
def three(tmp_path):
    for name in ("b.txt", "a.txt", "c.txt", "a.txt.json"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("{}/*.txt", "abc"),
        ("{}/c.txt,{}/a.txt", "ca"),
        ("{}/b.txt, {}/a*", "ba"),
        ("{}/[ab].txt", "ab"),
    ],
)
def test_patterns(three, patterns, expected):
    found = files.expand_inputs(patterns.replace("{}", str(three)), "input_file")
    assert found == [str(three / f"{name}.txt") for name in expected]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [("{}/x*", "no file matches"), ("{}", "a directory"), (" ,", "names no file")],
)
def test_patterns_that_stand_for_nothing(three, patterns, message):
    with pytest.raises(UserError, match=f"--input_file=.*{message}"):
        files.expand_inputs(patterns.replace("{}", str(three)), "input_file")


def test_outputs_appear_all_together(tmp_path):
    paths = [str(tmp_path / "new" / name) for name in "ab"]
    with files.replacing(paths) as names:
        for name in names:
            with open(name, "w") as writer:
                writer.write("done")
        assert not any(files.exists(path) for path in paths)
    assert [open(path).read() for path in paths] == ["done", "done"]
    assert len(list((tmp_path / "new").iterdir())) == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(error), files.replacing([str(path)]) as [name]:
        open(name, "w").close()
        raise error
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "before"


@pytest.mark.parametrize("compressed", [False, True])
def test_lines_end_at_line_feeds_only(tmp_path, compressed):
    data = "\ufeffone\r\ntwo\u2028still two\x0bstill\n\nlast".encode()
    path = tmp_path / ("a.gz" if compressed else "a")
    path.write_bytes(gzip.compress(data) if compressed else data)
    assert list(files.read_lines(str(path))) == ["one", "two\u2028still two\x0bstill", "", "last"]


def test_a_copy_onto_itself_is_nothing(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    files.copy(str(path), str(path))
    files.copy(str(path), str(tmp_path / "b"))
    assert (tmp_path / "b").read_text() == path.read_text() == "x"
