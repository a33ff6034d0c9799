/** A headless Chromium with WebGPU on a software GPU, out of npm packages alone: no root, nothing installed. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Browser } from "playwright-core";

/** The package's browser is built for this platform alone. */
export const hasBrowser: boolean = process.platform === "linux" && process.arch === "x64";

const flags = [
  "--enable-unsafe-webgpu",
  "--enable-features=Vulkan",
  "--use-vulkan=swiftshader",
  "--use-angle=swiftshader",
  "--no-sandbox",
  "--disable-background-networking",
  "--no-first-run",
  "--disable-component-update",
  "--disable-sync",
  "--disable-quic",
];

/** Unpacks the browser into a folder of its own and starts it. */
export async function openBrowser(): Promise<{ browser: Browser; close: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "deldot-browser-"));
  const before = { ...process.env };
  try {
    // Otherwise the package leaves out the libraries that a bare machine lacks, and unpacks to names that all users share.
    Object.assign(process.env, { AWS_EXECUTION_ENV: "AWS_Lambda_nodejs22.x", TMPDIR: folder });
    const { default: packaged } = await import("@sparticuz/chromium");
    const executablePath = await packaged.executablePath();
    // The package's own configuration looks for its fonts in /tmp alone.
    const fonts = ["/usr/share/fonts", join(folder, "fonts")].map((name) => `<dir>${name}</dir>`).join("");
    await writeFile(join(folder, "fonts.conf"), `<fontconfig>${fonts}<cachedir>${folder}</cachedir></fontconfig>`);
    const browser = await chromium.launch({
      executablePath,
      args: flags,
      env: {
        PATH: before["PATH"] ?? "",
        HOME: folder,
        TMPDIR: folder,
        LD_LIBRARY_PATH: join(folder, "al2023", "lib"),
        FONTCONFIG_FILE: join(folder, "fonts.conf"),
      },
    });
    return {
      browser,
      close: async () => {
        await browser.close();
        // Its processes may still write there.
        await rm(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
      },
    };
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  } finally {
    for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name];
    Object.assign(process.env, before);
  }
}
