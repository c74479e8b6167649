/** Fifth step: the classifier on new images, or live on the webcam. */

import { useEffect, useRef, useState } from "../../vendor/preact/hooks.js";
import { shown } from "../../page/dom.js";
import { fromClipboard, fromDrop, fromInput } from "../../page/files.js";
import { showVerdict, spoken, summary } from "../../page/verdict.js";
import { startWebcam } from "../../page/webcam.js";
import { ask } from "../api.js";
import { html, Name } from "../parts.js";
import { ChooseRun, NotTrained, runName, useRun } from "../run.js";
import { attempt } from "../store.js";

const LIVE = 480; // pixels of the longer side of a frame that is sent

export function TryView() {
  const run = useRun();
  if (runName() === undefined) return html`<div class="lead"><h1>Try it</h1></div><${NotTrained} what="This step" />`;
  if (run === undefined) return html`<p class="empty">Loading</p>`;
  return html`<${Trial} key=${run.name} run=${run} info=${infoOf(run)} />`;
}

/** Return a classifier's classes and thresholds as the page's verdict takes them. */
function infoOf({ labels, uncertainty }) {
  const limit = (value) => (typeof value === "number" ? value : value?.threshold ?? null);
  return { classes: labels, thresholds: { unsure: limit(uncertainty?.unsure), unknown: limit(uncertainty?.unknown) } };
}

/** Return an answer of the server as the page's verdict takes it. */
function answerOf(prediction, { classes }) {
  const best = classes.indexOf(prediction.best ?? prediction.label);
  const probabilities = classes.map((name) => prediction.probabilities[name] ?? 0);
  return { probabilities, best, confidence: prediction.confidence, score: prediction.ood_score ?? null, reason: prediction.reason ?? "", isClipped: false };
}

function Trial({ run, info }) {
  const [shownImage, setShown] = useState(null); // {name, address, answer, error, heatMap, blob}
  const [isLive, setLive] = useState(false);
  const [isMap, setMap] = useState(false);
  const [problem, setProblem] = useState("");
  const files = useRef(null);
  const predict = async (blob, isExplained) => {
    const path = `/api/predict?run=${encodeURIComponent(run.name)}${isExplained ? "&explain=true" : ""}`;
    const { predictions: [prediction] } = await ask("POST", path, { body: blob });
    if (prediction.error) return { answer: null, error: prediction.error.message ?? String(prediction.error), heatMap: null };
    return { answer: answerOf(prediction, info), error: "", heatMap: prediction.heat_map ?? null };
  };
  const classify = async ([first]) => {
    if (first === undefined) return;
    setLive(false);
    setProblem("");
    const image = { name: first.name, blob: first.file, address: URL.createObjectURL(first.file), answer: null, error: "", heatMap: null };
    setShown((before) => {
      if (before?.address) URL.revokeObjectURL(before.address);
      return image;
    });
    const found = await attempt(() => predict(first.file, isMap));
    setShown((now) => (now?.address !== image.address ? now : found === undefined ? null : { ...image, ...found }));
  };
  const toggleMap = async () => {
    setMap(!isMap);
    if (isMap || shownImage?.blob == null || shownImage.heatMap !== null) return;
    const found = await attempt(() => predict(shownImage.blob, true));
    if (found !== undefined) setShown((now) => (now?.address === shownImage.address ? { ...now, ...found } : now));
  };
  useImages(classify);
  return html`
    <div class="lead"><div class="bar"><h1>Try it</h1><${ChooseRun} /></div>
      <p class="quiet">Drop an image anywhere, paste one, choose one, or hold something in front of the webcam. Images that
        you try are not added to the project.</p></div>
    <div class="buttons is-left">
      <button type="button" class="primary" onClick=${() => files.current.click()}>Choose an image</button>
      <button type="button" aria-pressed=${isLive ? "true" : "false"} onClick=${() => { setShown(null); setLive(!isLive); }}>${isLive ? "Stop the webcam" : "Use the webcam"}</button>
      <button type="button" aria-pressed=${isMap ? "true" : "false"} disabled=${isLive} onClick=${toggleMap}>Heat map</button>
      <input ref=${files} id="try-file" type="file" hidden accept="image/*,.tif,.tiff,.heic" onChange=${(event) => { classify(fromInput(event.target.files)); event.target.value = ""; }} />
    </div>
    ${problem ? html`<p class="is-wrong" role="alert">${problem}</p>` : null}
    ${isLive ? html`<${Live} predict=${predict} info=${info} stop=${(error) => { setLive(false); if (error) setProblem(error); }} />` : null}
    ${shownImage === null ? null : html`<div class="new-image">
      <figure><div class="new-image-stage"><img src=${shownImage.address} alt=${shown(shownImage.name)} />
        ${isMap && shownImage.heatMap ? html`<img class="heat" src=${shownImage.heatMap} alt="Heat map: the regions that count most for the prediction" />` : null}</div>
        <figcaption class="small"><${Name}>${shownImage.name}<//></figcaption></figure>
      <${Verdict} image=${shownImage} info=${info} isSpoken />
    </div>`}
    ${!isLive && shownImage === null ? html`<div class="invitation"><svg viewBox="0 0 48 48" aria-hidden="true"><rect x="5" y="9" width="38" height="30" rx="4"/><circle cx="16" cy="19" r="3.5"/><path d="M7 35l11-11 8 8 6-6 9 9"/></svg>
      <p><strong>Drop an image here.</strong></p></div>` : null}`;
}

