"""Rows that benchmarks leave for `benchmarks/all.py`, and facts about the machine.

A benchmark prints for its reader; where BENCHMARK_ROWS names a file, it also appends there what
belongs in the one table. roofline.py writes its own to the file that BENCHMARK_ROOFLINE names.
"""

import json
import os
import pathlib
import platform
import re

ROWS, ROOFLINE = "BENCHMARK_ROWS", "BENCHMARK_ROOFLINE"


def add(work: str, ours: float, peer: float, name: str, unit: str = "s", conditions: str = ""):
    """Appends a row: what ours and the peer of that name take in seconds, or do in MB/s."""
    if ROWS not in os.environ:
        return
    row = {"work": work, "ours": ours, "peer": peer, "name": name, "unit": unit}
    with open(os.environ[ROWS], "a", encoding="utf-8") as writer:
        writer.write(json.dumps({**row, "conditions": conditions}) + "\n")


def ratio(row: dict) -> float:
    """Returns how many times as fast ours is."""
    of_peer = row["peer"] / row["ours"]
    return 1.0 / of_peer if row["unit"].endswith("/s") else of_peer


def machine() -> str:
    """Returns the processor, how many cores of it, and which of its instructions matter here."""
    path = pathlib.Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = set((re.search(r"^flags\s*: (.*)$", text, re.MULTILINE) or ["", ""])[1].split())
    has = [
        f"{name} {'yes' if flag in flags else 'no'}"
        for name, flag in (
            ("AVX2", "avx2"),
            ("AVX-512", "avx512f"),
            ("bfloat16", "avx512_bf16"),
            ("AMX", "amx_bf16"),
        )
    ]
    return (
        f"{model[1] if model else platform.processor() or platform.machine()},"
        f" {os.cpu_count()} cores; {', '.join(has)}"
    )
