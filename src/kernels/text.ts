import type { Kernel } from "../schedule/kernel.js";

/** What a kernel's text says of itself: its parameters and buffers. There names are in snake_case, in schedules in camelCase. */
export function interfaceOf(text: string): Pick<Kernel, "parameters" | "storage"> {
  const camel = (name: string): string => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
  const members = /struct Parameters \{(.*?)\n\}/s.exec(text)![1]!;
  return {
    parameters: [...members.matchAll(/^ {2}(\w+): u32,/gm)].map(([, name]) => camel(name!)),
    storage: [...text.matchAll(/^@group\(0\) @binding\([1-9]\d*\) var<storage, (read|read_write)> (\w+):/gm)].map(([, access, name]) => ({
      name: camel(name!),
      access: access as "read" | "read_write",
    })),
  };
}

/** WGSL's directives stand before all else, then the constants of a kernel. */
export function preamble(enables: readonly string[], constants: readonly string[]): string {
  return [...enables.map((extension) => `enable ${extension};`), ...constants.map((constant) => `${constant};`)].join("\n");
}
