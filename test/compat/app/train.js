import { Trainer } from "deldot/train";

const A = [
  [0.5, -1, 0.25],
  [2, -0.75, 0],
  [1, 0.5, -1.5],
];
const b = [0.25, 0, -0.5];

/** Fits W x + b to values of A x + b. */
export async function train(device) {
  const points = Array.from({ length: 64 }, (_, i) => [Math.sin(i), Math.cos(3 * i), Math.sin(7 * i + 1)]);
  const targets = points.map((x) => A.map((row, i) => row.reduce((sum, a, j) => sum + a * x[j], b[i])));
  const optimizer = { learningRate: 0.1, schedule: "cosine", steps: 100 };
  const trainer = await Trainer.create(
    device,
    { stateSize: 3, hidden: [] },
    { loss: "regression", batch: 64, kernels: "layers 4x4", seed: 1, optimizer },
  );
  await trainer.data(points.flat(), { targets: targets.flat() });
  await trainer.train(100);
  const { weights } = await trainer.state();
  trainer.destroy();
  return { weights: [...weights], truth: [...A.flat(), ...b] };
}
