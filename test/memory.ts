/** Bytes of the buffers that a device has made and that were not destroyed. */
export interface Memory {
  /** The most at one time, the matrices of the network apart. */
  readonly peak: number;
  /** The matrices of the network. */
  readonly weights: number;
  /** How many buffers were made. */
  readonly made: number;
  /** Gives the device its own createBuffer back. */
  stop(): void;
}

/** Counts from now on. */
export function watchMemory(device: GPUDevice): Memory {
  const createBuffer = device.createBuffer.bind(device);
  const memory = {
    peak: 0,
    weights: 0,
    made: 0,
    stop: () => {
      device.createBuffer = createBuffer;
    },
  };
  let live = 0;
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    const { size } = descriptor;
    memory.made++;
    if (/ as (product|rows)$/.test(descriptor.label ?? "")) {
      memory.weights += size;
      return buffer;
    }
    live += size;
    memory.peak = Math.max(memory.peak, live);
    const destroy = buffer.destroy.bind(buffer);
    let destroyed = false;
    buffer.destroy = () => {
      if (!destroyed) live -= size;
      destroyed = true;
      return destroy();
    };
    return buffer;
  };
  return memory;
}
