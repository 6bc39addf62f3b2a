"""bert serve as callers see it: what it answers is what Python gives, and every refusal a sentence."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

import numpy as np
import pytest
from conftest import GOLDEN, ROOT, run_stage
from served_models import TASKS, VERBS, call, make_model, server

import bert_toolkit
import extract_features
from tokenization import FullTokenizer

TEXTS = [
    "the people rejoice with gladness",
    "woe",
    "",
    "a cry of sorrow and wrath in the house of violence " * 5,
    ("a song of joy", "and peace"),
]
MASKED = ["the [MASK] rejoice", "[MASK] and [MASK]", "a [MASK] of joy"]
QUESTIONS = [
    ("who rejoice", "the people rejoice with gladness"),
    ("what is blessed", "blessed is the house of mercy " * 30),
    ("", ""),
]
VERBS_SERVED = [*VERBS.values(), "fill"]
LINES = ["a song of joy and peace", "", "woe unto the house of violence", "woe ||| joy"]
LIMITS = ["--max_texts=20", "--max_characters=2000", "--max_bytes=30000"]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    parent = tmp_path_factory.mktemp("models")
    return {name: make_model(parent / name, name) for name in TASKS}


@pytest.fixture(scope="module")
def url(directories, tmp_path_factory):
    lines = tmp_path_factory.mktemp("lines") / "lines.txt"
    lines.write_text("\n".join(LINES) + "\n")
    flags = [f"--model_dir={directory}" for directory in directories.values()]
    flags.append(f"--fill_mask_dir=filler={directories['encoder']}")
    flags.append(f"--lines_file={lines}")
    with server(*flags, *LIMITS, "--max_seq_length=32") as (_, address):
        yield address


def plain(results):
    """Returns results as lists and numbers, to be compared."""
    return json.loads(json.dumps(results))


def assert_same(found, expected):
    """Compares with an allowance for floats: a batch adds in another order."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_same(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-5) if type(expected) is float else expected)


@pytest.fixture(scope="module")
def in_python(directories):
    """Verb -> the answers of Python to each item, alone."""
    made = {
        "encode": (bert_toolkit.Encoder, lambda m, i: m.encode([i])[0].tolist(), TEXTS),
        "classify": (bert_toolkit.TextClassifier, lambda m, i: m.predict([i])[0], TEXTS),
        "tag": (bert_toolkit.TokenClassifier, lambda m, i: m.tag([i])[0], TEXTS[:4]),
        "answer": (bert_toolkit.QuestionAnswerer, lambda m, i: m.answer(*i), QUESTIONS),
    }
    expected = {}
    for name, verb in VERBS.items():
        loader, ask, items = made[verb]
        with loader(str(directories[name]), max_seq_length=32) as model:
            expected[verb] = [(item, plain(ask(model, item))) for item in items]
    with bert_toolkit.FillMask(str(directories["encoder"]), max_seq_length=32) as model:
        expected["fill"] = [(text, plain(model.fill([text])[0])) for text in MASKED]
    return expected


def test_many_callers_get_what_python_gives(url, in_python):
    wrong, done = [], []

    def ask(number):
        chance = np.random.default_rng(number)
        with bert_toolkit.Client(url) as client:
            for _ in range(15):
                verb = str(chance.choice(list(in_python)))
                rows = [in_python[verb][n] for n in chance.integers(0, 3, chance.integers(1, 5))]
                found = getattr(client, verb)([item for item, _ in rows])
                found = found.tolist() if verb == "encode" else plain(found)
                try:
                    assert_same(found, [expected for _, expected in rows])
                except AssertionError as error:
                    wrong.append((verb, error))
                done.append(verb)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    assert len(done) == 12 * 15


