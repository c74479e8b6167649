/**
 * A grid of any number of images: only visible ones are in the page.
 *
 * To a screen reader it is a list of options, of which several may be selected.
 */

import { Component, createRef } from "../../vendor/preact/preact.js";
import { shown } from "../../page/dom.js";
import { html, hue, Thumbnail } from "../parts.js";
import { extend, moveTo, selectAll, selectOnly, selectRectangle, toggle } from "./selection.js";

const GAP = 10; // pixels between cells
const SPARE = 2; // rows above and below what can be seen
const CAPTION = 3; // height of a cell's text, in rem
const DRAG = 6; // pixels from which on a press is a drag
const EDGE = 36; // pixels from the edge where a drag scrolls

/**
 * Properties: `order` (ids), `images` (columns), `version` (changes with the columns), `selection`,
 * `select(selection)`, `size` (minimum width of a cell in pixels), `label`, `open(place)`,
 * `scroll` ({top}, kept between visits).
 */
export class Grid extends Component {
  list = createRef();
  state = { width: 0, height: 0, first: 0, band: null };

  componentDidMount() {
    this.observer = new ResizeObserver(() => this.measure());
    this.observer.observe(this.list.current);
    this.measure();
  }

  componentWillUnmount() {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
  }

  componentDidUpdate(before) {
    // Another filter begins at the top, but a changed image in the same one does not move the grid.
    if (before.scroll !== this.props.scroll) this.list.current.scrollTop = this.props.scroll.top;
    if (before.order.length !== this.props.order.length) this.onScroll();
    const { active } = this.props.selection;
    if (active !== before.selection.active && active >= 0 && !this.press) this.reveal(active);
  }

  measure() {
    const list = this.list.current;
    const { clientWidth: width, clientHeight: height } = list;
    if (width === this.state.width && height === this.state.height) return;
    const [isFirst, top, place] = [this.state.width === 0, this.props.scroll.top, this.topPlace()];
    this.setState({ width, height }, () => {
      const { columns, step } = this.shape();
      if (isFirst) list.scrollTop = top;
      else if (place > 0) list.scrollTop = Math.floor(place / columns) * step;
      this.onScroll();
    });
  }

  /** Return the place of the first image that can be seen. */
  topPlace() {
    const { columns, step } = this.shape();
    return Math.floor(this.list.current.scrollTop / step) * columns;
  }

  /** Return the numbers of the layout: columns, side of a cell, height of a row, rows. */
  shape(props = this.props, { width } = this.state) {
    const columns = Math.max(2, Math.floor((width + GAP) / (props.size + GAP)));
    const side = Math.max(1, (width - GAP * (columns - 1)) / columns);
    const caption = CAPTION * parseFloat(getComputedStyle(document.documentElement).fontSize);
    const step = Math.round(side + caption) + GAP;
    return { columns, side, step, rows: Math.ceil(props.order.length / columns) };
  }

  onScroll = () => {
    if (this.list.current === null) return;
    const top = this.list.current.scrollTop;
    this.props.scroll.top = top;
    const first = Math.max(0, Math.floor(top / this.shape().step) - SPARE);
    if (first !== this.state.first) this.setState({ first });
  };

  /** Return the row and column at a point of the window. */
  cellAt(event) {
    const box = this.list.current.getBoundingClientRect();
    const { columns, side, step } = this.shape();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top + this.list.current.scrollTop;
    const column = Math.max(0, Math.min(columns - 1, Math.floor(x / (side + GAP))));
    return { row: Math.max(0, Math.floor(y / step)), column, x, y };
  }

  onPointerDown = (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    const box = this.list.current;
    if (event.clientX - box.getBoundingClientRect().left > box.clientWidth) return; // the scroll bar
    this.press = { from: this.cellAt(event), event, isDrag: false,
      before: event.ctrlKey || event.metaKey || event.shiftKey ? this.props.selection.ids : new Set() };
    addEventListener("pointermove", this.onPointerMove);
    addEventListener("pointerup", this.onPointerUp, { once: true });
  };

