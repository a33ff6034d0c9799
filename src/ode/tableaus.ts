/**
 * An explicit Runge-Kutta method: k_i = f(t + c_i h, x + h Σ_j a_ij k_j), x(t + h) = x + h Σ_i b_i k_i (Hairer, Nørsett and Wanner, Solving
 * Ordinary Differential Equations I, 1993, chapter II).
 */
export interface Tableau {
  /** Of the error of a whole integration in h. */
  readonly order: number;
  readonly c: readonly number[];
  /** Rows of the lower triangle, the first empty. */
  readonly a: readonly (readonly number[])[];
  readonly b: readonly number[];
  /** b - b̂, for the difference to the embedded method of one order less; null where there is none, and no error control. */
  readonly error: readonly number[] | null;
}

/** What a solver may be. */
export type Solver = "euler" | "midpoint" | "heun" | "rk4" | "bosh3" | "dopri5" | "tsit5";

/** The solvers by name. Those with an error are "first same as last": their last stage is f at the new x, the first of the next step. */
export const tableaus: Readonly<Record<Solver, Tableau>> = {
  euler: { order: 1, c: [0], a: [[]], b: [1], error: null },
  midpoint: { order: 2, c: [0, 1 / 2], a: [[], [1 / 2]], b: [0, 1], error: null },
  heun: { order: 2, c: [0, 1], a: [[], [1]], b: [1 / 2, 1 / 2], error: null },
  rk4: {
    order: 4,
    c: [0, 1 / 2, 1 / 2, 1],
    a: [[], [1 / 2], [0, 1 / 2], [0, 0, 1]],
    b: [1 / 6, 1 / 3, 1 / 3, 1 / 6],
    error: null,
  },
  // Bogacki and Shampine, A 3(2) pair of Runge-Kutta formulas, 1989.
  bosh3: {
    order: 3,
    c: [0, 1 / 2, 3 / 4, 1],
    a: [[], [1 / 2], [0, 3 / 4], [2 / 9, 1 / 3, 4 / 9]],
    b: [2 / 9, 1 / 3, 4 / 9, 0],
    error: [2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8],
  },
  // Dormand and Prince, A family of embedded Runge-Kutta formulae, 1980.
  dopri5: {
    order: 5,
    c: [0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1],
    a: [
      [],
      [1 / 5],
      [3 / 40, 9 / 40],
      [44 / 45, -56 / 15, 32 / 9],
      [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
      [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
      [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
    ],
    b: [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
    error: [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40],
  },
  // Tsitouras, Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption, 2011.
  tsit5: {
    order: 5,
    c: [0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1],
    a: [
      [],
      [0.161],
      [-0.008480655492356989, 0.335480655492357],
      [2.8971530571054935, -6.359448489975075, 4.3622954328695815],
      [5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525],
      [5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383],
      [0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774],
    ],
    b: [0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774, 0],
    error: [
      -0.001780011052225777,
      -0.0008164344596567469,
      0.007880878010261995,
      -0.1447110071732629,
      0.5823571654525552,
      -0.45808210592918697,
      1 / 66,
    ],
  },
};

/** All solvers by name. */
export const solvers: readonly Solver[] = Object.keys(tableaus) as Solver[];

/** Stages of a step of fixed size, without the one that is the first of the next. */
export function stagesOf({ b }: Tableau): number {
  return b.at(-1) === 0 ? b.length - 1 : b.length;
}

/**
 * How a step size follows from the error of the last steps, as multiples of the tolerance: h *= clamp(SAFETY err^-β1 before^β2), with
 * β1 = 0.7 / order and β2 = 0.4 / order (PI control: Hairer and Wanner, Solving Ordinary Differential Equations II, 1996, section IV.2).
 */
export const control = { safety: 0.9, ofError: 0.7, ofErrorBefore: 0.4, least: 0.2, most: 5 } as const;

/** How the path of a point ended. */
export type Status = "done" | "out of steps" | "not finite" | "step too small";

/** The same by the number that a kernel leaves for it, less 1: a point on its way has 0. */
export const statuses: readonly Status[] = ["done", "out of steps", "not finite", "step too small"];

/** A step of less than this part of the time that has elapsed, or of what is left, is too small for float32. */
export const LEAST_STEP: number = 2 ** -20;

/** And so is a step of less than this part of the whole time, at its very ends too. */
export const LEAST_OF_SPAN: number = 2 ** -40;

/** The time after a part of the way, from 0 to 1: exactly `from` and `to` at its ends, and never beyond. */
export function timeOf(part: number, from: number, to: number): number {
  return part < 1 ? from * (1 - part) + to * part : to;
}
