"""What is counted, in the form that Prometheus reads."""

import os

import prometheus_client
from prometheus_client import multiprocess

from bert_toolkit.serving.workers import DIRECTORY

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 16384)
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Metrics:
    """The numbers of a server; of all its processes, where DIRECTORY says where they lie."""

    def __init__(self) -> None:
        registry = self._registry = prometheus_client.CollectorRegistry()
        self.seconds = prometheus_client.Histogram(
            "bert_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["path", "status"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_items = prometheus_client.Histogram(
            "bert_batch_items",
            "Texts or questions in a batch.",
            ["model"],
            buckets=_SIZES,
            registry=registry,
        )
        self.batch_tokens = prometheus_client.Histogram(
            "bert_batch_tokens",
            "Tokens in a batch, without padding; their sum is all that were computed.",
            ["model"],
            buckets=_TOKENS,
            registry=registry,
        )
        self.queue = prometheus_client.Gauge(
            "bert_queue_items",
            "Texts or questions that wait.",
            ["model"],
            multiprocess_mode="livesum",
            registry=registry,
        )

    def page(self) -> bytes:
        """Returns all numbers as text."""
        registry = self._registry
        if os.environ.get(DIRECTORY):
            registry = prometheus_client.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
        return prometheus_client.generate_latest(registry)
