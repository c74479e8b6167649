/** The images that the grid shows, and their order. */

import { shown } from "../../page/dom.js";
import { EMPTY } from "./selection.js";
import { set, store } from "../store.js";

/** Return the ids of the images that a filter shows, in its order. */
export function inOrder(images, { kind, value, query, sort }) {
  const wanted = kind === "class" ? images.classes.indexOf(value) : -1;
  const found = kind === "finding" ? new Set(value.ids) : null;
  const text = query.trim().toLowerCase();
  const order = [];
  for (let row = 0; row < images.ids.length; row++) {
    const isExcluded = images.excluded[row] === 1;
    if (kind === "class" && (images.labels[row] !== wanted || isExcluded)) continue;
    if (kind === "unlabelled" && (images.labels[row] >= 0 || isExcluded)) continue;
    if (kind === "excluded" && !isExcluded) continue;
    if (found !== null && !found.has(images.ids[row])) continue;
    if (text !== "" && !images.names[row].toLowerCase().includes(text)) continue;
    order.push(row);
  }
  if (sort === "newest") order.reverse();
  if (sort === "name") {
    const { compare } = new Intl.Collator("en", { numeric: true });
    order.sort((a, b) => compare(images.names[a], images.names[b]));
  }
  if (sort === "class") order.sort((a, b) => images.labels[a] - images.labels[b] || a - b);
  return order.map((row) => images.ids[row]);
}

/** Return the title of a filter. */
export function titleOf({ kind, value }) {
  return { all: "All images", unlabelled: "Without a label", excluded: "Excluded" }[kind]
    ?? shown(kind === "class" ? value : value.title);
}

/** Change the filter, and show its images from the top. */
export function show(changes) {
  store.selection = EMPTY;
  set({ filter: { ...store.filter, ...changes }, scroll: { top: 0 } });
}
