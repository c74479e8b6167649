/** Elements of the page. Texts are set as text, never as HTML. */

// Control characters, and characters that change the direction of text and could disguise a name.
const UNSAFE = /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/**
 * Return a new element. `properties` are attributes, and functions for `onclick` and the like;
 * children are elements, or texts.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Return the element of the page with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Return a name for display. */
export function shown(name) {
  return name.replace(UNSAFE, "\ufffd");
}

/** Return an element with a user's name; its text direction does not affect the surrounding text. */
export function named(name, properties = {}) {
  return element("bdi", properties, shown(name));
}

/** Return a probability as text; only exactly 0 and 1 become 0% and 100%, and others "<0.1%" and ">99.9%". */
export function percent(share) {
  if (share === 0 || share === 1) return `${100 * share}%`;
  if (share < 0.0005) return "<0.1%";
  return share >= 0.9995 ? ">99.9%" : `${(100 * share).toFixed(1)}%`;
}

/** Return a number with its noun: "1 image", "1,200 images". */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