def test_every_item_has_its_answer_in_order(url, in_python):
    client = bert_toolkit.Client(url)
    for verb, rows in in_python.items():
        many = rows * 9  # more than one request may have
        found = getattr(client, verb)([item for item, _ in many])
        found = found.tolist() if verb == "encode" else plain(found)
        assert_same(found, [expected for _, expected in many])
    assert client.encode([]).shape == (0, 0)
    assert client.classify([]) == []


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("encoder/encode", b"{", 422, "the body is not JSON (Expecting property name enclosed in double quotes at character 1)"),
        ("encoder/encode", b"", 422, "the body: missing"),
        ("encoder/encode", b"[]", 422, "the body: expected an object"),
        ("encoder/encode", b"\xff\xfe\x00", 400, "the body is not JSON; expected an object, in UTF-8"),
        ("encoder/encode", b"[" * 20000, 400, "the body is not JSON; expected an object, in UTF-8"),
        ("encoder/encode", {"texts": "one text"}, 422, "texts: expected a list"),
        ("encoder/encode", {"texts": ["a", 3]}, 422, "texts[1]: expected a string"),
        ("encoder/encode", {"texts": ["a", ["b"]]}, 422, "texts[1]: expected a string"),
        ("encoder/encode", {"texts": ["\ud800"]}, 422, "texts[0]: half a surrogate pair in it; expected Unicode text, with both halves of a pair"),
        ("encoder/encode", {"text": ["a"]}, 422, "texts: missing"),
        ("encoder/encode", {"texts": [], "encoding_format": "hex"}, 422, "encoding_format: input should be 'float' or 'base64'"),
        ("encoder/encode", {"texts": ["a"] * 21}, 413, "texts: 21 of them; expected at most 20 in a request; send several requests"),
        ("encoder/encode", {"texts": ["a", ["b" * 1000, "c" * 1001]]}, 413, "texts[1]: 2,001 characters; expected at most 2,000; cut it into parts"),
        ("encoder/encode", b" " * 30001, 413, "the body has more than 30,000 bytes; send texts in several requests"),
        ("encoder/classify", {"texts": ["a"]}, 404, "model 'encoder' does not classify; use /v1/models/encoder/encode"),
        ("nobody/encode", {"texts": ["a"]}, 404, "model 'nobody': not served here; served are encoder, classifier, tagger, answerer, filler"),
        ("..%2f..%2fetc%2fpasswd/encode", {"texts": ["a"]}, 404, "POST /v1/models/../../etc/passwd/encode: no such path; /docs lists those there are"),
        ("tagger/tag", {"texts": [["a", "pair"]]}, 422, "texts[0]: expected a string"),
        ("answerer/answer", {"questions": [{"question": "a"}]}, 422, "questions[0].context: missing"),
        ("classifier:predict", {"instances": [{"words": "a"}]}, 422, "instances[0]: expected a text, or an object with text or with text_a and text_b"),
        ("answerer:predict", {"instances": ["a"]}, 422, "instances[0]: expected question and context"),
        ("filler/fill", {"texts": ["a [MASK]", "a word"]}, 422, "texts[1]: no [MASK] in it; expected one or more"),
        ("filler/fill", {"texts": ["[MASK] " * 17]}, 413, "texts[0]: 17 [MASK] in it; expected at most 16; cut it into parts"),
        ("filler/fill", {"texts": ["[MASK]"], "top_k": 0}, 422, "top_k: input should be greater than or equal to 1"),
        ("filler/search", {"texts": ["a"]}, 404, "model 'filler' does not search; use /v1/models/filler/fill"),
        ("encoder/search", {"texts": ["a"], "top_k": 21}, 422, "top_k: input should be less than or equal to 20"),
        ("encoder/attend", {"texts": ["the house"] * 20}, 413, "texts: 80 tokens; expected at most 64 in a request to attend; shorten it"),
        ("filler:predict", {"instances": ["a word"]}, 422, "text: no [MASK] in it; expected one or more to fill"),
        ("nobody:predict", {"instances": ["a"]}, 404, "model 'nobody': not served here; served are encoder, classifier, tagger, answerer, filler"),
    ],
)  # fmt: skip
def test_refusals(url, path, body, status, sentence):
    found, content, _ = call(f"{url}/v1/models/{path}", body)
    assert (found, json.loads(content)) == (status, {"error": sentence})


