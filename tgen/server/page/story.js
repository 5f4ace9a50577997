// The text as a list of tokens, each with the colour of its probability. One of them is selected.
import { byId, harmless, make, percent, quoted, surprise } from "./dom.js";

// If a reader has scrolled at most this many pixels away from the end, the box follows the text.
const NEAR = 60;
const SENTENCE = /[.!?…。！？][”’"')\]]*\s*$|\n$/;

export class Story {
  /** `selected` is called with the place of a token that was selected. */
  constructor(selected) {
    this.list = byId("tokens");
    this.selected = selected;
    this.place = null;
    this.list.addEventListener("click", (event) => {
      const place = [...this.list.children].indexOf(event.target.closest("[role=option]"));
      if (place >= 0) this.select(place);
    });
    this.list.addEventListener("keydown", (event) => this.#moved(event));
  }

  /** Show a text from its beginning, with no token selected. */
  show(writing) {
    const prompt = harmless(writing.shown);
    byId("text-prompt").textContent = writing.answers ? `${prompt}\n` : prompt;
    this.list.replaceChildren(...writing.tokens.map(option));
    this.place = null;
    this.unread = "";
    this.#reachable();
    this.#toEnd();
  }

  /** Show one more token. A screen reader gets whole sentences. */
  add(token) {
    const box = byId("text");
    const followed = this.place === null && box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    this.list.append(option(token));
    if (followed) this.#toEnd();
    this.unread += token.text;
    if (SENTENCE.test(this.unread)) this.read();
    if (this.list.childElementCount === 1) this.#reachable();
  }

  /** Show the end of a text that is longer than its box. */
  #toEnd() {
    byId("text").scrollTop = byId("text").scrollHeight;
  }

  /** Let a screen reader read what it has not read yet. */
  read() {
    if (this.unread) byId("live").textContent = this.unread;
    this.unread = "";
  }

  /** Select a token; null selects none. */
  select(place, { focus = true } = {}) {
    this.list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", false);
    this.place = place;
    const token = this.list.children[place];
    if (token) {
      token.setAttribute("aria-selected", true);
      if (focus) token.focus({ preventScroll: false });
    }
    this.#reachable();
    this.selected(place);
  }

  /** Exactly one token is in the order of the Tab key. */
  #reachable() {
    this.list.querySelector("[tabindex='0']")?.setAttribute("tabindex", -1);
    this.list.children[this.place ?? 0]?.setAttribute("tabindex", 0);
  }

  #moved(event) {
    const last = this.list.childElementCount - 1;
    const at = this.place ?? [...this.list.children].indexOf(document.activeElement);
    const place = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last, Enter: at, " ": at }[event.key];
    if (place === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.select(Math.max(0, Math.min(last, place)));
  }
}

/** A token as an option of the list. */
function option(token) {
  const element = make("span", {
    role: "option", "aria-selected": false, tabIndex: -1, className: "token", "--surprise": surprise(token.probability),
    "aria-label": `${quoted(token.text || token.step.text)}, ${percent(token.probability)}${token.chosen ? ", your choice" : ""}`,
    title: percent(token.probability),
  });
  if (token.chosen) element.classList.add("chosen");
  if (token.text === "") {
    element.classList.add("sign");
    element.append(token.step.candidates.find((one) => one.drawn)?.text.includes("\ufffd") ? "·" : harmless(token.step.text));
  } else {
    element.append(harmless(token.text).replace(/^\n+$/, (lines) => `⏎${lines}`));
  }
  return element;
}
