import { Option, type Command } from "commander";
import { AdapterError } from "../../errors.js";
import { describeAdapter, hasNamedDriver, type AdapterReport } from "../adapters.js";
import type { Engine } from "../engines.js";
import { findOnnxruntime } from "../onnxruntime.js";
import { withQuietStderr } from "./nativeStderr.js";
import { formatTable, print } from "./output.js";

/** What onnxruntime saves where there is no GPU: docs/kernels.md. */
const GAIN = "0.11 to 0.2 of the time of a software GPU on the same processor, 0.65 with norms";

export function addDoctor(program: Command): void {
  program
    .command("doctor")
    .description("show what computes here and why: the engines, the adapter, its limits and features, and which driver was taken")
    .addOption(new Option("--adapter <kind>", "which adapter to look for").choices(["auto", "gpu", "software"]).default("auto"))
    .addHelpText("after", "\nExample:\n  deldot doctor")
    .action(async ({ adapter }: { readonly adapter: "auto" | "gpu" | "software" }) => {
      const report = await withQuietStderr(() => describeAdapter({ adapter })).catch((error: unknown) => {
        // Who names one is told that it is not there.
        if (!(error instanceof AdapterError) || hasNamedDriver() || adapter !== "auto") throw error;
        return error.message;
      });
      const found = typeof report === "string" ? null : report;
      await print([
        ...(adapter === "auto" ? await describeEngines(found) : []),
        ...(found ? describeFound(found) : [`adapter: none: ${report as string}\n`]),
      ]);
    });
}

/** All engines, and which of them a command takes that is not told. */
async function describeEngines(report: AdapterReport | null): Promise<string[]> {
  const runtime = await findOnnxruntime();
  const outcomes: Record<Engine, string | null> = {
    gpu: report && !report.software ? report.name : null,
    cpu: "missing" in runtime ? null : runtime.name,
    software: report?.software ? report.name : null,
    reference: "float64, a point at a time",
  };
  // A driver that is named is taken, whatever it is.
  const order: readonly Engine[] = hasNamedDriver() ? ["gpu", "software"] : ["gpu", "cpu", "software", "reference"];
  const taken = order.find((engine) => outcomes[engine] !== null);
  const reasons: Record<Engine, string> = {
    gpu: "there is none, or no driver of it",
    cpu: "missing" in runtime ? `onnxruntime-node, which takes ${GAIN}: ${runtime.missing}` : "",
    software: report ? "not looked for" : "there is none",
    reference: "",
  };
  return [
    hasNamedDriver()
      ? `engines, of which --adapter auto takes the driver that VK_DRIVER_FILES or VK_ICD_FILENAMES names:\n`
      : `engines, in the order in which --adapter auto takes them:\n`,
    ...(Object.keys(outcomes) as Engine[]).map((engine) => {
      const mark = engine === taken ? "taken" : outcomes[engine] === null ? "not here" : "passed over";
      return `  ${engine}: ${mark}: ${outcomes[engine] ?? reasons[engine]}\n`;
    }),
    "\n",
  ];
}

function describeFound(report: AdapterReport): string[] {
  const { vendor, architecture, device } = report.info;
  return [
    `adapter: ${report.name} (${report.software ? "software" : "hardware"})\n`,
    `  vendor ${vendor || "unknown"}, architecture ${architecture || "unknown"}, device ${device || "unknown"}\n`,
    `  Node ${process.version} on ${process.platform}-${process.arch}\n`,
    `\ndrivers, in the order they were looked for:\n`,
    ...report.attempts.map(({ driver, taken, outcome }) => `  ${taken ? "taken" : "passed over"}: ${driver}: ${outcome}\n`),
    `\nlimits:\n`,
    formatTable([["name", "value"], ...Object.entries(report.limits).map(([name, value]) => [name, String(value)])]),
    `\nfeatures:\n`,
    ...report.features.map((name) => `  ${name}\n`),
  ];
}
