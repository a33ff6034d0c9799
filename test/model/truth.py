"""The truth of a chain with a time: PyTorch's float64 numbers (NAME.json) and its export (NAME.onnx) beside NAME.safetensors.

    python3 test/model/truth.py demo/models/two-moons "What it is."

Reads what the safetensors file says of itself: activation, and how many of the last inputs are the context.
"""
import json
import struct
import sys

import torch

path, about = sys.argv[1:]
with open(f"{path}.safetensors", "rb") as file:
    (size,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(size))
    data = file.read()
metadata = header.pop("__metadata__")
tensors = {}
for name, entry in header.items():
    begin, end = entry["data_offsets"]
    tensors[name] = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.float32).reshape(entry["shape"])

activations = {"gelu": torch.nn.GELU, "relu": torch.nn.ReLU, "silu": torch.nn.SiLU, "softplus": torch.nn.Softplus, "tanh": torch.nn.Tanh}
weights = [tensors[name] for name in sorted(tensors, key=lambda name: int(name.split(".")[0])) if name.endswith(".weight")]
layers = []
for weight in weights:
    layers += [torch.nn.Linear(weight.shape[1], weight.shape[0]), activations[metadata["activation"]]()]
net = torch.nn.Sequential(*layers[:-1])
net.load_state_dict(tensors)

c = int(metadata["context"])
widths = [weights[0].shape[1]] + [weight.shape[0] for weight in weights]
d = widths[-1]
torch.onnx.export(net, torch.zeros(1, widths[0]), f"{path}.onnx", opset_version=17, input_names=["input"], output_names=["output"],
                  dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}})

net.double()
generator = torch.Generator().manual_seed(0)
points = 1.5 * torch.randn(64, d, generator=generator, dtype=torch.float64)
context = torch.rand(64, c, generator=generator, dtype=torch.float64)
value, diagonal = [], []
for x, t in zip(points, context):
    field = lambda state: net(torch.cat([state, t]))
    value.append(field(x).tolist())
    diagonal.append(torch.autograd.functional.jacobian(field, x).diagonal().tolist())
vectors = {"points": points.tolist(), "context": context.tolist(), "value": value, "jacobianDiagonal": diagonal, "divergence": [sum(each) for each in diagonal]}
with open(f"{path}.json", "w") as file:
    json.dump({"name": path.split("/")[-1], "about": about, "activation": metadata["activation"], "state": d, "context": c, "widths": widths, "vectors": vectors}, file)
