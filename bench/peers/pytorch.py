"""PyTorch's side of pytorch.ts: python pytorch.py TASK WAY D H COUNT STEPS.

It reads the weights and the points from standard input, then a line for every call, which it answers: with divergences, with the
loss and its gradient, with the losses of steps, or with log densities; all of it float32 without a header. It computes on the GPU where PyTorch has CUDA, else on the CPU.
"""

import math
import os
import sys
import threading
import time

import torch


def leave_with(parent):
    """Else what ran too long, and was given up, would slow whoever is measured next."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


threading.Thread(target=leave_with, args=[os.getppid()], daemon=True).start()

task, way, d, h, count, steps = *sys.argv[1:3], *map(int, sys.argv[3:])
training = task in ["training", "steps"]
is_density = task == "density"
matching = way == "flow matching"
inputs = d + 1 if matching else d
device = "cuda" if torch.cuda.is_available() else "cpu"


def read(*shape):
    data = bytearray(sys.stdin.buffer.read(4 * math.prod(shape)))
    return torch.frombuffer(data, dtype=torch.float32).reshape(shape).to(device)


w1, b1, w2, b2, w3, b3 = weights = [read(*shape) for shape in [(h, inputs), (h,), (h, h), (h,), (d, h), (d,)]]
for tensor in weights:
    tensor.requires_grad_(training)


def activate(z):
    """An activation and its slope."""
    if not is_density:
        a = torch.tanh(z)
        return a, 1 - a**2
    sigmoid = torch.sigmoid(z)
    return z * sigmoid, sigmoid * (1 + z * (1 - sigmoid))


def field(x, b1):
    activation = torch.nn.functional.silu if is_density else torch.tanh
    return activation(activation(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3


def passes(x, b1):
    x = x.detach().requires_grad_()
    value = field(x, b1)
    divergence = 0
    for i in range(d):
        (row,) = torch.autograd.grad(value[:, i].sum(), x, retain_graph=True, create_graph=training)
        divergence = divergence + row[:, i]
    return value, divergence


def bilinear(x, b1):
    a1, s1 = activate(x @ w1.T + b1)
    a2, s2 = activate(a1 @ w2.T + b2)
    matrix = w2 * (w1 @ w3).T
    return a2 @ w3.T + b3, (s1 @ matrix.T * s2).sum(1)


evaluate = bilinear if way.startswith("bilinear") else passes


def loss_of(x, wanted=None):
    if matching:
        return (field(x, b1) - wanted).square().mean()
    value, divergence = evaluate(x, b1)
    return (value.square().sum(1) / 2 + divergence).mean()


def train():
    loss = loss_of(x)
    return loss.detach(), *torch.autograd.grad(loss, weights)


def make_steps():
    sizes = [(count, inputs), (count, d)] if matching else [(count, d)]
    batches = [[read(*size) for size in sizes] for _ in range(steps)]
    optimizer = torch.optim.Adam(weights, lr=1e-3)

    def take():
        losses = []
        for batch in batches:
            optimizer.zero_grad()
            loss = loss_of(*batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return [torch.stack(losses)]

    return take


def log_density(steps=10):
    def slope(state, t):
        value, divergence = evaluate(state[:, :d], b1 + t * u)
        return torch.cat([value.detach(), divergence[:, None]], 1)

    state = torch.cat([x, torch.zeros(count, 1, device=device)], 1)
    step = -1 / steps
    for index in range(steps):
        t = 1 + index * step
        k1 = slope(state, t)
        k2 = slope(state + step / 2 * k1, t + step / 2)
        k3 = slope(state + step / 2 * k2, t + step / 2)
        k4 = slope(state + step * k3, t + step)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return [state[:, d] - state[:, :d].square().sum(1) / 2 - d / 2 * math.log(2 * math.pi)]


if is_density:
    u = read(h)
if task == "steps":
    answer = make_steps()
else:
    x = read(count, d)
    answer = {"divergence": lambda: [evaluate(x, b1)[1]], "training": train, "density": log_density}[task]
for _ in sys.stdin.buffer:
    for tensor in answer():
        sys.stdout.buffer.write(tensor.contiguous().cpu().numpy().tobytes())
    sys.stdout.buffer.flush()
