// A text while a model writes it: the prompt's ids, and each token with the step that drew it.
import { events } from "./api.js";

export class Writing {
  /** `request` has a prompt or messages, `shown` is the prompt for people, `asked` and `values` are the knobs. */
  constructor({ request, shown, asked, values, answers }) {
    Object.assign(this, { request, shown, asked, values, answers, ids: null, tokens: [], seed: null, reason: null, notes: [], from: null });
  }

  /** A new text that begins as this one does, with `token` at a place, or with nothing there yet. */
  branch(place, token, { asked, values }) {
    const other = new Writing({ ...this, asked, values });
    other.ids = this.ids;
    other.tokens = [...this.tokens.slice(0, place), ...(token ? [token] : [])];
    other.from = place;
    return other;
  }

  /** The ids that a model reads to continue; an encoder-decoder reads only the prompt. */
  get all() {
    return [...this.ids, ...this.tokens.map((token) => token.id)];
  }

  /** Write to the end. Calls `heard` after each token and each change. Throws Refused, and AbortError if `signal` is aborted. */
  async write(heard, pause, signal) {
    const body = { ...this.request, ...this.asked, ...(this.ids && { prompt: this.all }) };
    if (this.ids) delete body.messages;
    const steps = [];
    const begun = performance.now();
    let drawn = 0;
    for await (const event of events("/explain", body, signal)) {
      if (event.event === "Prompt") this.ids ??= event.ids;
      else if (event.event === "Reading") heard(null, `reading the prompt: ${event.done} of ${event.total} tokens`);
      else if (event.event === "Started") this.seed = event.seed;
      else if (event.event === "Step") steps.push(event);
      else if (event.event === "Note") this.notes.push(event.text);
      else if (event.event === "Piece") {
        for (const token of completed(steps.splice(0, event.tokens.length), event, this.values)) {
          this.tokens.push(token);
          drawn += 1;
          heard(token);
          await pause(signal);
        }
      } else if (event.event === "Finished") {
        this.reason = event.reason;
        this.speed = (1000 * drawn) / (performance.now() - begun);
      }
    }
  }
}

/** The tokens that a piece of text completes. If several tokens make one character, the last one gets it. */
function completed(steps, event, values) {
  const own = steps.map((step) => step.text).join("") === event.text;
  return steps.map((step, place) => ({
    id: step.token,
    step,
    values,
    text: own ? step.text : place === steps.length - 1 ? event.text : "",
    probability: Math.exp(event.tokens[place][0][2]),
  }));
}

/** Waits between two tokens, until `signal` says that nobody waits any more. */
export function pauses(milliseconds) {
  return (signal) => milliseconds() === 0 ? null : new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds());
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
