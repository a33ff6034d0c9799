/** The kernels beside the plain ones: the one door of this wing, which is loaded when they are first needed. */
import type { Family } from "../family.js";
import { byLanes, loops } from "./fused/families.js";
import { groups } from "./groups.js";
import { tiles } from "./tiles.js";

export const families: readonly Family[] = [tiles, groups, loops, byLanes];
