/** Fields that a line of text is enough for, by which a divergence can be learnt. */

export interface FormulaField {
  readonly title: string;
  /** As {@link parseFormula} reads it. */
  readonly formula: string;
  /** What there is to see, in a sentence. */
  readonly headline: string;
}

export const formulaFields: Readonly<Record<string, FormulaField>> = {
  source: {
    title: "Source",
    formula: "x, y",
    headline: "A source: every point makes room, ∇·f = 2 everywhere.",
  },
  sink: {
    title: "Sink",
    formula: "-x, -y",
    headline: "A sink: every point gives way, ∇·f = -2 everywhere.",
  },
  rotation: {
    title: "Rotation",
    formula: "-y, x",
    headline: "A rotation: all of it turns and keeps its size, ∇·f = 0 everywhere.",
  },
  shear: {
    title: "Shear",
    formula: "y, 0",
    headline: "A shear: layers slide past each other, and shapes lean but keep their area, ∇·f = 0 everywhere.",
  },
  saddle: {
    title: "Saddle",
    formula: "x, -y",
    headline: "A saddle: what is stretched along x is squeezed as much along y, ∇·f = 0 everywhere.",
  },
  "van-der-pol": {
    title: "The van der Pol oscillator",
    formula: "y, (1 - x*x)*y - x",
    headline: "It grows in the middle and shrinks outside, ∇·f = 1 - x², and what moves ends on one loop.",
  },
  lorenz: {
    title: "The Lorenz system",
    formula: "10*(y - x), x*(28 - z) - y, x*y - 8/3*z",
    headline: "Chaos that shrinks: neighbours part, and yet every volume melts away, ∇·f = -13.667 everywhere.",
  },
  "taylor-green": {
    title: "The Taylor-Green vortex",
    formula: "sin(x)*cos(y), -cos(x)*sin(y)",
    headline: "Whirls side by side: as much flows in as out at every point, ∇·f = 0 everywhere.",
  },
  "double-well": {
    title: "Two wells",
    formula: "x - x^3, -y/2",
    headline: "Downhill into one of two wells: the ridge between them spreads, the wells gather, ∇·f = 1/2 - 3x².",
  },
};
