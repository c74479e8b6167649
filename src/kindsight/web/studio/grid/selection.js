/**
 * Selected images of a grid. A selection is {ids, anchor, active}: a Set of ids; the place from
 * which a range extends; and the place that the keyboard is at (-1: none). `order` are the ids of
 * the grid.
 */

export const EMPTY = { ids: new Set(), anchor: -1, active: -1 };

/** Return the selection of a single place. */
export function selectOnly(order, place) {
  if (order.length === 0) return EMPTY;
  const at = within(order, place);
  return { ids: new Set([order[at]]), anchor: at, active: at };
}

/** Return the selection with one place added or removed. */
export function toggle(selection, order, place) {
  const ids = new Set(selection.ids);
  if (!ids.delete(order[place])) ids.add(order[place]);
  return { ids, anchor: place, active: place };
}

/** Return the selection of the range from the anchor to a place; `isAdded` keeps the others. */
export function extend(selection, order, place, isAdded = false) {
  if (order.length === 0) return EMPTY;
  const at = within(order, place);
  const anchor = within(order, selection.anchor < 0 ? at : selection.anchor);
  const ids = new Set(isAdded ? selection.ids : []);
  for (let i = Math.min(anchor, at); i <= Math.max(anchor, at); i++) ids.add(order[i]);
  return { ids, anchor, active: at };
}

/** Return the selection with the keyboard at another place. */
export function moveTo(selection, order, place) {
  return { ...selection, active: within(order, place) };
}

/** Return the selection of all. */
export function selectAll(selection, order) {
  return { ids: new Set(order), anchor: 0, active: Math.max(0, selection.active) };
}

/** Return the selection of a rectangle of places, added to `before`. */
export function selectRectangle(before, order, columns, from, to) {
  const ids = new Set(before);
  const [top, bottom] = [Math.min(from.row, to.row), Math.max(from.row, to.row)];
  const [left, right] = [Math.min(from.column, to.column), Math.max(from.column, to.column)];
  for (let row = Math.max(0, top); row <= bottom && row * columns < order.length; row++) {
    for (let column = Math.max(0, left); column <= Math.min(right, columns - 1); column++) {
      const place = row * columns + column;
      if (place < order.length) ids.add(order[place]);
    }
  }
  const active = Math.min(order.length - 1, to.row * columns + Math.min(to.column, columns - 1));
  return { ids, anchor: Math.max(0, active), active: Math.max(0, active) };
}

/** Return the selection after the grid's images changed from `before` to `order`: without the images that are no longer shown. */
export function kept(selection, before, order) {
  if (selection.active < 0 || order.length === 0) return EMPTY;
  const shown = new Set(order);
  const ids = new Set(Array.from(selection.ids).filter((id) => shown.has(id)));
  if (ids.size === 0 && selection.ids.size > 0) { // all got a label and left: the next is selected
    return selectOnly(order, before.findIndex((id) => selection.ids.has(id)));
  }
  const active = order.indexOf(before[selection.active]);
  const anchor = order.indexOf(before[selection.anchor]);
  return { ids, anchor: Math.max(0, anchor), active: Math.max(0, active) };
}

function within(order, place) {
  return Math.max(0, Math.min(order.length - 1, place));
}