def test_the_nearest_of_the_lines(url, directories):
    """Their numbers are those of the file, where one is blank; one is a pair."""
    texts = ["a song of joy and peace", ("woe", "joy"), ""]
    client = bert_toolkit.Client(url)
    with bert_toolkit.Encoder(str(directories["encoder"]), max_seq_length=32) as encoder:
        lines, queries = encoder.encode([*LINES[:3], ("woe", "joy")]), encoder.encode(texts)
    there = [0, 2, 3]
    for query, found in zip(queries, client.search(texts)):
        norms = np.linalg.norm(lines, axis=1) * np.linalg.norm(query)
        cosines = (lines @ query / norms)[there]
        order = np.argsort(-cosines)
        assert [one.line for one in found] == [there[n] + 1 for n in order]
        assert [one.text for one in found] == [LINES[there[n]] for n in order]
        assert [one.cosine for one in found] == pytest.approx(cosines[order].tolist(), abs=1e-5)
    assert len(client.search(["woe"], top_k=1, model="encoder")[0]) == 1
    [encoder] = [one for one in client.models() if one["id"] == "encoder"]
    assert (encoder["also"], encoder["lines"]) == (["attend", "search"], 3)


@pytest.mark.parametrize("name", [*TASKS, "filler"])
def test_attention_of_a_text(tmp_path, url, directories, name):
    """Whatever the model is for, its weights are those that extract_features.py writes."""
    text, pair = "the people rejoice", ("a song of joy", "and peace")
    (tmp_path / "lines.txt").write_text(f"{text}\n{' ||| '.join(pair)}\n")
    directory = directories.get(name, directories["encoder"])
    extract_features.run(
        extract_features.Options(
            input_file=str(tmp_path / "lines.txt"),
            output_file=str(tmp_path / "out.npz"),
            bert_dir=str(directory),
            attention=True,
            layers="all",
        )
    )
    expected = np.load(tmp_path / "out.npz", allow_pickle=False)
    for number, found in enumerate(bert_toolkit.Client(url).attend([text, pair], model=name)):
        assert found.tokens == expected[f"tokens_{number}"].tolist()
        np.testing.assert_allclose(found.weights, expected[f"attention_{number}"], atol=2e-6)
        first = found.tokens.index("[SEP]") + 1
        assert found.segments == [0] * first + [1] * (len(found.tokens) - first)


def test_only_post_asks(url):
    status, content, _ = call(f"{url}/v1/models/encoder/encode")
    assert status == 405
    assert json.loads(content)["error"].startswith("GET /v1/models/encoder/encode: no such path")


def test_what_openais_clients_send(url, in_python):
    [(text, expected), (other, _), *_] = in_python["encode"]
    body = {"model": "encoder", "input": [text, other], "encoding_format": "base64", "user": "me"}
    status, content, _ = call(f"{url}/v1/embeddings", body)
    reply = json.loads(content)
    assert status == 200
    assert [row["index"] for row in reply["data"]] == [0, 1]
    first = np.frombuffer(base64.b64decode(reply["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(first, expected, atol=1e-5)
    assert reply["model"] == "encoder"
    tokenizer = FullTokenizer(str(GOLDEN / "vocab.txt"))
    tokens = sum(len(tokenizer.encode(one)) + 2 for one in (text, other))
    assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    _, content, _ = call(f"{url}/v1/embeddings", {"model": "encoder", "input": text})
    [row] = json.loads(content)["data"]
    assert_same(row["embedding"], expected)
    _, content, _ = call(f"{url}/v1/models")
    assert [one["id"] for one in json.loads(content)["data"]] == [*TASKS, "filler"]


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"input": [1, 2]}, 422, "input: token ids; expected texts"),
        ({"input": [[1, 2]]}, 422, "input: token ids; expected texts"),
        ({"input": 3}, 422, "input: expected a string"),
        ({"dimensions": 8}, 422, "dimensions: 8; this model's vectors have 32; leave it out"),
        ({"model": "classifier"}, 404, "model 'classifier' does not encode"),
        ({"model": "../encoder"}, 404, "model '../encoder': not served here"),
    ],
)  # fmt: skip
def test_refusals_in_openais_form(url, changes, status, sentence):
    found, content, _ = call(
        f"{url}/v1/embeddings", {"model": "encoder", "input": "a text", **changes}
    )
    error = json.loads(content)["error"]
    assert found == status
    assert error["message"].startswith(sentence)
    assert error["type"] == "invalid_request_error"


