/** Predictions as a table: the columns of `kindsight predict --format csv`, and corrections. */

import { REASONS } from "./verdict.js";

const COLUMNS = ["path", "label", "confidence", "error", "message", "reason", "best", "ood_score",
  "prediction_set", "correction"];

/** Return the text of a CSV file of images, {name, answer, error, code, correction}, in this order. */
export function toCsv(images, classes) {
  const header = [...COLUMNS, ...classes.map((name) => `p_${name}`)];
  const rows = images.filter((image) => image.answer || image.error).map((image) => {
    const { answer, error, code, correction } = image;
    const path = isFormula(image.name) ? `./${image.name}` : image.name;
    if (!answer) return [path, "", "", code || "unreadable", error, "", "", "", "", "", ...classes.map(() => "")];
    const best = safe(classes[answer.best]);
    return [
      path, answer.reason ? "" : best, short(answer.confidence), "", "", answer.reason, best,
      answer.score === null ? "" : short(answer.score), "", corrected(correction),
      ...Array.from(answer.probabilities, short),
    ];
  });
  return [header, ...rows].map((cells) => `${cells.map(quoted).join(",")}\n`).join("");
}

function corrected(correction) {
  if (!correction) return "";
  return correction.label === null ? REASONS.unknown : safe(correction.label);
}

/** Return a float32 with the digits that identify it. */
function short(value) {
  return Number(value.toPrecision(9));
}

/** Return whether a spreadsheet would run a name as a formula. */
function isFormula(name) {
  return /^[=+\-@\t\r]/.test(name) && Number.isNaN(Number(name));
}

function safe(name) {
  return isFormula(name) ? `'${name}` : name;
}

function quoted(cell) {
  const text = String(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
