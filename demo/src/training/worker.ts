/** Training without a GPU, off the page's own thread. */
import { serve } from "./serve.js";

serve(self);
