"""What a caller seldom sees: a full queue, slow callers, wrong tokens, a newer model taking over."""

import asyncio
import dataclasses
import shutil
import threading
import time

import httpx
import numpy as np
import pytest
from served_models import make_model

import bert_toolkit
from bert_toolkit.errors import UserError
from bert_toolkit.serving import app, kinds, versions
from bert_toolkit.serving.asking import Asker, RequestLimits
from bert_toolkit.serving.batching import Limits
from bert_toolkit.serving.lines import Line
from bert_toolkit.serving.metrics import Metrics
from bert_toolkit.serving.models import ServedModel, Watcher

PATH, BODY = "/v1/models/m:predict", {"instances": ["woe", "joy"]}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "encoder", "encoder")


@pytest.fixture
def serve(directory):
    """Returns a function that makes an application of a model.

    Once the model is loaded, `compute` is called before each batch.
    """
    made = []

    def make(compute=lambda: None, queue=10, timeout=30.0, **more):
        loaded = threading.Event()

        def compute_first(*arguments):
            if loaded.is_set():
                compute()
            return kinds.ENCODE.compute(*arguments)

        kind = dataclasses.replace(kinds.ENCODE, compute=compute_first)
        limits, counted = Limits(queue=queue), Metrics()
        model = ServedModel("m", str(directory), kinds.ModelSettings(), limits, counted, kind)
        loaded.set()
        made.append(model)
        return app.create(Asker({"m": model}, RequestLimits(timeout=timeout)), counted, **more)

    yield make
    for model in made:
        model.close()


def client_of(application):
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(application, raise_app_exceptions=False),
        base_url="http://server",
    )


def run(application, *calls):
    """Sends POSTs at the same time; returns their responses."""

    async def send():
        async with client_of(application) as client:
            return await asyncio.gather(*(client.post(PATH, **call) for call in calls))

    return asyncio.run(send())


def test_a_full_queue_is_refused_at_once(serve):
    may_go = threading.Event()

    def compute():
        assert may_go.wait(30)

    application = serve(compute, queue=3)

    async def send():
        async with client_of(application) as client:
            first = asyncio.ensure_future(client.post(PATH, json={"instances": ["one"]}))
            while (
                b'bert_batch_items_count{model="m"} 1.0'
                not in (await client.get("/metrics")).content
            ):
                await asyncio.sleep(0.01)
            second = asyncio.ensure_future(client.post(PATH, json=BODY))
            while b'bert_queue_items{model="m"} 2.0' not in (await client.get("/metrics")).content:
                await asyncio.sleep(0.01)
            third = await client.post(PATH, json=BODY)
            may_go.set()
            return [await first, await second, third]

    first, second, third = asyncio.run(asyncio.wait_for(send(), 60))
    assert (first.status_code, second.status_code) == (200, 200)
    assert third.status_code == 429
    assert third.json() == {"error": "model 'm': its queue is full; try again later"}
    assert third.headers["Retry-After"] == "1"


def test_what_takes_too_long_is_refused_and_leaves_the_queue(serve):
    may_go = threading.Event()
    application = serve(lambda: may_go.wait(30), timeout=0.3)
    responses = run(application, {"json": BODY}, {"json": BODY})
    may_go.set()
    for response in responses:
        assert response.status_code == 503
        assert response.json()["error"] == (
            "not computed within 0.3 seconds; send fewer texts, or try again later"
        )
    assert run(application, {"json": BODY})[0].status_code == 200


def test_a_body_that_does_not_come(serve):
    async def slowly():
        yield b'{"instances": '
        await asyncio.sleep(10)

    [response] = run(serve(timeout=0.2), {"content": slowly()})
    assert response.status_code == 408
    assert response.json() == {
        "error": "the body did not arrive within 0.2 seconds; send it faster"
    }


def test_a_body_in_parts_that_is_too_large(serve):
    async def parts():
        for _ in range(20):
            yield b" " * 100

    [response] = run(serve(most_bytes=1000), {"content": parts()})
    assert response.status_code == 413
    assert response.headers["Connection"] == "close"


def test_what_cannot_be_computed(serve, caplog):
    def compute():
        raise RuntimeError("no memory")

    [response] = run(serve(compute), {"json": BODY})
    assert response.status_code == 500
    assert response.json() == {"error": "model 'm': cannot compute this; the server's log has why"}
    assert "m: RuntimeError: no memory" in caplog.text


