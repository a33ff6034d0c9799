/** The comparison as a table with small pictures, and as a plot of time against error. */
import { scaleLog } from "d3-scale";
import { paintPixels } from "../engines/cpuEngine.js";
import type { Domain } from "../base/colour.js";
import type { Compared } from "./methods.js";
import { milliseconds, short } from "../base/numbers.js";
import { sharp } from "../base/page.js";

export function addRow(body: HTMLTableSectionElement, compared: Compared, columns: number, domain: Domain): void {
  const { contender, picture, predicted, worst, mean } = compared;
  const row = body.insertRow();
  row.dataset["method"] = contender.name;
  const cell = row.insertCell();
  if (picture) {
    const image = paintPixels(picture, { width: columns, height: columns }, domain);
    image.setAttribute("role", "img");
    image.setAttribute("aria-label", `the picture by ${contender.name}`);
    cell.append(image);
  }
  const name = row.insertCell();
  const small = document.createElement("small");
  small.textContent = picture ? contender.about : "does not apply to this network";
  name.append(contender.name, small);
  const dash = "–";
  const texts = [
    Number.isFinite(compared.milliseconds) ? milliseconds(compared.milliseconds) : dash,
    Number.isFinite(predicted) ? `${short(predicted, 3)} f` : dash,
    picture ? short(worst, 2) : dash,
    picture ? short(mean, 2) : dash,
  ];
  for (const text of texts) row.insertCell().textContent = text;
}

/** Worst error upwards, time to the right, both in powers of ten. */
export function plotComparison(canvas: HTMLCanvasElement, all: readonly Compared[], ink: string): void {
  const shown = all.filter((compared) => Number.isFinite(compared.milliseconds) && compared.worst > 0 && Number.isFinite(compared.worst));
  if (shown.length === 0) return;
  const { clientWidth: width, clientHeight: height } = canvas;
  const context = sharp(canvas);
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = ink;
  context.strokeStyle = ink;
  const range = (values: readonly number[]): [number, number] => [
    10 ** Math.floor(Math.log10(Math.min(...values))),
    10 ** Math.ceil(Math.log10(Math.max(...values) * 1.001)),
  ];
  const x = scaleLog(range(shown.map((compared) => compared.milliseconds)), [64, width - 12]);
  const y = scaleLog(range(shown.map(({ worst }) => worst)), [height - 40, 12]);
  const powers = ([low, high]: number[]): number[] => {
    const [first, last] = [Math.round(Math.log10(low!)), Math.round(Math.log10(high!))];
    return Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
  };
  context.globalAlpha = 0.25;
  context.beginPath();
  for (const tick of powers(x.domain())) {
    context.moveTo(x(tick), 12);
    context.lineTo(x(tick), height - 40);
  }
  for (const tick of powers(y.domain())) {
    context.moveTo(64, y(tick));
    context.lineTo(width - 12, y(tick));
  }
  context.stroke();
  context.globalAlpha = 1;
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const tick of powers(x.domain())) context.fillText(milliseconds(tick), x(tick), height - 34);
  context.fillText("time", (64 + width - 12) / 2, height - 16);
  context.textAlign = "right";
  context.textBaseline = "middle";
  const ups = powers(y.domain());
  const every = Math.ceil(ups.length / 6);
  ups.forEach((tick, index) => index % every === 0 && context.fillText(tick.toExponential(0), 58, y(tick)));
  context.save();
  context.translate(10, (height - 28) / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText("worst error", 0, 0);
  context.restore();
  // Neither names nor dots stand under a name.
  const taken = shown.map((compared) => ({
    left: x(compared.milliseconds) - 5,
    right: x(compared.milliseconds) + 5,
    y: y(compared.worst),
  }));
  for (const compared of shown) {
    const [cx, cy] = [x(compared.milliseconds), y(compared.worst)];
    context.beginPath();
    context.arc(cx, cy, 4, 0, 2 * Math.PI);
    context.fill();
    const text = compared.contender.name;
    const length = context.measureText(text).width;
    const isRight = cx + 10 + length < width;
    const left = isRight ? cx + 8 : cx - 8 - length;
    // A label moves up until it stands free.
    let at = cy;
    const overlaps = (): boolean => taken.some((other) => Math.abs(other.y - at) < 13 && other.left < left + length && left < other.right);
    while (overlaps() && at > 18) at -= 13;
    while (overlaps()) at += 13;
    taken.push({ left, right: left + length, y: at });
    context.textAlign = "left";
    context.fillText(text, left, at);
  }
}