def test_what_clients_of_tensorflow_serving_send(url, in_python):
    def predict(name, *instances):
        body = {"signature_name": "text", "instances": instances}
        status, content, _ = call(f"{url}/v1/models/{name}:predict", body)
        assert status == 200
        return json.loads(content)["predictions"]

    (text, vector), _, _, _, ((first, second), _) = in_python["encode"]
    assert_same(predict("encoder", text, {"text": text}), [vector, vector])
    predicted = [label_and_probabilities for _, label_and_probabilities in in_python["classify"]]
    found = predict("classifier", {"text": text}, {"text_a": first, "text_b": second})
    for one, (label, probabilities) in zip(found, [predicted[0], predicted[-1]]):
        assert one["label"] == label
        assert_same(one["probabilities"], list(probabilities.values()))
    [(question, context), (answer, *_)] = in_python["answer"][0]
    [found] = predict("answerer", {"question": question, "context": context})
    assert found["text"] == answer
    [entities] = predict("tagger", text)
    assert [entity["text"] for entity in entities] == [one[0] for one in in_python["tag"][0][1]]
    _, content, _ = call(f"{url}/v1/models/classifier")
    [version] = json.loads(content)["model_version_status"]
    assert (version["version"], version["state"]) == ("1", "AVAILABLE")


def test_what_looks_after_the_server(url):
    call(f"{url}/v1/models/encoder/encode", {"texts": ["woe", "woe"]})
    assert call(f"{url}/healthz")[:2] == (200, b'{"status":"ok"}')
    assert call(f"{url}/readyz")[:2] == (200, b'{"status":"ready"}')
    status, page, headers = call(url)
    assert status == 200
    assert page.startswith(b"<!DOCTYPE html>")
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert b"://" not in page  # nothing from elsewhere
    for verb in (*VERBS_SERVED, "search"):  # it knows every kind
        assert f"\n  {verb}: {{\n".encode() in page
    assert re.search(rb"url: ['\"]openapi\.json['\"]", call(f"{url}/docs")[1])  # under any path
    paths = json.loads(call(f"{url}/openapi.json")[1])["paths"]
    assert {f"/v1/models/{{name}}/{verb}" for verb in VERBS_SERVED} <= paths.keys()
    numbers = call(f"{url}/metrics")[1].decode()
    assert 'bert_request_seconds_count{path="/v1/models/{name}/encode",status="200"}' in numbers
    assert 'bert_batch_tokens_sum{model="encoder"}' in numbers
    assert 'bert_queue_items{model="encoder"} 0.0' in numbers


def test_callers_that_go_away_leave_the_server_as_it_was(url):
    host, port = urllib.parse.urlsplit(url).netloc.split(":")
    request = b"POST /v1/models/encoder/encode HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    body = json.dumps({"texts": ["woe"] * 20}).encode()
    for sent in (b"", b"POST", b"\0\xff\r\n\r\n", request % 100, request % len(body) + body):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
    assert call(f"{url}/v1/models/encoder/encode", {"texts": ["woe"]})[0] == 200


