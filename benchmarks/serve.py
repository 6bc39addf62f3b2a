r"""Measures bert serve under load: ours, ours without batching, and a plain server of a peer.

    python benchmarks/serve.py --bert_dir=DIR --reviews=DIR [--peer_python=PYTHON]

A model lies in the first directory in Hugging Face's layout, reviews in the second in SST-2's.
PYTHON is that of an environment with sentence-transformers, fastapi and uvicorn. 1, 8 and 64
clients ask for the vector of one text at a time over loopback, as fast as they are answered, for
--seconds. Texts are dev reviews; every tenth is eight of them joined. Server and clients share the
machine. The ways take turns; printed are medians of --rounds: milliseconds that half and 99 % of
requests take at most, texts a second, and the server's processor time for a text, which says most
where others use the machine. The peer is FastAPI around encode(), each request by
itself in one of FastAPI's threads.
"""

import argparse
import collections
import contextlib
import http.client
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

import numpy as np
import table

ROOT = pathlib.Path(__file__).parent.parent
BATCHED, ALONE, PEER = "ours", "ours, no batches", "sentence-transformers"

SERVER = """
import sys
import fastapi, pydantic, uvicorn
from sentence_transformers import SentenceTransformer

class Texts(pydantic.BaseModel):
    texts: list[str]

app, model = fastapi.FastAPI(), SentenceTransformer(sys.argv[1], device="cpu")

@app.post("/v1/models/m/encode")
def encode(body: Texts):
    return {"vectors": model.encode(body.texts, show_progress_bar=False).tolist()}

uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""


def texts_of(reviews: str) -> list[str]:
    """Returns dev reviews, every tenth place with eight of them joined."""
    lines = (pathlib.Path(reviews) / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [line.rsplit("\t", 1)[0] for line in lines]
    return [
        " ".join(texts[place : place + 8]) if place % 10 == 0 else text
        for place, text in enumerate(texts)
    ]


@contextlib.contextmanager
def started(command: list[str], port: int, **popen):
    """Starts a server and waits until it answers; ends it by SIGTERM."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(command, env=environment, **popen) as process:
        try:
            for _ in range(1200):
                with contextlib.suppress(OSError):
                    http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
                    break
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            process.wait(60)


def free_port() -> int:
    """Returns the number of a port that is free now."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def ours(arguments: list[str], port: int) -> list[str]:
    """Returns the command of our server."""
    return [sys.executable, "-m", "bert_toolkit", "serve", f"--port={port}", *arguments]


class Caller(threading.Thread):
    """A client that asks for one text after the other until told to stop."""

    def __init__(self, port: int, texts: list[str], first: int, stop: threading.Event):
        super().__init__()
        self._port, self._texts, self._place, self._stop_event = port, texts, first, stop
        self.seconds: list[float] = []
        self.failures = 0

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        while not self._stop_event.is_set():
            body = json.dumps({"texts": [self._texts[self._place % len(self._texts)]]})
            self._place += 1
            start = time.perf_counter()
            connection.request(
                "POST", "/v1/models/m/encode", body, {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            response.read()
            self.seconds.append(time.perf_counter() - start)
            self.failures += response.status != 200
        connection.close()


def processor_seconds(process: int) -> float:
    """Returns what a process has used of the processor."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="utf-8").split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def load(
    process: int, port: int, texts: list[str], clients: int, seconds: float
) -> tuple[float, float, float, float]:
    """Returns p50 and p99 of latencies in ms, texts a second, and processor ms for a text."""
    stop = threading.Event()
    callers = [Caller(port, texts, n * 97, stop) for n in range(clients)]
    start, used = time.perf_counter(), processor_seconds(process)
    for caller in callers:
        caller.start()
    time.sleep(seconds)
    stop.set()
    for caller in callers:
        caller.join()
    took, used = time.perf_counter() - start, processor_seconds(process) - used
    latencies = np.array([each for caller in callers for each in caller.seconds])
    assert not sum(caller.failures for caller in callers)
    middle, high = np.percentile(latencies, [50, 99]) * 1000
    count = len(latencies)
    return float(middle), float(high), count / took, 1000 * used / count


def vectors(port: int, texts: list[str]) -> np.ndarray:
    """Returns what a server answers to texts, to compare the ways."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/models/m/encode", json.dumps({"texts": texts}), headers)
    return np.array(json.loads(connection.getresponse().read())["vectors"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--reviews", required=True)
    parser.add_argument("--peer_python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--flags", default="", help="more flags of bert serve, with spaces between")
    arguments = parser.parse_args()
    texts = texts_of(arguments.reviews)
    model = [f"--model_dir=m={arguments.bert_dir}", "--max_seq_length=256", "--normalize"]
    model += arguments.flags.split()
    port = free_port()
    ways = {BATCHED: ours(model, port), ALONE: ours([*model, "--batch_tokens=1"], port)}
    if arguments.peer_python:
        ways[PEER] = [arguments.peer_python, "-c", SERVER, arguments.bert_dir, str(port)]
    found = collections.defaultdict(list)
    answers = {}
    for turn in range(arguments.rounds):
        for way, command in ways.items():
            with started(command, port, stderr=subprocess.DEVNULL) as process:
                answers[way] = vectors(port, texts[:20])
                for clients in map(int, arguments.clients.split(",")):
                    load(process.pid, port, texts, clients, 1.0)
                    found[way, clients].append(
                        load(process.pid, port, texts, clients, arguments.seconds)
                    )
                    middle, high, rate, used = found[way, clients][-1]
                    print(
                        f"round {turn + 1}  {way:<21}{clients:>3} clients  p50 {middle:8.1f} ms"
                        f"  p99 {high:8.1f} ms  {rate:7.1f} texts/s  {used:5.1f} processor ms",
                        flush=True,
                    )
    print(f"\n{table.machine()}; medians of {arguments.rounds} rounds")
    print("| way | clients | p50 ms | p99 ms | texts/s | processor ms |\n|---|---|---|---|---|---|")
    medians = {key: [statistics.median(row) for row in zip(*rows)] for key, rows in found.items()}
    for (way, clients), (middle, high, rate, used) in sorted(
        medians.items(), key=lambda row: row[0][1]
    ):
        print(f"| {way} | {clients} | {middle:.1f} | {high:.1f} | {rate:.1f} | {used:.1f} |")
    first = next(iter(answers))
    for way, values in answers.items():
        print(f"{way}: largest difference to {first} {np.abs(values - answers[first]).max():.1e}")


if __name__ == "__main__":
    main()
