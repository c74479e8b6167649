/** A list of many cards of one size; only those near the window are elements. */

const GAP = 14; // pixels between cards
const AHEAD = 600; // pixels above and below the window in which cards have elements, too

/**
 * Return the grid of a list element: {show, refresh, place, focus}.
 *
 * `make(item)` returns a card, a button; `fill(card, item)` sets its content; `move(item)` is
 * called when arrow keys lead to an item. The tab key reaches one of the cards.
 */
export function createGrid(list, { make, fill, move }) {
  let items = [];
  let places = new Map(); // item -> its position in the order
  let current = 0; // the position that the tab key reaches
  const rendered = new Map(); // item -> list item
  let size = { columns: 1, width: 0, height: 0 };
  let isPlanned = false;

  /** Show these items in this order. */
  function show(order) {
    const before = items[current];
    items = order;
    places = new Map(order.map((item, place) => [item, place]));
    current = places.get(before) ?? 0;
    measure();
    render();
  }

  function measure() {
    const width = list.clientWidth;
    if (width === 0) return;
    const style = getComputedStyle(list);
    const least = parseFloat(style.getPropertyValue("--card")) * parseFloat(getComputedStyle(document.documentElement).fontSize);
    const columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    const side = (width - GAP * (columns - 1)) / columns;
    list.style.setProperty("--width", `${side}px`);
    const height = heightOfCard();
    list.style.height = items.length === 0 ? "" : `${Math.ceil(items.length / columns) * (height + GAP) - GAP}px`;
    size = { columns, width: side, height };
  }

  /** All cards are as high as an empty one. */
  function heightOfCard() {
    const trial = document.createElement("li");
    trial.className = "trial";
    trial.setAttribute("aria-hidden", "true");
    if (items.length > 0) trial.append(make(items[0]));
    list.append(trial);
    const height = trial.offsetHeight;
    trial.remove();
    return height;
  }

  /** Create the elements of the cards near the window, and remove the others. */
  function render() {
    const { columns, width, height } = size;
    const top = -list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((top - AHEAD) / (height + GAP))) * columns;
    const last = Math.ceil((top + innerHeight + AHEAD) / (height + GAP)) * columns;
    const wanted = width === 0 ? [] : items.slice(first, Math.max(first, last));
    const focused = document.activeElement;
    const kept = focusedItem(focused);
    if (kept !== undefined && places.has(kept) && !wanted.includes(kept)) wanted.push(kept);
    const set = new Set(wanted);
    for (const [item, element] of rendered) {
      if (set.has(item)) continue;
      element.remove();
      rendered.delete(item);
    }
    wanted.forEach((item, index) => {
      const element = rendered.get(item) ?? elementOf(item);
      position(element, places.get(item));
      if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
    });
    if (kept !== undefined && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  function focusedItem(focused) {
    if (!list.contains(focused)) return undefined;
    for (const [item, element] of rendered) if (element.contains(focused)) return item;
    return undefined;
  }

  function elementOf(item) {
    const element = document.createElement("li");
    const card = make(item);
    fill(card, item);
    element.append(card);
    rendered.set(item, element);
    return element;
  }

  function position(element, place) {
    const { columns, width, height } = size;
    const x = (place % columns) * (width + GAP);
    const y = Math.floor(place / columns) * (height + GAP);
    element.style.transform = `translate(${x}px, ${y}px)`;
    element.setAttribute("aria-setsize", items.length);
    element.setAttribute("aria-posinset", place + 1);
    element.firstElementChild.tabIndex = place === current ? 0 : -1;
  }

  /** Show an item that has changed. */
  function refresh(item) {
    const element = rendered.get(item);
    if (element !== undefined) fill(element.firstElementChild, item);
  }

  /** Let the tab key reach an item. */
  function place(item) {
    const before = rendered.get(items[current]);
    if (before !== undefined) before.firstElementChild.tabIndex = -1;
    current = places.get(item) ?? 0;
    const after = rendered.get(items[current]);
    if (after !== undefined) after.firstElementChild.tabIndex = 0;
  }

  /** Focus an item's card, and scroll to it if necessary. */
  function focus(item) {
    place(item);
    const [row, height] = [Math.floor(current / size.columns), size.height + GAP];
    const top = list.getBoundingClientRect().top + row * height;
    if (top < 0) scrollBy({ top: top - GAP });
    else if (top + height > innerHeight) scrollBy({ top: top + height - innerHeight });
    render();
    rendered.get(item)?.firstElementChild.focus({ preventScroll: true });
  }

  function plan() {
    if (isPlanned) return;
    isPlanned = true;
    requestAnimationFrame(() => {
      isPlanned = false;
      render();
    });
  }

  list.addEventListener("keydown", (event) => {
    const from = places.get(focusedItem(event.target));
    if (from === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    const { columns } = size;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns,
      Home: -from, End: items.length - 1 - from };
    const to = items[from + steps[event.key]];
    if (steps[event.key] === undefined) return;
    event.preventDefault();
    if (to === undefined) return;
    focus(to);
    move(to);
  });
  addEventListener("scroll", plan, { passive: true });
  addEventListener("resize", plan);
  new ResizeObserver(() => {
    if (list.clientWidth === 0) return;
    measure();
    plan();
  }).observe(list);
  return { show, refresh, place, focus };
}
