"""The page of attention holds what extract_features.py --attention writes, and loads nothing."""

import base64
import json
import re

import numpy as np
import pytest
from conftest import run_stage

import extract_features
from bert_toolkit.commands import attention
from bert_toolkit.errors import UserError

PAIR = ("the word was with god", "</script> & <b>void</b>")


def content(path):
    page = path.read_text(encoding="utf-8")
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return page, json.loads(data)


def test_the_page_holds_the_weights(tmp_path, model_dir):
    out = tmp_path / "page.html"
    flags = {"bert_dir": model_dir, "text": PAIR[0], "text_b": PAIR[1], "output_file": out}
    result = run_stage("attention", flags)
    assert result.returncode == 0, result.stderr
    assert re.search(r"wrote .*page.html: \d+ tokens, 2 layers of 4 heads, ", result.stderr)
    (tmp_path / "lines.txt").write_text(" ||| ".join(PAIR) + "\n")
    extract_features.run(
        extract_features.Options(
            input_file=str(tmp_path / "lines.txt"),
            output_file=str(tmp_path / "out.npz"),
            bert_dir=str(model_dir),
            attention=True,
            layers="all",
        )
    )
    expected = np.load(tmp_path / "out.npz", allow_pickle=False)
    page, data = content(out)
    assert data["tokens"] == expected["tokens_0"].tolist()
    length = len(data["tokens"])
    numbers = np.frombuffer(base64.b64decode(data["weights"]), "<u2")
    weights = numbers.reshape(data["layers"], data["heads"], length, length) / 65535
    np.testing.assert_allclose(weights, expected["attention_0"], atol=1e-5)
    first = data["tokens"].index("[SEP]") + 1
    assert data["segments"] == [0] * first + [1] * (length - first)
    assert [place for place in range(length) if data["special"][place]] == [
        0,
        first - 1,
        length - 1,
    ]
    assert "golden_model" in page
    assert "{{" not in page
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"output_file": "a.png"}, "--output_file=a.png: expected a name that ends in .html"),
        ({"bert_dir": ""}, "--vocab_file is required"),
        ({"max_seq_length": 200}, "--max_seq_length=200, but .* says max_position_embeddings 128"),
        ({"bert_dir": "nowhere"}, "--bert_dir=nowhere: no such directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown(tmp_path, model_dir, flags, message):
    chosen = {"bert_dir": str(model_dir), "text": "a", "output_file": str(tmp_path / "a.html")}
    with pytest.raises(UserError, match=message):
        attention.run(attention.Options(**{**chosen, **flags}))
    assert not (tmp_path / "a.html").exists()