def test_sigterm_answers_what_was_asked_and_ends(directories):
    """A request that has begun when the signal comes, and whose body comes after it."""
    with server(f"--model_dir={directories['encoder']}") as (process, url):
        address = tuple(urllib.parse.urlsplit(url).netloc.split(":"))
        body = json.dumps({"texts": ["woe"]}).encode()
        with socket.create_connection(address) as connection:
            connection.sendall(
                b"POST /v1/models/encoder/encode HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body)
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
            process.terminate()
            while True:  # until the port is closed
                try:
                    socket.create_connection(address).close()
                except ConnectionError:
                    break
                time.sleep(0.01)
            assert process.poll() is None
            connection.sendall(body)
            answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'{"model":"encoder","vectors":[[' in answer


@pytest.mark.slow
def test_workers_share_a_port_and_are_replaced(directories):
    with server(f"--model_dir={directories['encoder']}", "--workers=2") as (process, url):
        while len(children := _children(process.pid)) < 2:  # one begins when the one before serves
            assert process.poll() is None
            time.sleep(0.1)
        for _ in range(20):
            assert call(f"{url}/v1/models/encoder/encode", {"texts": ["woe"]})[0] == 200
        numbers = call(f"{url}/metrics")[1].decode()
        assert 'bert_batch_items_sum{model="encoder"} 20.0' in numbers  # of both
        os.kill(children[0], signal.SIGKILL)
        with bert_toolkit.Client(url) as client:
            while children[0] in (there := _children(process.pid)) or len(there) < 2:
                assert client.encode(["woe"]).shape == (1, 32)
                time.sleep(0.1)


def _children(process):
    found = subprocess.run(
        ["ps", "--ppid", str(process), "-o", "pid="], capture_output=True, text=True, check=False
    )
    return [int(number) for number in found.stdout.split()]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--model_dir is required (or --fill_mask_dir)"),
        (["--model_dir=nowhere"], "--model_dir=nowhere: no such directory"),
        (["--model_dir=m", "--model_dir=b/m"], "--model_dir=b/m: a second model named m; write --model_dir=NAME=DIR"),
        (["--model_dir=m", "--fill_mask_dir=m"], "--fill_mask_dir=m: a second model named m; write --fill_mask_dir=NAME=DIR"),
        (["--model_dir=a model"], "--model_dir=a model: 'a model' is no name for a model; expected letters, digits and ._-; write --model_dir=NAME=DIR"),
        (["--model_dir=m", "--host=999.1.1.1"], "--host=999.1.1.1 --port=0: Name or service not known; pass another --port (0 for any that is free), or another --host"),
        (["--model_dir=m", "--max_queue=3"], "--max_queue=3, but a request may have --max_texts=256; pass at least that"),
        (["--model_dir=m", "--workers=2", "--watch"], "--watch: each of --workers would take a newer model over at another time; start the server anew instead"),
        (["--model_dir=m", "--lines_file=nothing"], "--lines_file=nothing: no such file"),
        (["--model_dir=m", "--token_file=nothing"], "--token_file=nothing: no such file"),
        (["--model_dir=m", "--token_file=two"], "--token_file=two: no token; expected one word of ASCII characters, such as openssl rand -hex 32 makes"),
    ],
)  # fmt: skip
def test_what_cannot_be_served(tmp_path, flags, message):
    (tmp_path / "two").write_text("two words")
    (tmp_path / "m").mkdir()
    result = run_stage("serve", "--port=0", *flags, cwd=tmp_path)
    assert result.returncode in (1, 2)
    assert result.stderr.splitlines()[0] == f"error: {message}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("encoder", "\n \n", "empty; expected lines of text"),
        ("encoder", "a\n" * 100_001, "more than 100,000 lines; expected at most that, as each text is compared with all; pass a part of them"),
        ("classifier", "a\n", "none of the models gives vectors; expected one --model_dir of an encoder, or leave it out"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be_searched(tmp_path, directories, name, content, message):
    (tmp_path / "lines.txt").write_text(content)
    flags = {"model_dir": directories[name], "lines_file": "lines.txt", "port": 0}
    result = run_stage("serve", flags, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"error: --lines_file=lines.txt: {message}"


def test_a_port_that_is_taken(tmp_path):
    (tmp_path / "m").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_stage("serve", "--model_dir=m", f"--port={port}", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        f"error: --host=127.0.0.1 --port={port}: Address already in use; pass another --port"
        " (0 for any that is free), or another --host\n"
    )


def test_the_client_does_without_tensorflow():
    code = "import sys; from bert_toolkit import Client; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_what_the_client_says(url):
    with pytest.raises(bert_toolkit.errors.UserError, match="url=x: expected http://host:port"):
        bert_toolkit.Client("x")
    with pytest.raises(ConnectionError, match="http://127.0.0.1:1: cannot be reached"):
        bert_toolkit.Client("http://127.0.0.1:1", retries=0).encode(["woe"])
    client = bert_toolkit.Client(url)
    with pytest.raises(TypeError, match="expected a list of texts"):
        client.encode("woe")
    with pytest.raises(bert_toolkit.errors.UserError, match="does not encode; .* .status 404"):
        client.encode(["woe"], model="tagger")
