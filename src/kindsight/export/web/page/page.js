/**
 * The page: images in, results out. It knows the classifier by two things alone: `info`, the
 * content of model.json, and `classify({blob} or {bitmap}, side)`, which returns a promise of
 * {probabilities, best, confidence, score, reason, isClipped, width, height, thumbnail}.
 */

import { toCsv } from "./csv.js";
import { byId, counted, element, shown } from "./dom.js";
import { fromClipboard, fromDrop, fromInput } from "./files.js";
import { createGallery } from "./gallery.js";
import { showVerdict, spoken, summary } from "./verdict.js";
import { startWebcam } from "./webcam.js";

const THUMBNAIL = 320; // pixels of the longer side
const QUIET_SECONDS = 2; // between announcements of the webcam

/** Fill the page; `classifier` is {info, classify}, `ready` a promise of it. */
export async function startPage(info, classify, ready) {
  const images = [];
  const waiting = [];
  let selected = null;
  let isBusy = false;
  let webcam = null;
  let address = null;
  const gallery = createGallery(byId("gallery"), info, select);

  function add(found) {
    if (found.length === 0) {
      status("No images found.");
      return;
    }
    stopWebcam();
    for (const { name, file } of found) {
      const image = { id: images.length, name, file, answer: null, error: "", url: null };
      images.push(image);
      waiting.push(image);
      gallery.add(image);
    }
    document.body.classList.add("is-used");
    select(images[images.length - found.length]);
    work();
  }

  async function work() {
    if (isBusy) return;
    isBusy = true;
    await ready;
    let done = 0;
    while (waiting.length > 0) {
      const image = waiting.shift();
      try {
        image.answer = await classify({ blob: image.file }, THUMBNAIL);
        if (image.answer.thumbnail) image.url = URL.createObjectURL(image.answer.thumbnail);
      } catch (error) {
        image.error = error.message;
      }
      done++;
      if (!images.includes(image)) continue; // cleared meanwhile
      gallery.update(image);
      if (image === selected) showSelected();
      if (waiting.length > 0) byId("progress").textContent = `${counted(waiting.length, "image")} left`;
    }
    byId("progress").textContent = "";
    isBusy = false;
    status(done > 1 ? `${counted(done, "image")} classified` : "");
    if (done === 1 && selected !== null) say(spoken(selected, info));
  }

  function select(image) {
    selected = image;
    gallery.select(image);
    showSelected();
  }

  function showSelected() {
    byId("result").hidden = selected === null && webcam === null;
    if (selected === null) return;
    byId("live").hidden = true;
    const photo = byId("photo");
    photo.hidden = false;
    if (photo.dataset.image !== String(selected.id)) {
      photo.dataset.image = selected.id;
      if (address !== null) URL.revokeObjectURL(address);
      address = URL.createObjectURL(selected.file);
      photo.src = address;
      photo.alt = shown(selected.name);
    }
    byId("name").textContent = shown(selected.name);
    showVerdict(byId("verdict"), selected, info);
    showCrop(selected.answer);
  }

  /** Show which part of an image the classifier sees, if that is not nearly all of it. */
  function showCrop(size) {
    const crop = byId("crop");
    const { fit, height, width } = info.input.resize;
    crop.hidden = byId("crop-note").hidden = true;
    if (fit !== "crop" || !size) return;
    const high = Math.min(1, (size.width * height) / width / size.height);
    const wide = Math.min(1, (size.height * width) / height / size.width);
    if (high * wide > 0.95) return;
    crop.hidden = byId("crop-note").hidden = false;
    crop.style.setProperty("--high", `${100 * high}%`);
    crop.style.setProperty("--wide", `${100 * wide}%`);
  }

  function status(text) {
    byId("status").textContent = text;
  }

  /** Have a screen reader say what is seen elsewhere on the page. */
  function say(text) {
    byId("spoken").textContent = text;
  }

  function clear() {
    stopWebcam();
    for (const { url } of images) if (url !== null) URL.revokeObjectURL(url);
    images.length = waiting.length = 0;
    selected = null;
    gallery.clear();
    document.body.classList.remove("is-used");
    byId("result").hidden = true;
    status("All images were removed from the page.");
    byId("choose").focus();
  }

  function download() {
    const blob = new Blob([toCsv(images, info.classes)], { type: "text/csv" });
    const link = element("a", { href: URL.createObjectURL(blob), download: "predictions.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  async function toggleWebcam() {
    if (webcam !== null) {
      stopWebcam();
      return;
    }
    byId("webcam").disabled = byId("take").disabled = true;
    try {
      await ready;
      byId("live").hidden = false;
      let said = "";
      let saidAt = 0;
      webcam = await startWebcam(byId("video"), async (bitmap) => {
        const answer = await classify({ bitmap }, 0);
        if (webcam === null) return;
        const image = { answer, error: "" };
        showVerdict(byId("verdict"), image, info);
        showCrop(answer);
        const { text } = summary(image, info.classes);
        if (text !== said && performance.now() - saidAt > 1000 * QUIET_SECONDS) {
          [said, saidAt] = [text, performance.now()];
          say(spoken(image, info));
        }
      });
      webcam.finished.catch((error) => {
        stopWebcam();
        status(error.message);
      });
      selected = null;
      gallery.select(null);
      byId("photo").hidden = true;
      byId("result").hidden = false;
      byId("name").textContent = "Webcam";
      document.body.classList.add("is-used");
      byId("switch").hidden = webcam.cameras < 2;
      byId("webcam").textContent = "Stop webcam";
      byId("take").disabled = false;
      byId("take").focus();
    } catch (error) {
      byId("live").hidden = true;
      status(error.message);
    }
    byId("webcam").disabled = false;
  }

  function stopWebcam() {
    if (webcam === null) return;
    webcam.stop();
    webcam = null;
    byId("live").hidden = true;
    byId("webcam").textContent = "Use the webcam";
    showSelected();
  }

  let taken = 0;
  async function take() {
    const file = await webcam?.capture(`webcam-${++taken}.png`);
    if (file) add([{ name: file.name, file }]);
  }

  /** Give the frame of an image its shape, which small images fill, too. */
  const shape = (width, height) => {
    if (width && height) byId("fit").style.setProperty("--ratio", String(width / height));
  };
  byId("photo").addEventListener("load", ({ target }) => {
    shape(target.naturalWidth, target.naturalHeight);
  });
  byId("video").addEventListener("resize", ({ target }) => {
    shape(target.videoWidth, target.videoHeight);
  });

  for (const [button, input] of [["choose", "files"], ["folder", "directory"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", (event) => {
      add(fromInput(event.target.files));
      event.target.value = "";
    });
  }
  byId("folder").hidden = !("webkitdirectory" in byId("directory")) || matchMedia("(pointer: coarse)").matches;
  byId("webcam").addEventListener("click", toggleWebcam);
  byId("take").addEventListener("click", take);
  byId("switch").addEventListener("click", () => webcam.next().catch((e) => status(e.message)));
  byId("csv").addEventListener("click", download);
  byId("clear").addEventListener("click", clear);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && webcam !== null) {
      stopWebcam();
      byId("webcam").focus();
    }
  });
  addEventListener("paste", (event) => {
    const found = fromClipboard(event.clipboardData);
    if (found.length > 0) add(found);
  });
  listenToDrops(add);

  status("Loading the classifier");
  try {
    await ready;
    if (!isBusy && images.length === 0) status("Ready");
  } catch (error) {
    status(`The classifier could not be started: ${error.message}`);
    document.body.classList.add("is-broken");
  }
}

function listenToDrops(add) {
  let depth = 0; // of the elements that were entered and not left
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("is-dropping", depth > 0);
  };
  addEventListener("dragenter", (event) => {
    event.preventDefault();
    mark(1);
  });
  addEventListener("dragleave", () => mark(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    mark(-depth);
    add(await fromDrop(event.dataTransfer));
  });
}
