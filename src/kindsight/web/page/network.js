/** The network in LiteRT.js, whose scripts define `litert` and `ModuleFactory`. */

import { fromText, restoreModel } from "./packing.js";

/**
 * Return an object with `run(pixels)`: samples of one resized image -> {probabilities, score}.
 *
 * `sources` has the model and the WebAssembly code in gzip, each at a {url} or as a {text, size}.
 */
export async function loadNetwork(sources, info) {
  const [wasm, model] = await Promise.all([load(sources.wasm), load(sources.model)]);
  self.Module = { wasmBinary: wasm, locateFile: (name) => name, printErr: report };
  self.importScripts = () => {}; // the loader's script is in this file already
  // Only the CPU is used: results are the same everywhere, and no graphics device is started.
  Object.defineProperty(self.navigator, "gpu", { value: { requestAdapter: async () => null } });
  await litert.loadLiteRt("litert.js");
  const compiled = await litert.loadAndCompile(model, { accelerator: "wasm" });
  const [{ shape }] = compiled.getInputDetails();
  const [, height, width] = info.input.shape;
  if (String(shape) !== String([1, height, width, 3])) {
    throw new Error(`The network takes images of shape ${shape}, not 1,${height},${width},3.`);
  }
  const run = async (pixels) => {
    const input = new litert.Tensor(Float32Array.from(pixels), [1, height, width, 3]);
    try {
      const outputs = await compiled.run([input]);
      const values = await Promise.all(outputs.map((output) => output.data()));
      const copies = values.map((value) => Float32Array.from(value));
      outputs.forEach((output) => output.delete());
      const probabilities = copies.find((copy) => copy.length === info.classes.length);
      const score = copies.find((copy) => copy.length === 1); // there are two classes or more
      return { probabilities, score: score === undefined ? null : score[0] };
    } finally {
      input.delete();
    }
  };
  await run(new Uint8Array(height * width * 3)); // the first run is slower than the others
  return { run };
}

/** LiteRT writes its progress to the console's error stream. */
function report(text) {
  if (!/^(INFO|WARNING|VERBOSE)/.test(text)) console.error(text);
}

async function load({ url, text, size, isModel }) {
  let packed;
  if (url === undefined) {
    packed = new Blob([fromText(text, size)]).stream();
  } else {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url} could not be loaded (${response.status}).`);
    packed = response.body;
  }
  const stream = packed.pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  return isModel ? restoreModel(bytes) : bytes;
}