/** The page's verdict of an image. */
function Verdict({ image, info, isSpoken }) {
  const place = useRef(null);
  const { answer, error } = image;
  useEffect(() => showVerdict(place.current, image, info), [answer, error]);
  return html`<div><div ref=${place} class="verdict-of"></div>
    <p class="unseen" role="status">${isSpoken && (answer || error) ? spoken(image, info) : ""}</p></div>`;
}

/** The webcam: one frame after the other, as fast as the classifier takes them. */
function Live({ predict, info, stop }) {
  const video = useRef(null);
  const [image, setImage] = useState({ answer: null, error: "" });
  const [words, setWords] = useState("");
  useEffect(() => {
    let camera = null;
    let isClosed = false;
    const fail = (error) => isClosed || stop(error.message);
    startWebcam(video.current, async (bitmap) => {
      const found = await predict(await encoded(bitmap), false);
      if (isClosed) return;
      setImage(found);
      setWords(summary(found, info.classes).text);
    }).then((started) => {
      camera = started;
      if (isClosed) camera.stop();
      camera.finished.catch(fail);
    }, fail);
    return () => {
      isClosed = true;
      camera?.stop();
    };
  }, []);
  return html`<div class="new-image">
    <figure><div class="new-image-stage"><video ref=${video} muted playsinline aria-label="Webcam"></video></div></figure>
    <${Verdict} image=${image} info=${info} /><p class="unseen" role="status">${words}</p></div>`;
}

/** Return a frame as a JPEG. */
async function encoded(bitmap) {
  const scale = Math.min(1, LIVE / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
}

/** Take an image that is dropped or pasted anywhere on the page. */
function useImages(classify) {
  const latest = useRef(classify);
  latest.current = classify;
  useEffect(() => {
    const handlers = {
      dragover: (event) => event.preventDefault(),
      drop: async (event) => {
        event.preventDefault();
        latest.current(await fromDrop(event.dataTransfer));
      },
      paste: (event) => latest.current(fromClipboard(event.clipboardData)),
    };
    for (const [name, handler] of Object.entries(handlers)) addEventListener(name, handler);
    return () => {
      for (const [name, handler] of Object.entries(handlers)) removeEventListener(name, handler);
    };
  }, []);
}
