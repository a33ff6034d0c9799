/**
 * Software Vulkan drivers: where they lie on this machine, and how one is unpacked from an npm package. Nothing here
 * talks to WebGPU; adapters.ts tries the drivers in the order given here.
 */
import { mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir, tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { brotliDecompress } from "node:zlib";
import { parseTar } from "nanotar";

/** A driver that may or may not work; the loader is told of it through the environment variable VK_DRIVER_FILES. */
export interface SoftwareDriver {
  /** For people: which driver, and where it came from. */
  readonly name: string;
  /** Manifest files ("ICD"), joined as VK_DRIVER_FILES wants them. */
  readonly manifests: string;
  /** A Vulkan loader that lies beside the driver, for machines that have none. */
  readonly loader: string | null;
}

/** A place that was looked at: a driver, or the reason why there is none. */
export type SoftwareSource = SoftwareDriver | { readonly name: string; readonly missing: string };

/** Whether an adapter computes on the CPU, by what it says of itself. */
export function isSoftware({ vendor, architecture, device, description, isFallbackAdapter }: GPUAdapterInfo): boolean {
  return isFallbackAdapter || /swiftshader|llvmpipe|lavapipe|basic render/i.test(`${vendor} ${architecture} ${device} ${description}`);
}

/** Looks at one place after the other; a later place is only looked at (and unpacked) when the ones before did not work. */
export async function* softwareDrivers(): AsyncGenerator<SoftwareSource, void, undefined> {
  yield lavapipe();
  yield await packagedSwiftShader();
  yield* browserSwiftShader();
}

const manifestFolders = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

function lavapipe(): SoftwareSource {
  const name = "Mesa lavapipe";
  const manifests = manifestFolders.flatMap((folder) =>
    listFolder(folder)
      .filter((file) => /^lvp_icd.*\.json$/.test(file))
      .map((file) => join(folder, file)),
  );
  if (manifests.length === 0) return { name, missing: `no lvp_icd*.json in ${manifestFolders.join(", ")}` };
  // Several may be one driver built for several processors: the loader skips those it cannot load.
  return { name, manifests: manifests.join(delimiter), loader: null };
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

/** Browsers that ship SwiftShader with its manifest in their own folder: Debian's chromium, Google Chrome. */
const browserFolders = ["/usr/lib/chromium", "/opt/google/chrome"];

function* browserSwiftShader(): Generator<SoftwareSource, void, undefined> {
  for (const folder of browserFolders) {
    const name = `SwiftShader in ${folder}`;
    const manifest = join(folder, "vk_swiftshader_icd.json");
    const loader = join(folder, "libvulkan.so.1");
    if (existsSync(manifest)) yield { name, manifests: manifest, loader: existsSync(loader) ? loader : null };
    else yield { name, missing: `no ${manifest}` };
  }
}

const packageName = "@sparticuz/chromium";
/** What is needed out of the package's archive, which holds the browser's OpenGL libraries too. */
const packagedFiles = ["libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json"] as const;

/** SwiftShader out of the npm package; needs no root and nothing installed. */
export async function packagedSwiftShader(): Promise<SoftwareSource> {
  const name = `SwiftShader in the npm package ${packageName}`;
  if (process.platform !== "linux" || process.arch !== "x64")
    return { name, missing: `the package holds a driver for linux-x64; this is ${process.platform}-${process.arch}` };
  const root = findPackage();
  if (root === null) return { name, missing: "the package is not installed" };
  const archive = join(root, "bin", "swiftshader.tar.br");
  if (!existsSync(archive)) return { name, missing: `no ${archive}` };
  try {
    const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
    const folder = await unpackOnce(archive, `swiftshader-${version}-${(await stat(archive)).size}`);
    return {
      name,
      manifests: join(folder, "vk_swiftshader_icd.json"),
      loader: join(folder, "libvulkan.so.1"),
    };
  } catch (error) {
    return { name, missing: `${archive} could not be unpacked: ${(error as Error).message}` };
  }
}

/** The package's folder: the project that the user stands in first, then whatever this package can see. */
function findPackage(): string | null {
  for (const from of [join(process.cwd(), "package.json"), import.meta.url]) {
    let folder: string;
    try {
      folder = dirname(createRequire(from).resolve(packageName));
    } catch {
      continue;
    }
    // The package exports its entry alone, some folders below its root.
    for (; folder !== dirname(folder); folder = dirname(folder))
      if (existsSync(join(folder, "bin")) && existsSync(join(folder, "package.json"))) return folder;
  }
  return null;
}

/** Unpacks into a cache folder of the user's own, once; the folder appears whole or not at all. */
async function unpackOnce(archive: string, key: string): Promise<string> {
  let failure: unknown;
  for (const cache of cacheFolders()) {
    try {
      await mkdir(cache, { recursive: true, mode: 0o700 });
      await assertOwn(cache);
      const folder = join(cache, key);
      if (isWhole(folder)) return folder;
      await unpackInto(archive, folder);
      return folder;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

function cacheFolders(): string[] {
  const home = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  return [join(home, "deldot"), join(tmpdir(), `deldot-${process.getuid?.() ?? "user"}`)];
}

/** Libraries are loaded from there, so a folder that another user made is refused. */
async function assertOwn(folder: string): Promise<void> {
  const { uid, mode } = await stat(folder);
  const user = process.getuid?.();
  if (user !== undefined && uid !== user) throw new Error(`${folder} belongs to user ${uid}, not to ${user}`);
  if ((mode & 0o022) !== 0) throw new Error(`${folder} can be written by other users`);
}

function isWhole(folder: string): boolean {
  return packagedFiles.every((file) => existsSync(join(folder, file)));
}

async function unpackInto(archive: string, folder: string): Promise<void> {
  // A copy with an ArrayBuffer of its own: nanotar reads the whole buffer below a view.
  const tar = new Uint8Array(await promisify(brotliDecompress)(await readFile(archive)));
  const entries = parseTar(tar);
  const scratch = await mkdtemp(`${folder}.`);
  try {
    for (const file of packagedFiles) {
      const data = entries.find((entry) => entry.type === "file" && entry.name.split("/").at(-1) === file)?.data;
      if (!data) throw new Error(`there is no ${file} in it`);
      await writeFile(join(scratch, file), data, { mode: 0o755 });
    }
    // What is there now is either incomplete (a cleaner of temporary files went through it) or was just made by another
    // process; only the former may go.
    if (!isWhole(folder)) await rm(folder, { recursive: true, force: true });
    await rename(scratch, folder);
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    if (!isWhole(folder)) throw error;
  }
}
