/** In the command's process before all else: it does not outlive its worker, whatever ends that. */
process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
process.channel?.unref();
