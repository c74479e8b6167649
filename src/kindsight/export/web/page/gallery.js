/** All images of the page as a grid, filtered and sorted. */

import { byId, counted, element, named, percent, shown } from "./dom.js";
import { REASONS, summary } from "./verdict.js";

const KINDS = { label: "With a label", unsure: REASONS.unsure, unknown: REASONS.unknown,
  error: "Unreadable" };

/** Return the grid of a list element: {add, update, select, clear, counts}. */
export function createGallery(list, info, choose) {
  const cards = new Map(); // image -> {item, button, text, share, thumbnail}
  const [filter, sort] = [byId("filter"), byId("sort")];
  let selected = null;
  let isPlanned = false;

  /** Order and show the cards once for all changes of this moment. */
  function arrange() {
    if (isPlanned) return;
    isPlanned = true;
    requestAnimationFrame(() => {
      isPlanned = false;
      const order = ordered();
      if (order.some((item, place) => list.children[place] !== item)
        || list.children.length !== order.length) {
        const focused = document.activeElement;
        list.replaceChildren(...order);
        if (list.contains(focused)) focused.focus();
      }
      byId("all").hidden = cards.size < 2;
      byId("count").textContent = counted(cards.size, "image");
      byId("counts").textContent = counts();
      offerKinds();
    });
  }

  function ordered() {
    const wanted = filter.value;
    const found = Array.from(cards.keys()).filter((image) => {
      const { text, kind } = summary(image, info.classes);
      return wanted === "" || wanted === `kind ${kind}`
        || (kind === "label" && wanted === `label ${text}`);
    });
    const confidence = ({ answer }) => answer?.confidence ?? -1;
    if (sort.value === "low") found.sort((a, b) => confidence(a) - confidence(b));
    if (sort.value === "high") found.sort((a, b) => confidence(b) - confidence(a));
    if (sort.value === "class") {
      const place = ({ answer }) => (!answer ? 1e9 : answer.reason ? 1e8 : answer.best);
      found.sort((a, b) => place(a) - place(b) || confidence(b) - confidence(a));
    }
    return found.map((image) => cards.get(image).item);
  }

  /** Offer those kinds and labels in the filter that there are. */
  function offerKinds() {
    const options = [["", "All images"]];
    const summaries = Array.from(cards.keys(), (image) => summary(image, info.classes));
    const kinds = new Set(summaries.map(({ kind }) => kind));
    for (const [kind, text] of Object.entries(KINDS)) {
      if (kinds.has(kind)) options.push([`kind ${kind}`, text]);
    }
    const labels = new Set(summaries.filter(({ kind }) => kind === "label").map(({ text }) => text));
    for (const name of info.classes) if (labels.has(name)) options.push([`label ${name}`, name]);
    if (String(options.map(([value]) => value)) === filter.dataset.values) return;
    filter.dataset.values = String(options.map(([value]) => value));
    const before = filter.value;
    filter.replaceChildren(...options.map(([value, text]) => {
      return element("option", { value }, shown(text));
    }));
    if (options.some(([value]) => value === before)) filter.value = before;
  }

  function counts() {
    const numbers = { label: 0, unsure: 0, unknown: 0, error: 0 };
    for (const image of cards.keys()) {
      const { kind } = summary(image, info.classes);
      if (kind in numbers) numbers[kind]++;
    }
    const parts = Object.entries(numbers).filter(([, count]) => count > 0);
    return parts.map(([kind, count]) => `${KINDS[kind]}: ${count.toLocaleString("en")}`).join(" · ");
  }

  function add(image) {
    const thumbnail = element("span", { class: "thumbnail" });
    const text = element("span", { class: "text" });
    const share = element("span", { class: "number" });
    const button = element("button",
      { type: "button", class: "card", onclick: () => choose(image), title: shown(image.name) },
      thumbnail, element("span", { class: "line" }, text, share),
      named(image.name, { class: "file" }));
    cards.set(image, { item: element("li", {}, button), button, text, share, thumbnail });
    update(image);
  }

  function update(image) {
    const card = cards.get(image);
    if (card === undefined) return;
    const { text, kind } = summary(image, info.classes);
    card.button.className = `card is-${kind}`;
    card.text.replaceChildren(named(text));
    const isRated = kind === "label" || kind === "unsure";
    card.share.textContent = isRated ? percent(image.answer.confidence) : "";
    if (image.url !== null && card.thumbnail.children.length === 0) {
      card.thumbnail.append(element("img", { src: image.url, alt: "", loading: "lazy" }));
    }
    arrange();
  }

  function select(image) {
    cards.get(selected)?.button.removeAttribute("aria-current");
    selected = image;
    cards.get(selected)?.button.setAttribute("aria-current", "true");
  }

  function clear() {
    cards.clear();
    selected = null;
    filter.value = "";
    list.replaceChildren();
    arrange();
  }

  /** Arrow keys go from card to card. */
  list.addEventListener("keydown", (event) => {
    const item = event.target.closest("li");
    if (item === null) return;
    const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const items = Array.from(list.children);
    items[items.indexOf(item) + step]?.firstElementChild.focus();
  });
  filter.addEventListener("change", arrange);
  sort.addEventListener("change", arrange);
  return { add, update, select, clear, counts };
}