  onPointerMove = (event) => {
    const { from, event: start } = this.press;
    const distance = Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY);
    if (!this.press.isDrag && distance < DRAG) return;
    this.press.isDrag = true;
    this.last = event;
    const to = this.cellAt(event);
    const { order, select } = this.props;
    this.setState({ band: { from, to } });
    select(selectRectangle(this.press.before, order, this.shape().columns, from, to));
    if (!this.frame) this.frame = requestAnimationFrame(this.scrollAtEdge);
  };

  /** While a drag is at the edge, scroll, and select what comes into sight. */
  scrollAtEdge = () => {
    this.frame = 0;
    if (!this.press) return;
    const list = this.list.current;
    const { top, bottom } = list.getBoundingClientRect();
    const beyond = Math.max(0, this.last.clientY - bottom + EDGE) - Math.max(0, top + EDGE - this.last.clientY);
    if (beyond === 0) return;
    list.scrollTop += Math.max(-40, Math.min(40, beyond / 2));
    this.onPointerMove(this.last);
  };

  onPointerUp = () => {
    removeEventListener("pointermove", this.onPointerMove);
    this.wasDrag = this.press.isDrag;
    this.press = null;
    if (this.state.band) this.setState({ band: null });
  };

  onClick = (event) => {
    if (this.wasDrag) {
      this.wasDrag = false;
      return;
    }
    const place = Number(event.target.closest("[data-place]")?.dataset.place ?? -1);
    const { order, select, selection } = this.props;
    if (place < 0) select({ ...selection, ids: new Set() });
    else if (event.shiftKey) select(extend(selection, order, place, event.ctrlKey || event.metaKey));
    else if (event.ctrlKey || event.metaKey || event.pointerType === "touch") {
      select(toggle(selection, order, place));
    } else select(selectOnly(order, place));
  };

  onDoubleClick = (event) => {
    const place = event.target.closest("[data-place]")?.dataset.place;
    if (place !== undefined) this.props.open(Number(place));
  };

  onKeyDown = (event) => {
    const { order, select, selection, open } = this.props;
    if (order.length === 0 || event.altKey) return;
    const { columns, step } = this.shape();
    const page = Math.max(1, Math.floor(this.state.height / step)) * columns;
    const at = selection.active;
    const target = {
      ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns,
      PageDown: at + page, PageUp: at - page, Home: 0, End: order.length - 1,
    }[event.key];
    const isChange = event.ctrlKey || event.metaKey;
    if (target !== undefined) {
      const isColumn = event.key === "ArrowUp" || event.key === "ArrowDown";
      const isEnd = event.key === "Home" || event.key === "End";
      const next = at < 0 && !isEnd ? 0 : isColumn && (target < 0 || target >= order.length) ? at : target;
      if (event.shiftKey) select(extend(selection, order, next));
      else if (isChange) select(moveTo(selection, order, next));
      else select(selectOnly(order, next));
    } else if (event.key === " ") {
      select(toggle(selection, order, Math.max(0, at)));
    } else if (isChange && event.key.toLowerCase() === "a") {
      select(selectAll(selection, order));
    } else if (event.key === "Escape" && selection.ids.size > 0) {
      select({ ...selection, ids: new Set() });
    } else if (event.key === "Enter") {
      open(Math.max(0, at));
    } else {
      return;
    }
    event.preventDefault();
  };

  /** Scroll a place into sight. */
  reveal(place) {
    const { columns, step } = this.shape();
    const top = Math.floor(place / columns) * step;
    const list = this.list.current;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + step > list.scrollTop + list.clientHeight) {
      list.scrollTop = top + step - list.clientHeight;
    }
    this.onScroll();
  }

  render({ order, images, selection, label }, { height, first, band }) {
    const shape = this.shape();
    const begin = first * shape.columns;
    const seen = Math.ceil(height / shape.step) + 2 * SPARE + 1;
    const end = Math.min(order.length, begin + seen * shape.columns);
    const cells = [];
    for (let place = begin; place < end; place++) {
      cells.push(this.cell(order[place], place, shape, images, selection));
    }
    const isSeen = selection.active >= begin && selection.active < end;
    return html`<div class="grid" ref=${this.list} role="listbox" aria-multiselectable="true" tabindex="0"
      aria-label=${label} aria-activedescendant=${isSeen ? `cell-${selection.active}` : null}
      onScroll=${this.onScroll} onPointerDown=${this.onPointerDown} onClick=${this.onClick}
      onDblClick=${this.onDoubleClick} onKeyDown=${this.onKeyDown}>
      <div class="grid-space" role="presentation" style=${{ height: `${Math.max(1, shape.rows * shape.step - GAP)}px` }}>
        ${cells}
        ${band && html`<div class="band" role="presentation" style=${bandStyle(band)}></div>`}
      </div>
    </div>`;
  }

  cell(id, place, { columns, side, step }, images, selection) {
    const row = images.rows.get(id);
    const label = images.labels[row];
    return html`<${Cell} key=${id} id=${id} place=${place} count=${this.props.order.length}
      name=${images.names[row]} label=${label < 0 ? "" : images.classes[label]} labelIndex=${label}
      isExcluded=${images.excluded[row] === 1} isSelected=${selection.ids.has(id)}
      isActive=${selection.active === place}
      x=${Math.round((place % columns) * (side + GAP))} y=${Math.floor(place / columns) * step}
      side=${side} height=${step - GAP} />`;
  }
}

class Cell extends Component {
  shouldComponentUpdate(next) {
    for (const name of Object.keys(next)) if (next[name] !== this.props[name]) return true;
    return false;
  }

  render({ id, place, count, name, label, labelIndex, isExcluded, isSelected, isActive, x, y, side, height }) {
    const classes = ["cell", isSelected && "is-selected", isActive && "is-active", isExcluded && "is-excluded"];
    const state = isExcluded ? "excluded" : label === "" ? "no label" : label;
    return html`<div id=${`cell-${place}`} class=${classes.filter(Boolean).join(" ")} role="option"
      aria-selected=${isSelected ? "true" : "false"} aria-setsize=${count} aria-posinset=${place + 1}
      aria-label=${`${shown(name)}, ${shown(state)}`} data-place=${place} data-id=${id} title=${shown(name)}
      style=${{ transform: `translate(${x}px, ${y}px)`, width: `${side}px`, height: `${height}px` }}>
      <${Thumbnail} id=${id} />
      <span class="cell-label">
        ${label === "" ? html`<span class="no-label">no label</span>`
          : html`<i class="mark" style=${{ "--hue": hue(labelIndex) }}></i><bdi>${shown(label)}</bdi>`}
        ${isExcluded ? html`<span class="tag">excluded</span>` : null}
      </span>
      <bdi class="cell-name">${shown(name.split("/").pop())}</bdi>
    </div>`;
  }
}

function bandStyle({ from, to }) {
  return {
    left: `${Math.min(from.x, to.x)}px`, top: `${Math.min(from.y, to.y)}px`,
    width: `${Math.abs(to.x - from.x)}px`, height: `${Math.abs(to.y - from.y)}px`,
  };
}
