/** From the network's outputs to a prediction, by the rules of kindsight.uncertainty. */

const LARGEST = 3.4028234663852886e38; // float32
const CLIPPED = 0.001;

/**
 * Return {probabilities, best, confidence, score, reason, isClipped} of an image; `reason` is "",
 * or "unsure" or "unknown" for an image without a label. `info` is the content of model.json.
 */
export function decide(probabilities, score, clipped, info) {
  if (!probabilities.every(Number.isFinite)) throw new Error("The network's probabilities for this image are not finite.");
  const best = indexOfLargest(probabilities);
  const confidence = probabilities[best];
  const finite = score === null || Number.isFinite(score) ? score : LARGEST;
  const { unsure, unknown } = info.thresholds;
  let reason = "";
  if (unknown !== null && finite !== null && finite > unknown) reason = "unknown";
  else if (unsure !== null && confidence < unsure) reason = "unsure";
  return { probabilities, best, confidence, score: finite, reason, isClipped: clipped >= CLIPPED };
}

/** Return the indices of the `count` largest values, the first of equal ones first. */
export function largest(values, count) {
  const order = Array.from(values.keys());
  return order.sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
}

function indexOfLargest(values) {
  let top = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[top]) top = i;
  return top;
}
