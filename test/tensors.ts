/** The tensors of a safetensors file that holds F64 alone, and its activation. */
export function readTensors(file: Uint8Array): { tensors: Map<string, Float64Array>; activation: string } {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const { __metadata__: metadata, ...entries } = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))) as {
    __metadata__: { activation: string };
  } & Record<string, { data_offsets: [number, number] }>;
  const tensors = Object.entries(entries).map(
    ([
      name,
      {
        data_offsets: [begin, end],
      },
    ]) => {
      const bytes = Uint8Array.from(file.subarray(8 + length + begin, 8 + length + end));
      return [name, new Float64Array(bytes.buffer)] as const;
    },
  );
  return { tensors: new Map(tensors), activation: metadata.activation };
}
