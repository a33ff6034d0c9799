// The web-standard globals that browsers, Node and the other hosts all have, as far as this package uses them, so that
// src compiles without the DOM's or Node's types. Where those are present too, the interfaces merge with them; the
// variables repeat the standard signatures, so it does not matter whose declaration comes first.

interface AbortSignal {
  readonly aborted: boolean;
  readonly reason: any;
  throwIfAborted(): void;
  addEventListener(type: "abort", listener: () => void, options?: { once?: boolean }): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

interface TextDecoder {
  decode(input?: ArrayBufferView | ArrayBuffer | null, options?: { stream?: boolean }): string;
}
declare var TextDecoder: {
  new (encoding?: string, options?: { fatal?: boolean; ignoreBOM?: boolean }): TextDecoder;
};

interface TextEncoder {
  encode(input?: string): Uint8Array;
}
declare var TextEncoder: {
  new (): TextEncoder;
};

interface Performance {
  now(): number;
}
declare var performance: Performance;

declare function setTimeout(callback: () => void, milliseconds?: number): number;
declare function clearTimeout(timer: number | undefined): void;

declare function setTimeout(callback: () => void, milliseconds?: number): unknown;

declare module "*.wgsl?raw" {
  const source: string;
  export default source;
}
