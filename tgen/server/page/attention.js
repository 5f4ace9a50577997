// Where each token looks, in one layer and one head: the tokens themselves, and a map of all of them.
import { ask, Refused } from "./api.js";
import { make, percent, piece, quoted } from "./dom.js";
import { HeatMap } from "./heatmap.js";

const KINDS = {
  decoder: "Within the text: each token looks at itself and at the tokens before it",
  encoder: "Within the text that is read: each token looks at all of them",
  cross: "From the answer to the text that is read",
};

export class Attention {
  constructor(panel) {
    this.panel = panel;
    this.place = { kind: null, layer: null, head: null };
    this.known = new Map();
    this.map = new HeatMap((row, column) => this.#tell(row, column));
    new ResizeObserver(() => this.data && this.map.canvas.isConnected && this.panel.clientWidth && this.map.draw()).observe(panel);
  }

  /** Forget the choice of a layer and a head, because the model has changed. */
  forget() {
    this.place = { kind: null, layer: null, head: null };
    this.known.clear();
  }

  /** Show a request's tokens; `row` is the one whose view to show, the last one if it is null. */
  async show(request, row) {
    const { kind, layer, head } = this.place;
    const body = { ...request, ...(kind && { kind }), ...(layer !== null && { layer }), ...(head !== null && { head }) };
    const key = JSON.stringify(body);
    this.wanted = key;
    if (!this.known.has(key)) {
      this.panel.setAttribute("aria-busy", "true");
      try {
        this.known.set(key, await ask("/attention", body));
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        if (this.wanted === key) this.panel.replaceChildren(make("p", { className: "problem" }, error.message));
        return;
      } finally {
        this.panel.removeAttribute("aria-busy");
      }
    }
    if (this.wanted !== key) return; // another choice was faster
    this.request = request;
    this.data = this.known.get(key);
    this.place.kind = this.data.kind;
    this.place.layer ??= this.data.layers - 1;
    const last = this.data.queries.length - 1;
    this.#draw(Math.max(0, Math.min(row ?? last, last)));
  }

  /** The kinds of attention that the model has. */
  set kinds(kinds) {
    this.choices = kinds;
  }

  #draw(row) {
    const { data } = this;
    this.said = make("div", { className: "looks", "aria-live": "polite" });
    this.queries = this.#strip(data.queries, "Tokens that look", true);
    const parts = [this.#controls(), make("p", { className: "hint" }, `${KINDS[data.kind]}. Choose a token to see where it looks.`)];
    parts.push(this.queries);
    this.keys = data.kind === "cross" ? this.#strip(data.keys, "Tokens that are looked at", false) : this.queries;
    if (this.keys !== this.queries) parts.push(make("p", { className: "hint" }, "The text that is read:"), this.keys);
    const focused = this.panel.contains(document.activeElement) ? document.activeElement.id || document.activeElement.className : null;
    this.panel.replaceChildren(...parts, this.said, make("div", { className: "scroll" }, this.map.canvas));
    if (focused) this.panel.querySelector(`#${CSS.escape(focused)}, .${CSS.escape(focused)}`)?.focus();
    this.map.canvas.setAttribute("aria-label", `Attention map: ${data.title}; ${data.queries.length} tokens that look, in rows, and ${data.keys.length} columns. Arrow keys move.`);
    this.map.show(data, row);
    this.#tell(row, null);
  }

  #controls() {
    const { kind, layer, head } = this.place;
    const select = (id, name, options, value, set) => {
      const element = make("select", { id }, ...options.map(([own, words]) => make("option", { value: own }, words)));
      element.value = String(value);
      element.addEventListener("change", () => { set(element.value); this.show(this.request, this.map.row); });
      return make("label", { for: id }, `${name} `, element);
    };
    const layers = Array.from({ length: this.data.layers }, (_, number) => [String(number), `${number}${number ? "" : ", the first"}${number === this.data.layers - 1 ? ", the last" : ""}`]);
    const heads = [["mean", "mean of all"], ...Array.from({ length: this.data.heads }, (_, number) => [String(number), String(number)])];
    const kinds = this.choices.map((one) => [one, one]);
    return make("div", { className: "buttons" },
      ...(kinds.length > 1 ? [select("map-kind", "Kind", kinds, kind, (value) => { this.place = { kind: value, layer: null, head: null }; })] : []),
      select("map-layer", "Layer", layers, layer, (value) => { this.place.layer = Number(value); }),
      select("map-head", "Head", heads, head ?? "mean", (value) => { this.place.head = value === "mean" ? null : Number(value); }));
  }

  /** A row of tokens. Clicks and arrow keys choose one, if these are the tokens that look. */
  #strip(labels, name, chosen) {
    const tokens = labels.map((text, place) => make("span", chosen ? { className: "key", role: "option", tabIndex: -1, "aria-selected": false, onclick: () => this.map.select(place) } : { className: "key" }, ...piece(text)));
    const strip = make("div", chosen ? { className: "strip", role: "listbox", "aria-label": name } : { className: "strip" }, ...tokens);
    if (chosen) strip.addEventListener("keydown", (event) => {
      const place = { ArrowRight: this.map.row + 1, ArrowLeft: this.map.row - 1, Home: 0, End: labels.length - 1 }[event.key];
      if (place === undefined || place < 0 || place >= labels.length) return;
      event.preventDefault();
      this.map.select(place);
      this.queries.children[place].focus();
    });
    return strip;
  }

  /** Colour the tokens at which the token of a row looks, and list them. */
  #tell(row, column) {
    const { queries, keys, weights } = this.data;
    const most = Math.max(...weights[row], 1e-9);
    [...this.keys.children].forEach((element, place) => element.style.setProperty("--weight", (weights[row][place] / most).toFixed(3)));
    [...this.queries.children].forEach((element, place) => {
      element.setAttribute("aria-selected", place === row);
      element.tabIndex = place === row ? 0 : -1;
    });
    const best = keys.map((text, place) => ({ text, place, weight: weights[row][place] })).sort((one, other) => other.weight - one.weight).slice(0, 5);
    this.said.replaceChildren(
      make("p", {}, make("b", {}, quoted(queries[row])), ` (token ${row}) looks most at`),
      make("ol", {}, ...best.map(({ text, place, weight }) => make("li", {}, make("span", { className: "number" }, percent(weight)), make("span", { className: "bar", "--width": weight }), make("span", {}, ...piece(text), make("small", {}, ` token ${place}`))))),
      ...(column === null ? [] : [make("p", {}, `At ${quoted(keys[column])}, token ${column}: ${percent(weights[row][column])}`)]),
    );
  }
}
