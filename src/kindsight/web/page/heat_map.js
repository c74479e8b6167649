/** The heat map over an image: which regions count most for its class. */

import { byId, shown } from "./dom.js";

const SETTLED = 120; // milliseconds for which an image must be selected before its map is requested
const SHARE = 0.15; // fraction of the whole map from which a ninth of the image is named
const ROWS = ["top", "", "bottom"];
const COLUMNS = ["left", "", "right"];

/**
 * Return the heat map of the page: {show, press}. `classifier.explain` returns the URL of a map, an
 * image whose opacity is the strength; without it, there is no heat map.
 */
export function createHeatMap(classifier) {
  const [button, map, words, legend] = [byId("heat"), byId("map"), byId("map-words"), byId("legend")];
  let image = null;
  let isOn = false;

  function show(selected) {
    image = selected;
    button.hidden = !classifier.explain || classifier.info.explains === false;
    byId("heat-key").hidden = button.hidden;
    const isShown = isOn && !button.hidden && image !== null && image.answer !== null;
    map.hidden = legend.hidden = true;
    byId("fit").classList.remove("is-mapped");
    words.textContent = "";
    if (!isShown) return;
    const wanted = image.answer;
    if (wanted.map) place(wanted.map);
    else setTimeout(() => { if (image?.answer === wanted) ask(image, wanted); }, SETTLED);
  }

  async function ask(asked, answer) {
    words.textContent = "Computing the heat map";
    try {
      const address = await classifier.explain(asked);
      answer.map = { address, words: await describe(address, classifier.info.classes[answer.best]) };
    } catch (error) {
      if (image === asked && isOn) words.textContent = error.message;
      return;
    }
    if (image?.answer === answer && isOn) place(answer.map);
  }

  function place({ address, words: text }) {
    map.src = address;
    map.hidden = legend.hidden = false;
    byId("fit").classList.add("is-mapped");
    words.textContent = text;
  }

  function toggle() {
    isOn = !isOn;
    button.setAttribute("aria-pressed", String(isOn));
    show(image);
  }

  /** Handle a key that was pressed on a card or the result; return whether it was for this. */
  function press(key) {
    if (key !== "h" || button.hidden || image === null || image.answer === null) return false;
    toggle();
    return true;
  }

  button.addEventListener("click", toggle);
  return { show, press };
}

/** Return a sentence that states where a map is strong. */
async function describe(address, label) {
  const map = new Image();
  map.src = address;
  await map.decode();
  const shares = Array.from(ninths(map));
  const total = shares.reduce((sum, share) => sum + share, 0);
  if (total === 0) return `No region supports \u201c${shown(label)}\u201d.`;
  const places = shares.map((share, place) => ({ share: share / total, place }))
    .filter(({ share }) => share >= SHARE)
    .sort((a, b) => b.share - a.share).slice(0, 3)
    .map(({ place }) => nameOf(Math.floor(place / 3), place % 3));
  if (places.length === 0) return `Regions all over the image support \u201c${shown(label)}\u201d.`;
  return `The regions that count most for \u201c${shown(label)}\u201d are ${listed(places)}.`;
}

/** Return the opacity of each ninth of a map, row by row. */
function* ninths(map) {
  const [width, height] = [map.naturalWidth, map.naturalHeight];
  const pen = new OffscreenCanvas(width, height).getContext("2d");
  pen.drawImage(map, 0, 0);
  const { data } = pen.getImageData(0, 0, width, height);
  const edge = (part, length) => Math.round((part * length) / 3);
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 3; column++) {
      let sum = 0;
      for (let y = edge(row, height); y < edge(row + 1, height); y++) {
        for (let x = edge(column, width); x < edge(column + 1, width); x++) sum += data[4 * (y * width + x) + 3];
      }
      yield sum;
    }
  }
}

function nameOf(row, column) {
  if (row === 1 && column === 1) return "in the middle";
  const parts = [ROWS[row], COLUMNS[column]].filter(Boolean);
  return `at the ${parts.join(" ")}`;
}

function listed(parts) {
  if (parts.length === 1) return parts[0];
  return `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
}
