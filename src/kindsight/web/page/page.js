/**
 * The page: images in, results out. The classifier is an object with:
 *
 * - `info`, the content of model.json, which changes with the model;
 * - `classify({blob, signal} or {bitmap}, side)`, which returns a promise of {probabilities, best,
 *   confidence, score, reason, isClipped, width, height, thumbnail};
 * - `atOnce`, the number of images that are classified at the same time, 1 by default;
 * - optionally `explain(image)`, which returns a promise of a heat map's URL, and
 *   `correct(image, label)` and `forget(id)`, which store a correction and delete it.
 */

import { createCorrections } from "./correction.js";
import { toCsv } from "./csv.js";
import { byId, counted, element, shown } from "./dom.js";
import { fromClipboard, fromDrop, fromInput } from "./files.js";
import { createGallery } from "./gallery.js";
import { createHeatMap } from "./heat_map.js";
import { createLive } from "./live.js";
import { createQueue } from "./queue.js";
import { showVerdict, spoken } from "./verdict.js";

/**
 * Fill the page, and return {again}, which classifies all images once more after a change of the model.
 * `ready` is a promise that is fulfilled when the classifier has started.
 */
export function startPage(classifier, ready) {
  const images = [];
  let selected = null;
  let address = null;
  const gallery = createGallery(byId("gallery"), classifier, select);
  const heatMap = createHeatMap(classifier);
  const corrections = createCorrections(classifier, (image) => gallery.update(image), say);
  const queue = createQueue(classifier, ready, {
    finished(image) {
      gallery.update(image);
      if (image === selected) showSelected();
    },
    progress(left) {
      byId("progress").textContent = left > 0 ? `${counted(left, "image")} left` : "";
    },
    idle(done, image) {
      status(done > 1 ? `${counted(done, "image")} classified` : "");
      if (done === 1 && image === selected) say(spoken(image, classifier.info));
    },
    stopped(error, left) {
      byId("progress").textContent = `${counted(left, "image")} left`;
      status(error.message);
      byId("again").hidden = false;
    },
  });
  const live = createLive(classifier, ready, {
    add, say, status,
    show(image) {
      showVerdict(byId("verdict"), image, classifier.info);
      showCrop(image.size);
    },
    started() {
      select(null);
      byId("photo").hidden = byId("blank").hidden = true;
      byId("result").hidden = false;
      byId("name").textContent = "Webcam";
      document.body.classList.add("is-used");
    },
    stopped: () => select(images.at(-1) ?? null),
  });

  function add(found) {
    if (found.length === 0) {
      status("No images found.");
      return;
    }
    live.stop();
    const added = found.map(({ name, file }, place) => {
      return { id: images.length + place, name, file, answer: null, error: "", code: "", url: null,
        size: null, correction: null };
    });
    images.push(...added);
    added.forEach(gallery.add);
    document.body.classList.add("is-used");
    status("");
    select(added[0]);
    queue.add(added);
  }

  /** Show an image's result; with `isWanted`, scroll to it if it is out of sight. */
  function select(image, isWanted = false) {
    if (image !== null) live.stop();
    selected = image;
    gallery.select(image);
    showSelected();
    const { top, bottom } = byId("result").getBoundingClientRect();
    if (isWanted && (bottom < 120 || top > innerHeight - 120)) byId("result").scrollIntoView();
  }

  function showSelected() {
    byId("result").hidden = selected === null;
    heatMap.show(selected);
    corrections.show(selected);
    if (selected === null) return;
    byId("live").hidden = true;
    const photo = byId("photo");
    if (photo.dataset.image !== String(selected.id)) {
      photo.dataset.image = selected.id;
      if (address !== null) URL.revokeObjectURL(address);
      address = URL.createObjectURL(selected.file);
      showPhoto(address);
      photo.alt = shown(selected.name);
    } else if (!byId("blank").hidden && selected.url !== null) {
      showPhoto(selected.url);
    } else if (byId("blank").hidden) {
      photo.hidden = false;
    }
    byId("name").textContent = shown(selected.name);
    showVerdict(byId("verdict"), selected, classifier.info);
    showCrop(selected.size);
  }

  function showPhoto(source) {
    byId("photo").hidden = false;
    byId("blank").hidden = true;
    byId("photo").src = source;
  }

  /** Show which part of an image the classifier sees, if that is not nearly all of it. */
  function showCrop(size) {
    const crop = byId("crop");
    const { fit, height, width } = classifier.info.input.resize;
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
    byId("again").hidden = true;
  }

  /** Make a screen reader announce a change elsewhere on the page. */
  function say(text) {
    byId("spoken").textContent = text;
  }

  function clear() {
    live.stop();
    queue.clear();
    for (const { url } of images) if (url !== null) URL.revokeObjectURL(url);
    images.length = 0;
    delete byId("photo").dataset.image;
    select(null);
    gallery.clear();
    document.body.classList.remove("is-used");
    byId("progress").textContent = "";
    status("All images were removed from the page.");
    byId("choose").focus();
  }

  function again() {
    queue.clear();
    byId("progress").textContent = "";
    if (images.length === 0) return;
    for (const image of images) {
      [image.answer, image.error] = [null, ""];
      gallery.update(image);
    }
    if (selected !== null) showSelected();
    queue.add(images);
  }

  function download() {
    const blob = new Blob([toCsv(images, classifier.info.classes)], { type: "text/csv" });
    const link = element("a", { href: URL.createObjectURL(blob), download: "predictions.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  /** On a card or the result, letters and numbers are shortcuts. */
  function press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const isText = event.target.matches("input, select");
    if (!event.target.closest("#gallery, #result") || (isText && event.key !== "Escape")) return;
    if (corrections.press(event.key) || heatMap.press(event.key)) event.preventDefault();
  }

  byId("csv").addEventListener("click", download);
  byId("clear").addEventListener("click", clear);
  byId("again").addEventListener("click", () => {
    status("");
    queue.resume();
  });
  addEventListener("keydown", press);
  listenToPhoto(() => selected);
  listenToInputs(add);
  listenToDrops(add);
  start(ready, status, () => images.length === 0 && !live.isOn());
  return { again };
}

async function start(ready, status, isIdle) {
  status("Loading the classifier");
  try {
    await ready;
    if (isIdle()) status("Ready");
  } catch (error) {
    status(`The classifier could not be started: ${error.message}`);
    document.body.classList.add("is-broken");
  }
}

/** Give the frame of an image its aspect ratio; small images are enlarged to fill it. */
function listenToPhoto(selected) {
  const photo = byId("photo");
  const shape = (width, height) => {
    if (width && height) byId("fit").style.setProperty("--ratio", String(width / height));
  };
  photo.addEventListener("load", () => shape(photo.naturalWidth, photo.naturalHeight));
  photo.addEventListener("error", () => {
    const url = selected()?.url ?? null;
    if (url !== null && photo.src !== url) {
      photo.src = url;
      return;
    }
    photo.hidden = true;
    byId("blank").hidden = false;
    shape(4, 3);
  });
  byId("video").addEventListener("resize", ({ target }) => {
    shape(target.videoWidth, target.videoHeight);
  });
}

function listenToInputs(add) {
  for (const [button, input] of [["choose", "files"], ["folder", "directory"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", (event) => {
      add(fromInput(event.target.files));
      event.target.value = "";
    });
  }
  byId("folder").hidden = !("webkitdirectory" in byId("directory")) || matchMedia("(pointer: coarse)").matches;
  addEventListener("paste", (event) => {
    const found = fromClipboard(event.clipboardData);
    if (found.length > 0) add(found);
  });
}

function listenToDrops(add) {
  let depth = 0; // number of elements that the drag has entered and not left
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
