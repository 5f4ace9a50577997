// Small functions for the document: elements, signs in place of white space, numbers as people read them.

const ATTRIBUTES = new Set(["role", "for", "form"]);

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/** A new element. Keys with a dash, and some others, become attributes; --names become CSS variables; the rest are properties. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("--")) element.style.setProperty(name, value); // the page's policy forbids style attributes
    else if (name.includes("-") || ATTRIBUTES.has(name)) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Characters that would move others or hide themselves, by their names: a model may write anything. */
export function harmless(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (found) => `⟨${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/** A token's text on one line, as nodes: white space is drawn as signs. */
export function piece(text) {
  const signs = { " ": "␣", "\n": "⏎", "\t": "⇥" };
  if (text === "") return [make("span", { className: "sign" }, "∅")];
  return harmless(text).split(/(^ | $|[\n\t])/).filter(Boolean)
    .map((part) => (part in signs ? make("span", { className: "sign" }, signs[part]) : part));
}

/** The same in quotation marks, for a sentence. */
export const quoted = (text) => `“${harmless(text).replace(/\n/g, "⏎").replace(/\t/g, "⇥")}”`;

/** A probability in percent, with two significant digits. */
export function percent(share) {
  const value = 100 * share;
  if (value === 0) return "0 %";
  if (value < 0.01) return "< 0.01 %";
  return `${value.toFixed(value >= 9.95 ? 0 : value >= 0.995 ? 1 : 2)} %`;
}

/** A whole number with commas. */
export const count = (number) => number.toLocaleString("en");

/** How surprising a probability is: 0 for 1, 1 for 1/256 and less. */
export const surprise = (probability) => Math.min(1, -Math.log2(Math.max(probability, 1e-9)) / 8);

/** Calls a function some time after the last request for it, so that many requests make one call. */
export function later(milliseconds, run) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds);
  };
}
