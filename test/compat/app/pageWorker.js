const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
worker.onmessage = ({ data }) => console.log(JSON.stringify({ worker: data }));
worker.onerror = ({ message }) => console.error(message);
