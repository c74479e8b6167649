/** The start of the page of `kindsight serve`: the server is the classifier. */

import { connect } from "./client.js";
import { byId, element, shown } from "./dom.js";
import { startPage } from "./page.js";
import { send } from "./requests.js";

const AT_ONCE = 4; // images that are sent at the same time
const LARGE = 800; // pixels of the longer side of an image that only the server can show
const FRAME_QUALITY = 0.92; // of the webcam's JPEG files
const LISTED = 12; // classes that are named at the top of the page
const EMPTY = { classes: [], input: { resize: {} }, thresholds: { unsure: null, unknown: null } };

// Facts of the server: whether it stores corrections, and the largest request in bytes.
const { keeps, bytes } = JSON.parse(byId("server-info").textContent);
const shrinker = connect(new URL("assets/shrink.js", document.baseURI).href);

/** The classifier of page.js; its `info` is that of a model, as the server describes it. */
const classifier = {
  info: EMPTY,
  atOnce: AT_ONCE,
  classify,
  explain,
  ...(keeps ? { correct, forget } : {}),
};

function ofModel(rest) {
  return `v1/models/${encodeURIComponent(classifier.info.name)}${rest}`;
}

/** Classify a file (`blob`), or an ImageBitmap, which is closed. */
async function classify({ blob, bitmap, signal }, side) {
  const file = bitmap ? await encoded(bitmap) : blob;
  if (file.size > bytes) {
    throw refused(`The file has ${megabytes(file.size)}; the server accepts up to ${megabytes(bytes)}.`);
  }
  const small = side ? await shrink(file, side) : {};
  const { answer, row } = await predict(file, small === null ? `?thumbnail=${LARGE}` : "", signal);
  if (answer.model.name !== classifier.info.name) return classify({ blob: file, signal }, side);
  if (answer.model.version !== classifier.info.version) await renew(answer.model.name);
  if (small !== null) return { ...result(row), ...small };
  const [height, width] = row.size ?? [];
  const thumbnail = row.thumbnail ? blobOf(row.thumbnail) : null;
  return { ...result(row), thumbnail, width, height };
}

async function predict(file, query, signal = undefined) {
  const answer = await send(ofModel(`/predict${query}`), {
    method: "POST", body: file, blob: file, signal, headers: { "Content-Type": "application/octet-stream" },
  });
  const [row] = answer.predictions;
  if (row.error) throw Object.assign(new Error(row.error.message), { code: row.error.code });
  return { answer, row };
}

/** Return a prediction of the server as page.js takes it. */
function result(row) {
  const { classes } = classifier.info;
  return {
    probabilities: classes.map((name) => row.probabilities[name] ?? 0), best: classes.indexOf(row.best),
    confidence: row.confidence, score: row.ood_score, reason: row.reason ?? "", isClipped: false,
  };
}

/** Return the URL of the heat map of an image. */
async function explain(image) {
  const { row } = await predict(image.file, "?explain=true&top_k=1");
  if (!row.heat_map) throw new Error(row.heat_map_error?.message ?? "There is no heat map of this image.");
  return row.heat_map;
}

/** Store a correction on the server, and return its id. */
async function correct(image, label) {
  const { classes, name } = classifier.info;
  const { best, reason } = image.answer;
  const form = new FormData();
  form.append("correction", JSON.stringify({ model: name, name: image.name, label,
    predicted: reason === "" ? classes[best] : null }));
  form.append("image", image.file, image.name);
  return (await send("v1/corrections", { method: "POST", body: form, blob: image.file })).id;
}

/** Delete a correction. */
async function forget(id) {
  await send(`v1/corrections/${encodeURIComponent(id)}`, { method: "DELETE" });
}

/** Return {thumbnail, width, height} of an image; null for one that this browser cannot show. */
async function shrink(file, side) {
  try {
    return await shrinker.call("shrink", { blob: file, side });
  } catch {
    return null;
  }
}

async function encoded(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.convertToBlob({ type: "image/jpeg", quality: FRAME_QUALITY });
}

/** Return the content of a data URI; the page's policy does not let it be fetched. */
function blobOf(uri) {
  const [, type, text] = /^data:([\w/+.-]+);base64,(.*)$/.exec(uri);
  return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type });
}

function refused(text) {
  return Object.assign(new Error(text), { code: "refused" });
}

function megabytes(size) {
  return `${(size / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;
}

/** Read a model's description, and show it at the top of the page. */
async function describe(name) {
  const info = await send(`v1/models/${encodeURIComponent(name)}`);
  classifier.info = info;
  document.title = byId("title").textContent = shown(info.name);
  byId("lead").textContent = `Classifies images into ${info.classes.length.toLocaleString("en")} classes: ${listed(info.classes)}.`;
}

function listed(classes) {
  const names = classes.slice(0, LISTED).map(shown);
  if (classes.length <= LISTED) return `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  return `${names.join(", ")} and ${(classes.length - LISTED).toLocaleString("en")} more`;
}

let renewing = null;

/** After the server has reloaded the model: read its description, and classify again. */
function renew(name) {
  renewing ??= describe(name).then(() => page.again()).finally(() => { renewing = null; });
  return renewing;
}

/** Offer a choice of models if there are several. */
function offer(models) {
  if (models.length < 2) return;
  const select = element("select", { id: "model" },
    ...models.map(({ name }) => element("option", { value: name }, shown(name))));
  select.addEventListener("change", async () => {
    try {
      await describe(select.value);
      page.again();
    } catch (error) {
      byId("status").textContent = error.message;
      select.value = classifier.info.name;
    }
  });
  byId("lead").after(element("p", { class: "model" }, element("label", {}, "Model ", select)));
}

async function start() {
  const { models } = await send("v1/models");
  await describe(models[0].name);
  offer(models);
}

const page = startPage(classifier, start());
