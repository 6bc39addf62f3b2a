"""What layers compute in: chosen by the hardware where --precision=auto asks for that."""

import dataclasses
from typing import Any, Optional, TypeVar

import tensorflow.compat.v1 as tf
from absl import logging

AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
CPUINFO = "/proc/cpuinfo"
AMPERE = (8, 0)  # the first compute capability of NVIDIA's with bfloat16

Options = TypeVar("Options", bound=Any)


def resolve(options: Options) -> Options:
    """Returns the options with a precision for --precision=auto, and says which it is.

    That is bfloat16 where the device computes it in hardware, else float32. float16 is never
    chosen, as it needs a loss scale and leaves steps out.
    """
    if options.precision != AUTO:
        return options
    device, has_bfloat16 = _device(options.use_tpu)
    chosen = BFLOAT16 if has_bfloat16 else FLOAT32
    logging.info("--precision=auto: %s, as %s", chosen, device)
    return dataclasses.replace(options, precision=chosen)


def _device(use_tpu: bool) -> tuple[str, bool]:
    """Returns the device in words, and whether it computes bfloat16."""
    if use_tpu:
        return "TPUs compute bfloat16", True
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        has_it = all(detail.get("compute_capability", (0, 0)) >= AMPERE for detail in details)
        return f"the GPUs {'compute' if has_it else 'do not all compute'} bfloat16", has_it
    processor = processor_has_bfloat16()
    words = {True: "computes", False: "does not compute", None: "is not known to compute"}
    return f"this processor {words[processor]} bfloat16", bool(processor)


def processor_has_bfloat16() -> Optional[bool]:
    """Returns whether the processor multiplies in bfloat16; None where that cannot be told."""
    try:
        with open(CPUINFO, encoding="ascii", errors="ignore") as reader:
            features = reader.read()
    except OSError:
        return None
    return "avx512_bf16" in features or "amx_bf16" in features


def warn_if_slow(precision: str) -> None:
    """Warns where half precision is computed by detours."""
    if precision == FLOAT32 or tf.config.list_physical_devices("GPU"):
        return
    if precision != BFLOAT16 or processor_has_bfloat16() is False:
        logging.warning(
            "--precision=%s: this processor cannot compute in it and will be slow; use float32",
            precision,
        )
