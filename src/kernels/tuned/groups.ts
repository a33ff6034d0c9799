import groups from "../../../shaders/lib/groups.wgsl?raw";
import contracted from "../../../shaders/lib/groups_contracted.wgsl?raw";
import stored from "../../../shaders/lib/groups_stored.wgsl?raw";
import type { Tile } from "../../schedule/tile.js";
import { HALF } from "../capabilities.js";

/** "4x4 in groups of 16x16": invocations that load the rows and weights of their tiles together, into workgroup memory. */
export function groupedTile(half: boolean): Tile {
  return {
    name: `4x4 in groups of 16x16${half ? HALF : ""}`,
    rows: 4,
    outputs: 4,
    workgroup: 256,
    down: 16,
    across: 16,
    half,
    // A scale is loaded once for all outputs of a block as it is.
    scalings: ["none", "each"],
    enables: half ? ["f16"] : [],
    main: (_, ending) => [`alias Weight = ${half ? "vec4h" : "vec4f"};`, groups, ending === "stores" ? stored : contracted].join("\n"),
  };
}
