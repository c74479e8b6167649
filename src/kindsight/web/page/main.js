/** The start of an exported page: the classifier runs in a worker of the page. */

import { connect } from "./client.js";
import { byId } from "./dom.js";
import { fromText } from "./packing.js";
import { startPage } from "./page.js";

const info = JSON.parse(byId("model-info").textContent);

/** Return a part of the file, {text, size}, and free its memory. */
function taken(id) {
  const part = byId(id);
  const [text, size] = [part.textContent, Number(part.dataset.size)];
  part.remove();
  return { text, size };
}

/** Return the worker's URL and the sources of its network, from one file or a folder. */
async function locate() {
  if (byId("worker-code") === null) {
    const url = (name) => new URL(name, document.baseURI).href;
    return {
      script: url("worker.js"),
      sources: { wasm: { url: url("litert.bin") }, model: { url: url("model.bin"), isModel: true } },
    };
  }
  const { text, size } = taken("worker-code");
  const stream = new Blob([fromText(text, size)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = await new Response(stream).text();
  return {
    script: URL.createObjectURL(new Blob([script], { type: "text/javascript" })),
    sources: {
      wasm: taken("wasm-code"), model: { ...taken("model-file"), isModel: true },
    },
  };
}

async function start() {
  const { script, sources } = await locate();
  const worker = connect(script);
  await worker.call("start", { info, sources });
  return worker;
}

const ready = start();

/** Classify a Blob, or an ImageBitmap, which is closed. */
async function classify({ blob, bitmap }, side, withPixels = false) {
  const worker = await ready;
  const moved = bitmap ? [bitmap] : [];
  return worker.call("classify", { blob, bitmap, side, withPixels }, moved);
}

// For scripts of the browser's console.
globalThis.kindsight = {
  info, ready, classify,
  run: async (pixels) => (await ready).call("run", { pixels }),
};

startPage({ info, classify }, ready);
