/** The prediction of one image, with its probabilities. */

import { largest } from "./decide.js";
import { element, named, percent } from "./dom.js";

const SHOWN = 5;

/** The words for an image without a label. */
export const REASONS = { unsure: "Unsure", unknown: "None of these" };

/** Return the words and the kind of an image's prediction: {text, kind}. */
export function summary({ answer, error, code }, classes) {
  if (error) return { text: code === "refused" ? "Not classified" : "Unreadable", kind: "error" };
  if (!answer) return { text: "Waiting", kind: "waiting" };
  if (answer.reason) return { text: REASONS[answer.reason], kind: answer.reason };
  return { text: classes[answer.best], kind: "label" };
}

/** Return the label that an image has after corrections, null if none: {label}. */
export function result({ answer, correction }, classes) {
  if (correction) return { label: correction.label };
  return { label: answer && !answer.reason ? classes[answer.best] : null };
}

/** Return a sentence for a screen reader. */
export function spoken(image, info) {
  const { text, kind } = summary(image, info.classes);
  if (kind === "error") return `${text}. ${image.error}`;
  const share = percent(image.answer.confidence);
  if (kind === "label") return `${text}, ${share}`;
  return `${text}. Closest class: ${info.classes[image.answer.best]}, ${share}`;
}

/** Fill an element with an image's result; `image` is {name, answer, error}. */
export function showVerdict(parent, image, info) {
  const { text, kind } = summary(image, info.classes);
  const heading = element("p", { class: `verdict is-${kind}` }, named(text));
  if (kind === "error") {
    parent.replaceChildren(heading, element("p", {}, image.error));
    return;
  }
  if (kind === "waiting") {
    parent.replaceChildren(heading);
    return;
  }
  const parts = [heading, why(image.answer, info), bars(image.answer, info, SHOWN)];
  if (info.classes.length > SHOWN) parts.push(allClasses(image.answer, info));
  if (image.answer.isClipped) {
    parts.push(element("p", { class: "small" },
      "Pixel values of this image are outside the range of the training images: the result may "
      + "be wrong."));
  }
  parent.replaceChildren(...parts);
}

/** Return the line under the label: its probability, or why there is none. */
function why(answer, info) {
  const line = element("p", { class: "why" });
  const best = named(info.classes[answer.best]);
  const share = percent(answer.confidence);
  if (answer.reason === "unknown") {
    line.append("Unlike the images that the classifier was trained on. Closest class: ", best,
      ` (${share}).`);
  } else if (answer.reason === "unsure") {
    line.append("Most probable: ", best, ` (${share}). `
      + `A label needs at least ${(100 * info.thresholds.unsure).toFixed(1)}%.`);
  } else {
    line.append(`${share} probability`);
  }
  return line;
}

function bars(answer, info, count) {
  const list = element("ol", { class: `bars is-${answer.reason || "label"}` });
  for (const index of largest(answer.probabilities, count)) {
    const share = answer.probabilities[index];
    const bar = element("i");
    bar.style.setProperty("--share", String(share));
    list.append(element("li", {}, named(info.classes[index]),
      element("span", { class: "number" }, percent(share)), bar));
  }
  return list;
}

/** Return all classes, in a part that is closed at first and filled when it is opened. */
function allClasses(answer, info) {
  const details = element("details", {},
    element("summary", {}, `All ${info.classes.length.toLocaleString("en")} classes`));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) {
      details.append(bars(answer, info, info.classes.length));
    }
  });
  return details;
}
