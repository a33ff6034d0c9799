/** The divergence in seven steps, each a state of the stage with a few words beside it. */
import { element } from "../base/page.js";
import type { Stage } from "../stage.js";
import type { Link } from "../base/state.js";

export interface Step {
  readonly title: string;
  readonly text: string;
  readonly link: Link;
  readonly tool?: "lens" | "split";
}

export const steps: readonly Step[] = [
  {
    title: "Source and sink",
    text: "A field says of every point where it goes. Here all go away from one another: whatever is put there takes up more and more room. The divergence, ∇·f, is how fast: 2 at every point. Of the sink, on the shelf, it is -2.",
    link: { field: "source" },
  },
  {
    title: "A rotation has none",
    text: "Everything moves, and nothing needs more room or less: ∇·f = 0. Movement is not divergence. The shear and the saddle on the shelf have none either.",
    link: { field: "rotation" },
  },
  {
    title: "What flows out is made inside",
    text: "Move the lens. Its first bar is what flows out through the rim, the second the sum of ∇·f inside: always the same. The smaller the lens is ([ and ], or a pinch), the nearer both, over its area, come to ∇·f at its middle.",
    link: { field: "wells", context: [], layers: ["div", "arrows"] },
    tool: "lens",
  },
  {
    title: "Ink",
    text: "Press on the stage and hold: a drop of ink is carried along. Its area grows by exp ∫∇·f, summed up on the way, whatever shape it takes.",
    link: { field: "two-moons", context: [0.2], layers: ["div"] },
  },
  {
    title: "Why flows need it",
    text: "A flow makes data of noise. Where it makes room, the samples thin out; where it squeezes, they become dense. So the density of a point is that of the noise it came from, less ∫∇·f on its way: exact, where the divergence is. Click any point for its way.",
    link: { field: "two-moons", context: [1], layers: ["density", "samples"], pin: [0.3, -1.2] },
  },
  {
    title: "Exact beside an estimate",
    text: "To the right of the divider is what is often taken instead: Hutchinson's estimate, by one random direction. Drag the slider for more of them. Beneath stands what each side costs, in evaluations of f: exact is no dearer.",
    link: { field: "two-moons", context: [0.8], layers: ["div"] },
    tool: "split",
  },
  {
    title: "Your own",
    text: "Type a formula on the shelf, drop a network onto the page, or draw points and have one learned. Nothing leaves your browser; a link takes along what you see.",
    link: { field: "van-der-pol" },
  },
];

/** @param use shows a tool, or none. */
export function bindStory(stage: Stage, use: (tool: Step["tool"]) => void, attempt: (work: Promise<unknown>) => void): void {
  const [back, next] = [element("story-back", HTMLButtonElement), element("story-next", HTMLButtonElement)];
  let at = 0;
  const show = (step: number): void => {
    at = Math.min(steps.length - 1, Math.max(0, step));
    const { title, text, link, tool } = steps[at]!;
    element("story-title", HTMLElement).textContent = `${at + 1}. ${title}`;
    element("story-text", HTMLElement).textContent = text;
    back.disabled = at === 0;
    next.disabled = at === steps.length - 1;
    attempt(stage.choose(link));
    use(tool);
  };
  back.addEventListener("click", () => show(at - 1));
  next.addEventListener("click", () => show(at + 1));
  const panel = element("story", HTMLElement);
  panel.addEventListener("toggle", () => (panel.hidden ? use(undefined) : show(at)));
}
