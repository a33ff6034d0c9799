/** A tensor of a safetensors file, row-major: F32 or F64, as its numbers are. */
export interface FileTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly numbers: Float32Array | Float64Array;
}

/**
 * The bytes of a safetensors file: an 8-byte length, a JSON object padded with spaces to a multiple of 8, then the numbers, those of
 * 8 bytes first: all are aligned. No two tensors may have one name.
 */
export function encodeTensors(metadata: Readonly<Record<string, string>>, tensors: readonly FileTensor[]): Uint8Array<ArrayBuffer> {
  const begins = new Map<FileTensor, number>();
  let size = 0;
  for (const tensor of tensors.toSorted((a, b) => b.numbers.BYTES_PER_ELEMENT - a.numbers.BYTES_PER_ELEMENT)) {
    begins.set(tensor, size);
    size += tensor.numbers.byteLength;
  }
  const header = Object.fromEntries([
    ["__metadata__", metadata],
    ...tensors.map((tensor): [string, unknown] => {
      const { name, shape, numbers } = tensor;
      const begin = begins.get(tensor)!;
      const dtype = numbers instanceof Float32Array ? "F32" : "F64";
      return [name, { dtype, shape, data_offsets: [begin, begin + numbers.byteLength] }];
    }),
  ]);
  const text = new TextEncoder().encode(JSON.stringify(header));
  const dataFrom = 8 + Math.ceil(text.length / 8) * 8;
  const file = new Uint8Array(dataFrom + size).fill(0x20, 8, dataFrom);
  new DataView(file.buffer).setBigUint64(0, BigInt(dataFrom - 8), true);
  file.set(text, 8);
  // Little-endian, as the format has it and all machines that run WebGPU.
  for (const [{ numbers }, begin] of begins)
    file.set(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength), dataFrom + begin);
  return file;
}
