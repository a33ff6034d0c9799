// Typed arrays over memory that no other thread shares, which is what WebGPU takes. TypeScript before 5.7 does not know
// Float32Array<ArrayBuffer>, and would refuse the package's declarations, so that each has a name here.

/** Float32Array<ArrayBuffer>, or Float32Array in TypeScript before 5.7. */
export type Floats = ReturnType<typeof Float32Array.of>;
export type Doubles = ReturnType<typeof Float64Array.of>;
export type Bytes = ReturnType<typeof Uint8Array.of>;
export type Halves = ReturnType<typeof Uint16Array.of>;
export type Words = ReturnType<typeof Uint32Array.of>;
