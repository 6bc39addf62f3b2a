r"""Sends bert serve many requests, some of them broken, and compares each answer.

    python benchmarks/serve_faults.py --bert_dir=DIR --reviews=DIR [--model_dir=DIR ...]

32 clients send --requests in all, mixed: one text and many, short and long, to encode, to OpenAI's
path and to TensorFlow Serving's, and to classifiers that --model_dir names. One in twenty is
broken: no JSON, other types, too large, bytes at random, a connection that is cut in the middle or
before its answer, and callers that write some bytes now and then. Each answer is compared with the
one that the text had alone; printed are the counts, the largest difference, and the server's
memory.
"""

import argparse
import collections
import contextlib
import http.client
import json
import pathlib
import random
import socket
import subprocess
import threading
import time

import numpy as np
from serve import free_port, ours, started, texts_of

CLIENTS = 32
BROKEN = 0.05
TOLERANCE = 2e-5
KINDS_OF_BROKEN = ("no JSON", "types", "huge", "binary", "cut", "gone", "slow")


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


class Run:
    """What all clients share."""

    def __init__(self, port: int, texts: list[str], classifiers: list[str], requests: int):
        self.port, self.texts, self.classifiers = port, texts, classifiers
        self.left = requests
        self.lock = threading.Lock()
        self.counts: collections.Counter[str] = collections.Counter()
        self.largest = 0.0
        self.expected: dict[tuple[str, str], np.ndarray] = {}

    def learn(self) -> None:
        """Asks for each text alone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        for text in self.texts:
            body = json.dumps({"texts": [text]}).encode()
            reply = json.loads(post(connection, "/v1/models/m/encode", body)[1])
            self.expected["m", text] = np.array(reply["vectors"][0])
            for name in self.classifiers:
                reply = json.loads(post(connection, f"/v1/models/{name}/classify", body)[1])
                values = list(reply["predictions"][0]["probabilities"].values())
                self.expected[name, text] = np.array(values)

    def client(self, number: int) -> None:
        chance = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        while True:
            with self.lock:
                if not self.left:
                    return
                self.left -= 1
            if chance.random() < BROKEN:
                kind = chance.choice(KINDS_OF_BROKEN)
                outcome = f"broken, {kind}: {self.broken(kind, chance)}"
            else:
                outcome = self.good(connection, chance)
            with self.lock:
                self.counts[outcome] += 1

    def good(self, connection: http.client.HTTPConnection, chance: random.Random) -> str:
        """Sends a request that is right; returns what became of it."""
        texts = chance.choices(self.texts, k=chance.choice([1, 1, 1, 1, 1, 1, 1, 1, 2, 5]))
        name = chance.choice(["m", *self.classifiers])
        form = chance.choice(["own", "predict", "openai" if name == "m" else "own"])
        if form == "predict":
            path, body = f"/v1/models/{name}:predict", {"instances": texts}
        elif form == "openai":
            path, body = "/v1/embeddings", {"model": "m", "input": texts}
        else:
            path = f"/v1/models/{name}/{'encode' if name == 'm' else 'classify'}"
            body = {"texts": texts}
        for _ in range(100):
            status, content = post(connection, path, json.dumps(body).encode())
            if status != 429:
                break
            with self.lock:
                self.counts["(asked again: the queue was full)"] += 1
            time.sleep(0.2)
        if status != 200:
            return f"right: status {status}"
        found = self.values(json.loads(content))
        if len(found) != len(texts):
            return "right: WRONG NUMBER OF ANSWERS"
        differences = [np.abs(a - self.expected[name, t]).max() for a, t in zip(found, texts)]
        with self.lock:
            self.largest = max(self.largest, *differences)
        return "right: answered" if max(differences) < TOLERANCE else "right: MIXED UP"

    @staticmethod
    def values(reply: dict) -> list[np.ndarray]:
        """Returns the vectors or probabilities of an answer in any form."""
        rows = reply.get("vectors") or reply.get("data") or reply.get("predictions")
        found = []
        for row in rows or []:
            if isinstance(row, dict):
                row = row.get("embedding") or row["probabilities"]
            found.append(np.array(list(row.values()) if isinstance(row, dict) else row))
        return found

    def broken(self, kind: str, chance: random.Random) -> str:
        """Sends a request that is wrong; returns what became of it."""
        path = "/v1/models/m/encode"
        body = json.dumps({"texts": chance.choices(self.texts, k=5)}).encode()
        if kind in ("cut", "gone", "slow"):
            return self.by_hand(kind, path, body)
        if kind == "no JSON":
            body = body[: chance.randrange(len(body))]
        elif kind == "types":
            wrong = [3, None, [1, 2], {"texts": "x"}, {"texts": [None]}, {"texts": [["a"] * 3]}]
            body = json.dumps(chance.choice(wrong)).encode()
        elif kind == "huge":
            body = b'{"texts": ["' + b"x" * chance.choice([30_000, 9_000_000]) + b'"]}'
        else:
            body = chance.randbytes(chance.randrange(1, 2000))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            status, content = post(connection, path, body)
        except OSError:
            return "closed"  # the rest of a huge body is not read
        finally:
            connection.close()
        return f"status {status}" if "error" in json.loads(content) else f"SILENT {status}"

    def by_hand(self, kind: str, path: str, body: bytes) -> str:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            if kind == "cut":
                connection.sendall((head + body)[: len(head) + len(body) // 2])
            elif kind == "gone":
                connection.sendall(head + body)
            else:
                connection.sendall(head)
                for place in range(0, len(body), max(1, len(body) // 10)):
                    time.sleep(0.1)
                    connection.sendall(body[place : place + max(1, len(body) // 10)])
                return connection.recv(15).decode()[9:]
        return "left"


def memory_mb(process: int) -> float:
    """Returns the memory of a process."""
    text = pathlib.Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(text.split("VmRSS:")[1].split()[0]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--reviews", required=True)
    parser.add_argument("--model_dir", action="append", default=[], help="a classifier: NAME=DIR")
    parser.add_argument("--requests", type=int, default=10_000)
    arguments = parser.parse_args()
    port = free_port()
    flags = [f"--model_dir=m={arguments.bert_dir}"]
    flags += [f"--model_dir={each}" for each in arguments.model_dir]
    names = [each.split("=")[0] for each in arguments.model_dir]
    with started(ours(flags, port), port, stderr=subprocess.PIPE) as process:
        run = Run(port, texts_of(arguments.reviews)[:60], names, arguments.requests)
        run.learn()
        threads = [threading.Thread(target=run.client, args=[n]) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        start = shown = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            if time.monotonic() - shown > 20 or not any(map(threading.Thread.is_alive, threads)):
                shown = time.monotonic()
                print(
                    f"{shown - start:6.0f} s  {run.left:>6} left  {memory_mb(process.pid):.0f} MB",
                    flush=True,
                )
        for outcome, count in sorted(run.counts.items()):
            print(f"{count:>6} {outcome}")
        print(f"largest difference {run.largest:.1e}; memory {memory_mb(process.pid):.0f} MB")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.terminate()
            _, log = process.communicate(timeout=60)
            print(f"exit code {process.returncode}; the server's log:\n{log.decode()}")


if __name__ == "__main__":
    main()
