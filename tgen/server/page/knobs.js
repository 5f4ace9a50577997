// The knobs: one for each option that the server declares, with its range, its help and the model's own value.
import { byId, make } from "./dom.js";

const FIRST = ["temperature", "top_k", "top_p", "min_p", "max_new_tokens", "seed"];
// The ends of the sliders; the number beside a slider may lie beyond them.
const SLIDERS = {
  temperature: [0, 2, 0.05], top_k: [0, 100, 1], top_p: [0, 1, 0.01], min_p: [0, 0.5, 0.01], max_new_tokens: [1, 400, 1],
  repetition_penalty: [1, 2, 0.01], presence_penalty: [-2, 2, 0.1], frequency_penalty: [-2, 2, 0.1], no_repeat_ngram_size: [0, 12, 1],
};
const PRESETS = {
  "Model's own": {},
  "No chance": { temperature: 0 },
  "Wild": { temperature: 1.4, top_k: 0, top_p: 1, min_p: 0 },
};

export class Knobs {
  /** Show the options of a model's settings. */
  show(options) {
    this.options = options;
    this.inputs = new Map();
    const first = FIRST.map((name) => options.find((option) => option.name === name)).filter(Boolean);
    const more = options.filter((option) => !FIRST.includes(option.name));
    const rest = make("details", {}, make("summary", {}, "More knobs"), ...more.map((option) => this.#knob(option)));
    byId("knobs").replaceChildren(...first.map((option) => this.#knob(option)), ...(more.length ? [rest] : []));
    byId("presets").replaceChildren(...Object.entries(PRESETS).map(([name, values]) =>
      make("button", { type: "button", onclick: () => this.#set(values) }, name)));
  }

  /** The options that a request sets: those whose value is not the model's own. */
  asked() {
    const found = {};
    for (const { name, value } of this.options) {
      const given = this.inputs.get(name).value;
      if (given !== "" && Number(given) !== value) found[name] = Number(given);
    }
    return found;
  }

  /** The value of every option that is not off, by its name. */
  values() {
    const used = this.options.map(({ name, value, neutral }) => {
      const given = this.inputs.get(name).value;
      return [name, given === "" ? value : Number(given), neutral];
    });
    return Object.fromEntries(used.filter(([, value, neutral]) => value !== null && value !== neutral));
  }

  /** Let the next text be drawn with this seed. */
  keepSeed(seed) {
    this.inputs.get("seed").value = seed;
  }

  #set(values) {
    for (const { name, value } of this.options) {
      if (name === "max_new_tokens" || name === "seed") continue;
      const input = this.inputs.get(name);
      input.value = values[name] ?? value ?? "";
      input.dispatchEvent(new Event("input"));
    }
  }

  #knob({ name, help, low, high, whole, value }) {
    const [id, words] = [`knob-${name}`, name.replaceAll("_", "-")];
    const input = make("input", {
      type: "number", id, "form": "ask", value: value ?? "", step: whole ? "1" : "any", placeholder: name === "seed" ? "new" : "",
      inputMode: whole ? "numeric" : "decimal", "aria-describedby": `${id}-help`,
    });
    if (low !== null) input.min = low;
    if (high !== null) input.max = high;
    this.inputs.set(name, input);
    const parts = [make("label", { for: id }, words), input];
    const border = SLIDERS[name] ?? (low !== null && high !== null && high <= 100 ? [low, high, whole ? 1 : 0.01] : null);
    if (border) {
      const [min, max, step] = border;
      const slider = make("input", { type: "range", min, max, step, value: value ?? min, "aria-label": `${words}, slider` });
      slider.addEventListener("input", () => { input.value = slider.value; });
      input.addEventListener("input", () => { slider.value = input.value; });
      parts.push(slider);
    }
    const said = help.replace(/^\d\w\w: /, "").replace(/^./, (letter) => letter.toUpperCase());
    return make("div", { className: "knob" }, ...parts, make("p", { className: "hint", id: `${id}-help` }, said));
  }
}
