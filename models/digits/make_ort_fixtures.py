#!/usr/bin/env python3
"""Quantize digits.onnx with ONNX Runtime's own tool, as fixtures for our importer.

Writes four models into DIRECTORY, from digits.onnx and calibration.npz beside
this script:

    ort_static_qdq.onnx              quantize_static, default settings
    ort_static_qdq_per_channel.onnx  the same, weights scaled per output channel
    ort_static_qoperator.onnx        quantize_static in the QOperator format
    ort_dynamic.onnx                 quantize_dynamic, uint8 weights

The dynamic model has uint8 weights, not the default int8 ones, because it
holds ConvInteger nodes, which older ONNX Runtimes (1.20.1 was tried, 1.32.0
does both) run on the CPU with uint8 weights alone.

Each model is run by ONNX Runtime on the calibration images before the script
succeeds, so a fixture that its own maker refuses is never written unnoticed.

    pip install onnx onnxruntime
    python models/digits/make_ort_fixtures.py models/digits/ort
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

HERE = Path(__file__).resolve().parent
MODEL = HERE / "digits.onnx"
CALIBRATION = HERE / "calibration.npz"
BATCH = 100


def batches(image: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(image), BATCH):
        yield {"image": image[start : start + BATCH]}


class Calibration(CalibrationDataReader):
    """Hands the calibration images to quantize_static, a batch at a time."""

    def __init__(self, image: np.ndarray) -> None:
        self._batches = batches(image)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def top1(path: Path, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], feed)[0].argmax(1) for feed in batches(image)])


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Write models quantized by ONNX Runtime, as fixtures for the importer."
    )
    parser.add_argument(
        "directory", type=Path, metavar="DIRECTORY", help="where to write; made if missing"
    )
    directory: Path = parser.parse_args().directory

    # quantize_* advises a pre-processing pass on every call. It would only fuse
    # batch norm and infer shapes, and digits.onnx has none left to fuse.
    logging.disable(logging.WARNING)

    with np.load(CALIBRATION) as data:
        image = data["image"]
    directory.mkdir(parents=True, exist_ok=True)

    def static(name: str, quant_format: QuantFormat, *, per_channel: bool = False) -> None:
        quantize_static(
            MODEL,
            directory / name,
            Calibration(image),
            quant_format=quant_format,
            per_channel=per_channel,
        )

    static("ort_static_qdq.onnx", QuantFormat.QDQ)
    static("ort_static_qdq_per_channel.onnx", QuantFormat.QDQ, per_channel=True)
    static("ort_static_qoperator.onnx", QuantFormat.QOperator)
    quantize_dynamic(MODEL, directory / "ort_dynamic.onnx", weight_type=QuantType.QUInt8)

    expected = top1(MODEL, image)
    failed = False
    for path in sorted(directory.glob("ort_*.onnx")):
        share = float((top1(path, image) == expected).mean())
        print(f"{path.name}: {path.stat().st_size:,} bytes, top-1 as the float model {share:.1%}")
        failed |= share < 0.98
    if failed:
        print("error: a model quantized here disagrees with the float model", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
