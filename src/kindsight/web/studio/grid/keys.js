/** The keys of the grid. */

const LABEL_KEYS = "123456789abcdefghijklmnopqrstvwyz"; // x excludes, u removes labels

/** Return the key that gives the label of a class; "" for a class after the last key. */
export function keyOf(classIndex) {
  return LABEL_KEYS[classIndex] ?? "";
}

/** Return what a key does to selected images: {label}, {exclude}, {include}, or null. */
export function actionOf(event, classes) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.key.length !== 1) {
    return event.key === "Delete" ? { exclude: true } : null;
  }
  const key = event.key.toLowerCase();
  if (key === "x") return { exclude: true };
  if (key === "u" || key === "0") return { label: null };
  const index = LABEL_KEYS.indexOf(key);
  return index >= 0 && index < classes.length ? { label: classes[index] } : null;
}

/** Return whether the user is typing into a field. */
export function isTyping(event) {
  return event.target.closest?.("input:not([type=radio], [type=checkbox], [type=range]), textarea, select") != null;
}
