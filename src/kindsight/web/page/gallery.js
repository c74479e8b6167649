/** All images of the page as a grid, filtered and sorted. */

import { byId, counted, element, percent, shown } from "./dom.js";
import { createGrid } from "./grid.js";
import { REASONS, result, summary } from "./verdict.js";

const KINDS = { label: "With a label", unsure: REASONS.unsure, unknown: REASONS.unknown,
  error: "Unreadable", corrected: "Corrected" };
const PAUSE = 150; // milliseconds between two arrangements
const byName = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Return the grid of a list element: {add, update, select, focus, clear}. */
export function createGallery(list, classifier, choose) {
  const images = new Set();
  const [filter, sort, find] = [byId("filter"), byId("sort"), byId("find")];
  const grid = createGrid(list, { make, fill, move: choose });
  let selected = null;
  let planned = 0;

  /** Order and show the cards, once for all changes at the same time. */
  function plan(pause) {
    if (planned !== 0 && pause > 0) return;
    clearTimeout(planned);
    planned = setTimeout(arrange, pause);
    list.setAttribute("aria-busy", "true");
  }

  function arrange() {
    planned = 0;
    const isHidden = images.size < 2;
    byId("all").hidden = isHidden;
    document.body.classList.toggle("has-many", !isHidden);
    const entries = Array.from(images, (image) => {
      const { kind } = summary(image, classifier.info.classes);
      return { image, kind, ...result(image, classifier.info.classes) };
    });
    offerKinds(entries);
    const order = ordered(entries);
    const all = counted(images.size, "image");
    byId("count").textContent = order.length === images.size ? all
      : `${order.length.toLocaleString("en")} of ${all}`;
    byId("counts").textContent = counts(entries);
    grid.show(order);
    list.removeAttribute("aria-busy");
  }

  function ordered(entries) {
    const [wanted, text] = [filter.value, find.value.trim().toLowerCase()];
    const found = entries.filter(({ image, kind, label }) => {
      if (text !== "" && !image.name.toLowerCase().includes(text)) return false;
      return wanted === "" || wanted === `kind ${kind}` || wanted === `label ${label}`
        || (wanted === "kind corrected" && image.correction !== null);
    });
    const confidence = ({ image }) => image.answer?.confidence ?? -1;
    const place = ({ image, label }) => {
      if (label !== null) return classifier.info.classes.indexOf(label);
      return image.answer ? 1e8 : 1e9;
    };
    const orders = {
      low: (a, b) => confidence(a) - confidence(b),
      high: (a, b) => confidence(b) - confidence(a),
      name: (a, b) => byName.compare(a.image.name, b.image.name),
      class: (a, b) => place(a) - place(b) || confidence(b) - confidence(a),
    };
    if (orders[sort.value] !== undefined) found.sort(orders[sort.value]);
    return found.map(({ image }) => image);
  }

  /** Offer the existing kinds and labels in the filter. */
  function offerKinds(entries) {
    const options = [["", "All images"]];
    const kinds = new Set(entries.map(({ kind }) => kind));
    if (entries.some(({ image }) => image.correction !== null)) kinds.add("corrected");
    for (const [kind, text] of Object.entries(KINDS)) {
      if (kinds.has(kind)) options.push([`kind ${kind}`, text]);
    }
    const labels = new Set(entries.map(({ label }) => label));
    for (const name of classifier.info.classes) if (labels.has(name)) options.push([`label ${name}`, name]);
    if (String(options.map(([value]) => value)) === filter.dataset.values) return;
    filter.dataset.values = String(options.map(([value]) => value));
    const before = filter.value;
    filter.replaceChildren(...options.map(([value, text]) => {
      return element("option", { value }, shown(text));
    }));
    if (options.some(([value]) => value === before)) filter.value = before;
  }

  function counts(entries) {
    const numbers = { label: 0, unsure: 0, unknown: 0, error: 0, corrected: 0 };
    for (const { image, kind } of entries) {
      if (kind in numbers) numbers[kind]++;
      if (image.correction !== null) numbers.corrected++;
    }
    const parts = Object.entries(numbers).filter(([, count]) => count > 0);
    return parts.map(([kind, count]) => `${KINDS[kind]}: ${count.toLocaleString("en")}`).join(" · ");
  }

  function make(image) {
    return element("button",
      { type: "button", class: "card", onclick: () => choose(image, true), title: shown(image.name) },
      element("span", { class: "thumbnail" }),
      element("span", { class: "line" }, element("bdi", { class: "text" }, "\u00a0"),
        element("span", { class: "number" })),
      element("bdi", { class: "file" }, shown(image.name)));
  }

  function fill(card, image) {
    const { text, kind } = summary(image, classifier.info.classes);
    const { correction } = image;
    card.className = `card is-${kind}${correction === null ? "" : " is-corrected"}`;
    card.querySelector(".text").textContent = shown(correction === null ? text : correction.text);
    const isRated = kind === "label" || kind === "unsure";
    card.querySelector(".number").textContent = correction !== null ? "corrected"
      : isRated ? percent(image.answer.confidence) : "";
    const thumbnail = card.querySelector(".thumbnail");
    if (image.url !== null && thumbnail.children.length === 0) {
      thumbnail.append(element("img", { src: image.url, alt: "", decoding: "async" }));
    }
    if (image === selected) card.setAttribute("aria-current", "true");
    else card.removeAttribute("aria-current");
  }

  function add(image) {
    images.add(image);
    plan(0);
  }

  function update(image) {
    grid.refresh(image);
    plan(PAUSE);
  }

  function select(image) {
    const before = selected;
    selected = image;
    if (before !== null) grid.refresh(before);
    if (image === null) return;
    grid.refresh(image);
    grid.place(image);
  }

  function clear() {
    images.clear();
    selected = null;
    filter.value = find.value = "";
    arrange();
  }

  filter.addEventListener("change", () => plan(0));
  sort.addEventListener("change", () => plan(0));
  find.addEventListener("input", () => plan(0));
  return { add, update, select, clear };
}
