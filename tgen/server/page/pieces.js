// The prompt as the tokenizer cuts it: each piece with its id, and the chosen piece with its spelling and its bytes.
import { ask, Refused } from "./api.js";
import { count, harmless, make, piece } from "./dom.js";

/** Show the pieces of a request's prompt, and of the tokens that were written after it. */
export async function showPieces(panel, request, written) {
  let found, drawn;
  try {
    found = (await ask("/pieces", request)).pieces;
    drawn = written.length ? (await ask("/pieces", { model: request.model, prompt: written })).pieces : [];
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    panel.replaceChildren(make("p", { className: "problem" }, error.message));
    return;
  }
  const said = make("p", { className: "how", "aria-live": "polite" }, "Choose a piece to see how the vocabulary spells it, and its bytes.");
  panel.replaceChildren(
    make("p", { className: "how" }, `A model reads numbers. The tokenizer cut the prompt into ${tokens(found.length)}, ${size(found)}; each has an id.`),
    list("The prompt", found, said),
    ...(drawn.length ? [make("h3", {}, "What the model wrote"), list("What the model wrote", drawn, said)] : []),
    said,
  );
}

const tokens = (number) => `${count(number)} ${number === 1 ? "token" : "tokens"}`;

function size(found) {
  const bytes = found.flatMap((one) => (one.special ? [] : one.bytes ?? []));
  const characters = [...new TextDecoder().decode(new Uint8Array(bytes))].length;
  return bytes.length ? `${(characters / Math.max(1, found.length)).toFixed(1)} characters each` : "whose bytes are not known";
}

function list(name, found, said) {
  const items = found.map((one) => {
    const button = make("button", { type: "button", className: one.special ? "chip special" : "chip" }, make("span", {}, ...piece(one.text)), make("small", {}, String(one.id)));
    button.addEventListener("click", () => {
      const bytes = one.bytes === null ? "not known" : one.bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
      said.replaceChildren("Id ", make("b", {}, String(one.id)), ": the vocabulary spells it ", make("code", {}, harmless(one.piece)), ", its bytes are ", make("code", {}, bytes), one.special ? "; it is a control token." : ".");
    });
    return make("li", {}, button);
  });
  return make("ol", { className: "chips", "aria-label": name }, ...items);
}