def test_a_token(serve):
    application = serve(token="a-secret")

    async def send():
        async with client_of(application) as client:
            for path in ("/v1/models", "/metrics", "/nothing"):
                for header in ({}, {"Authorization": "a-secret"}, {"Authorization": "Bearer x"}):
                    response = await client.get(path, headers=header)
                    assert response.status_code == 401
                    assert response.headers["WWW-Authenticate"] == "Bearer"
                    assert response.json()["error"] == (
                        "Authorization: expected Bearer and this server's token"
                    )
            bearing = {"Authorization": "Bearer a-secret"}
            assert (await client.get("/v1/models", headers=bearing)).status_code == 200
            for path in ("/", "/readyz", "/healthz"):
                assert (await client.get(path)).status_code == 200

    asyncio.run(send())


def test_a_server_that_stops_is_not_ready(serve):
    application = serve()
    application.state.stopping = True

    async def send():
        async with client_of(application) as client:
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.post(PATH, json=BODY)).status_code == 200

    asyncio.run(send())


# --- Newer versions ---


def test_the_newest_version_of_a_directory(tmp_path, directory):
    shutil.copytree(directory, tmp_path / "9")
    assert versions.newest(str(tmp_path))[:2] == (str(tmp_path / "9"), "9")
    (tmp_path / "11").mkdir()  # nothing in it yet
    (tmp_path / "unfinished-12").mkdir()
    before = versions.newest(str(tmp_path))
    assert before.name == "9"
    shutil.copytree(directory, tmp_path / "10")
    assert versions.newest(str(tmp_path)).name == "10"
    (tmp_path / "9" / "events.out").write_text("no part of the model")
    shutil.rmtree(tmp_path / "10")
    assert versions.newest(str(tmp_path)) == before
    assert versions.newest(str(directory))[:2] == (str(directory), "1")


def test_a_newer_version_takes_over_and_no_request_is_lost(tmp_path, directory, caplog):
    shutil.copytree(directory, tmp_path / "1")
    with bert_toolkit.Encoder(str(directory)) as encoder:
        old = encoder.encode(["woe"])[0]
    other = make_model(tmp_path / "made", "encoder", seed=1)
    with bert_toolkit.Encoder(str(other)) as encoder:
        new = encoder.encode(["woe"])[0]
    assert np.abs(old - new).max() > 0.01
    model = ServedModel("m", str(tmp_path), kinds.ModelSettings(), Limits(), Metrics())
    found, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            found.extend(model.submit(["woe"], [3]).result(30))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    watcher = Watcher([model], seconds=0.05)
    other.rename(tmp_path / "2")
    end = time.monotonic() + 60
    while model.version != "2" and time.monotonic() < end:
        time.sleep(0.01)
    shutil.copytree(directory, tmp_path / "3")  # one that cannot be used
    (tmp_path / "3" / "bert_model.ckpt.index").write_bytes(b"broken")
    while "3 cannot be used" not in caplog.text and time.monotonic() < end:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    watcher.close()
    last = model.submit(["woe"], [3]).result(30)[0]
    model.close()
    np.testing.assert_allclose(last, new, atol=1e-5)
    is_old, is_new = ([np.abs(one - each).max() < 1e-5 for each in found] for one in (old, new))
    assert all(a or b for a, b in zip(is_old, is_new))
    assert any(is_old)
    assert any(is_new)
    assert "the version before is still served" in caplog.text


def test_a_newer_version_has_its_own_vectors_of_the_lines(tmp_path, directory):
    lines = [Line(3, "woe"), Line(5, "a song of joy and peace")]
    model = ServedModel(
        "m", str(directory), kinds.ModelSettings(), Limits(), Metrics(), lines=lines
    )
    other = make_model(tmp_path / "2", "encoder", seed=1)
    for _ in range(2):  # the same text is nearest to itself only by vectors of one model
        [[first, second]] = model.submit(["woe"], [3], kinds.SEARCH).result(30)
        assert first[:2] == lines[0]
        assert first.cosine == pytest.approx(1, abs=1e-5)
        assert second.cosine < 0.999
        model.take_over(versions.newest(str(other)))
    model.close()


def test_a_version_that_does_something_else_is_refused(tmp_path, directory):
    model = ServedModel("m", str(directory), kinds.ModelSettings(), Limits(), Metrics())
    other = make_model(tmp_path / "classifier", "classifier")
    with pytest.raises(UserError, match="a model to classify; expected one to encode, as before"):
        model.take_over(versions.newest(str(other)))
    model.close()
