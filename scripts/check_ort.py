#!/usr/bin/env python3
"""Compare our executor's predictions with those of ONNX Runtime on one model.

    quaver run MODEL.onnx --data DATA.npz -o LOGITS.npz
    python scripts/check_ort.py MODEL.onnx DATA.npz --quaver-logits LOGITS.npz

Needs numpy and onnxruntime. Exit status: 0 when enough top-1 predictions
agree, 1 when too few do, 2 when an input cannot be used.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplementedByRuntime

MAX_BATCH = 100  # bounds the memory that ONNX Runtime takes
SHOWN = 10


class InputError(Exception):
    """An input cannot be used; the message says which one and why."""


def load_array(path: Path, key: str) -> np.ndarray:
    """Return array `key` of the .npz archive at `path`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not a complete .npz archive")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if key not in archive.files:
                held = ", ".join(archive.files) or "nothing"
                raise InputError(f"{path}: no array `{key}`; the archive holds {held}")
            return archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as .npz: {error}") from error


def load_data(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of a data set, one label per image."""
    image, label = load_array(path, "image"), load_array(path, "label")
    if image.ndim == 0 or len(image) == 0:
        raise InputError(f"{path}: `image` has no rows, so there is nothing to compare")
    if label.shape != (len(image),):
        raise InputError(
            f"{path}: `label` has shape {label.shape}, expected ({len(image)},) to match `image`"
        )
    return image, label


def check_logits(name: str, logits: np.ndarray, rows: int) -> None:
    """Refuse logits of which a top-1 prediction would mean nothing."""
    if logits.ndim != 2 or logits.shape[0] != rows or logits.shape[1] == 0:
        raise InputError(f"{name}: shape {logits.shape}, expected ({rows}, classes)")
    if not np.issubdtype(logits.dtype, np.floating):
        raise InputError(f"{name}: element type {logits.dtype}, expected a float type")
    bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if bad:
        raise InputError(f"{name}: {bad} of {rows} rows hold NaN or infinity")


def open_session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """Open a model so that its sums do not saturate, if ONNX Runtime can run it so."""
    providers = ["CPUExecutionProvider"]
    # Without VNNI, sums of u8 by i8 saturate unless it multiplies u8 by u8, which QGemm cannot.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except NotImplementedByRuntime:
        options.add_session_config_entry("session.x64quantprecision", "0")
        return ort.InferenceSession(str(path), options, providers=providers)


def run_onnxruntime(path: Path, image: np.ndarray, batch: int, optimize: bool) -> np.ndarray:
    """Return the model's first output for `image`, computed `batch` rows at a time."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # onnxruntime's exceptions share no public base class narrower than Exception
    try:
        session = open_session(path, options)
        output = session.get_outputs()[0].name
        parts = [
            session.run([output], {"image": image[start : start + batch]})[0]
            for start in range(0, len(image), batch)
        ]
    except Exception as error:
        raise InputError(f"{path}: ONNX Runtime cannot run it: {error}") from error
    return np.concatenate(parts)


def batch_size(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_BATCH:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {MAX_BATCH}")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share between 0 and 1")
    return value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(
            "Run MODEL in ONNX Runtime and compare its top-1 predictions with those "
            "that `quaver run` wrote for the same data."
        ),
        epilog="Exit status: 0 agreement reached, 1 not reached, 2 an input cannot be used.",
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL.onnx", help="model with an input named `image`"
    )
    parser.add_argument(
        "data", type=Path, metavar="DATA.npz", help="arrays `image` and `label`, one row each"
    )
    parser.add_argument(
        "--quaver-logits",
        type=Path,
        required=True,
        metavar="LOGITS.npz",
        help="array `logits` [rows, classes] written by `quaver run MODEL.onnx --data DATA.npz`",
    )
    parser.add_argument(
        "--min-agreement",
        type=share,
        default=0.999,
        metavar="SHARE",
        help="least share of rows whose top-1 must agree (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=batch_size,
        default=MAX_BATCH,
        metavar="ROWS",
        help=(
            f"rows per run in ONNX Runtime, at most {MAX_BATCH} (default: %(default)s); matters "
            "for dynamically quantized models alone, whose ranges are taken over a whole batch"
        ),
    )
    parser.add_argument(
        "--as-written",
        action="store_true",
        help=(
            "run the operators as the file has them: ONNX Runtime's optimizations move where values "
            "are rounded, which weighs with few bits"
        ),
    )
    return parser.parse_args()


def compare(arguments: argparse.Namespace) -> bool:
    """Print the comparison; return whether enough predictions agree."""
    image, label = load_data(arguments.data)
    ours = load_array(arguments.quaver_logits, "logits")
    check_logits(f"{arguments.quaver_logits}: `logits`", ours, len(image))
    theirs = run_onnxruntime(
        arguments.model, image, arguments.batch, optimize=not arguments.as_written
    )
    check_logits(f"{arguments.model}: output in ONNX Runtime", theirs, len(image))
    if ours.shape != theirs.shape:
        raise InputError(
            f"{arguments.quaver_logits}: `logits` has {ours.shape[1]} classes, "
            f"the model has {theirs.shape[1]}"
        )

    our_top, their_top = ours.argmax(axis=1), theirs.argmax(axis=1)
    differing = np.flatnonzero(our_top != their_top)
    agreement = 1 - len(differing) / len(image)
    print(
        f"top-1 agreement {agreement:.4f} ({len(image) - len(differing)}/{len(image)} rows), "
        f"accuracy: quaver {(our_top == label).mean():.4f}, "
        f"onnxruntime {(their_top == label).mean():.4f}"
    )
    # Counts are compared, so that a share such as 0.999 is not missed by rounding.
    if len(image) - len(differing) >= arguments.min_agreement * len(image) - 1e-9:
        return True

    print(f"error: agreement {agreement:.4f} is below {arguments.min_agreement}", file=sys.stderr)
    for row in differing[:SHOWN]:
        print(
            f"  row {row}: quaver {our_top[row]}, onnxruntime {their_top[row]}, label {label[row]}",
            file=sys.stderr,
        )
    if len(differing) > SHOWN:
        print(f"  and {len(differing) - SHOWN} more", file=sys.stderr)
    return False


def main() -> int:
    try:
        return 0 if compare(parse_arguments()) else 1
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
