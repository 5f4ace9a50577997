// A map on a canvas: rows look at columns. The cursor moves by mouse and arrow keys.
import { harmless, make } from "./dom.js";

const LARGEST = 26, SMALLEST = 3, READABLE = 9;

export class HeatMap {
  /** `moved` is called with the row and the column of the cursor. */
  constructor(moved) {
    this.canvas = make("canvas", { className: "map", tabIndex: 0, role: "img" });
    this.moved = moved;
    this.canvas.addEventListener("click", (event) => this.#pointed(event));
    this.canvas.addEventListener("keydown", (event) => this.#pressed(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.data && this.draw());
  }

  /** Show a map: queries, keys, weights [queries][keys]. */
  show(data, row) {
    this.data = data;
    this.row = row;
    this.column = null;
    this.draw();
  }

  /** Select a row. */
  select(row, column = null) {
    this.row = row;
    this.column = column;
    this.draw();
    this.moved(row, column);
  }

  draw() {
    const { queries, keys, weights } = this.data;
    const style = getComputedStyle(this.canvas);
    const room = this.canvas.parentElement.clientWidth;
    const paint = this.canvas.getContext("2d");
    paint.font = `13px ${style.fontFamily}`;
    const label = Math.min(room / 4, 12 + Math.max(...[...queries, ...keys].map((text) => paint.measureText(shortened(text)).width)));
    this.cell = Math.max(SMALLEST, Math.min(LARGEST, (room - label - 6) / keys.length));
    this.label = this.cell >= READABLE ? label : 0;
    const [width, height] = [this.label + this.cell * keys.length, this.label + this.cell * queries.length];
    const scale = window.devicePixelRatio || 1;
    Object.assign(this.canvas, { width: Math.ceil(width * scale), height: Math.ceil(height * scale) });
    this.canvas.style.setProperty("--map-width", `${width}px`);
    paint.scale(scale, scale);
    const ink = style.getPropertyValue("--ink"), accent = style.getPropertyValue("--accent"), hot = style.getPropertyValue("--hot");
    const most = Math.max(...weights.map((row) => Math.max(...row)), 1e-9);
    const gap = this.cell > 6 ? 1 : 0;
    weights.forEach((row, y) => row.forEach((weight, x) => {
      paint.globalAlpha = 0.04 + 0.96 * Math.sqrt(weight / most); // small weights are seen, too
      paint.fillStyle = accent;
      paint.fillRect(this.label + x * this.cell, this.label + y * this.cell, this.cell - gap, this.cell - gap);
    }));
    paint.globalAlpha = 1;
    paint.strokeStyle = hot;
    paint.lineWidth = 2;
    paint.strokeRect(this.label + 1, this.label + this.row * this.cell, this.cell * keys.length - 2, this.cell);
    if (this.column !== null) paint.strokeRect(this.label + this.column * this.cell, this.label + this.row * this.cell, this.cell, this.cell);
    if (this.label) this.#labels(paint, ink, style.fontFamily);
  }

  #labels(paint, ink, family) {
    paint.fillStyle = ink;
    paint.font = `${Math.min(13, this.cell - 1)}px ${family}`;
    paint.textBaseline = "middle";
    this.data.queries.forEach((text, y) => {
      paint.textAlign = "right";
      paint.fillText(shortened(text), this.label - 6, this.label + (y + 0.5) * this.cell, this.label - 8);
    });
    this.data.keys.forEach((text, x) => {
      paint.save();
      paint.translate(this.label + (x + 0.5) * this.cell, this.label - 6);
      paint.rotate(-Math.PI / 2);
      paint.textAlign = "left";
      paint.fillText(shortened(text), 0, 0, this.label - 8);
      paint.restore();
    });
  }

  #pointed(event) {
    const place = this.canvas.getBoundingClientRect();
    const at = (offset, extent, own) => Math.floor(((offset * own) / extent - this.label) / this.cell);
    const x = at(event.clientX - place.left, place.width, this.label + this.cell * this.data.keys.length);
    const y = at(event.clientY - place.top, place.height, this.label + this.cell * this.data.queries.length);
    if (y >= 0 && y < this.data.queries.length) this.select(y, x >= 0 && x < this.data.keys.length ? x : null);
  }

  #pressed(event) {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    const row = Math.max(0, Math.min(this.data.queries.length - 1, this.row + down));
    const column = right || this.column !== null ? Math.max(0, Math.min(this.data.keys.length - 1, (this.column ?? -1) + right)) : null;
    this.select(row, column);
  }
}

function shortened(text) {
  const word = harmless(text).replace(/\n/g, "⏎").replace(/\t/g, "⇥").trim() || "␣";
  return word.length > 14 ? `${word.slice(0, 13)}…` : word;
}
