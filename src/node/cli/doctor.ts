import { Option, type Command } from "commander";
import { describeAdapter } from "../index.js";
import { withQuietStderr } from "./nativeStderr.js";
import { formatTable, print } from "./output.js";

export function addDoctor(program: Command): void {
  program
    .command("doctor")
    .description("show the adapter, its limits and features, and which driver was taken and why")
    .addOption(new Option("--adapter <kind>", "which adapter to look for").choices(["auto", "software"]).default("auto"))
    .addHelpText("after", "\nExample:\n  deldot doctor")
    .action(async ({ adapter }: { readonly adapter: "auto" | "software" }) => {
      const report = await withQuietStderr(() => describeAdapter({ adapter }));
      const { vendor, architecture, device } = report.info;
      const attempts = report.attempts.map(({ driver, taken, outcome }) => `  ${taken ? "taken" : "passed over"}: ${driver}: ${outcome}\n`);
      await print([
        `adapter: ${report.name} (${report.software ? "software" : "hardware"})\n`,
        `  vendor ${vendor || "unknown"}, architecture ${architecture || "unknown"}, device ${device || "unknown"}\n`,
        `  Node ${process.version} on ${process.platform}-${process.arch}\n`,
        `\ndrivers, in the order they were looked for:\n`,
        ...attempts,
        `\nlimits:\n`,
        formatTable([["name", "value"], ...Object.entries(report.limits).map(([name, value]) => [name, String(value)])]),
        `\nfeatures:\n`,
        ...report.features.map((name) => `  ${name}\n`),
      ]);
    });
}
